"""Files of a rendered capture: JPEGs with EXIF, masks, and nerfstudio's transforms.json."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, TiffImagePlugin

from rendering.raycast import Camera

SENSOR_DIAGONAL_MM = 8.0
"""Diagonal of the sensor that the EXIF focal lengths pretend."""
FULL_FRAME_DIAGONAL_MM = 43.2666
"""Diagonal of the film that 35-mm-equivalent focal lengths refer to."""

_MAKE, _MODEL, _DATE_TIME, _EXIF_IFD = 0x010F, 0x0110, 0x0132, 0x8769
_DATE_TIME_ORIGINAL, _SUBSEC_ORIGINAL, _FOCAL_LENGTH, _FOCAL_35MM = 0x9003, 0x9291, 0x920A, 0xA405
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003


def exif(camera: Camera, taken: datetime) -> Image.Exif:
    """Return EXIF as a phone writes it: maker, time to the millisecond, focal length in millimetres."""
    tags = Image.Exif()
    tags[_MAKE], tags[_MODEL] = "Rendered", "Embree pinhole"
    tags[_DATE_TIME] = taken.strftime("%Y:%m:%d %H:%M:%S")
    details = tags.get_ifd(_EXIF_IFD)
    details[_DATE_TIME_ORIGINAL] = taken.strftime("%Y:%m:%d %H:%M:%S")
    details[_SUBSEC_ORIGINAL] = f"{taken.microsecond // 1000:03d}"
    focal_over_diagonal = camera.focal / np.hypot(camera.width, camera.height)
    details[_FOCAL_LENGTH] = TiffImagePlugin.IFDRational(round(focal_over_diagonal * SENSOR_DIAGONAL_MM * 1000), 1000)
    details[_FOCAL_35MM] = round(focal_over_diagonal * FULL_FRAME_DIAGONAL_MM)
    details[_PIXEL_WIDTH], details[_PIXEL_HEIGHT] = camera.width, camera.height
    return tags


def taken_at(start: datetime, seconds: float) -> datetime:
    """Return the moment ``seconds`` after ``start``, to the millisecond that EXIF can hold."""
    return start + timedelta(milliseconds=round(seconds * 1000))


def save_photo(
    path: Path, pixels: UInt8[np.ndarray, "height width 3"], quality: int, tags: Image.Exif | None = None
) -> None:
    """Write a JPEG, with EXIF if there is any."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extra: dict[str, Any] = {} if tags is None else {"exif": tags.tobytes()}
    Image.fromarray(pixels).save(path, quality=quality, optimize=True, **extra)


def save_mask(path: Path, mask: Bool[np.ndarray, "height width"]) -> None:
    """Write a mask as a one-bit PNG, white where the subject is; nerfstudio reads those too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path, optimize=True)


def transforms(
    camera: Camera,
    file_paths: Sequence[str],
    c2w: Float[np.ndarray, "frame 4 4"],
    mask_paths: Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the contents of a transforms.json with one camera for all frames."""
    frames = [
        {"file_path": name, "transform_matrix": pose.tolist()} for name, pose in zip(file_paths, c2w, strict=True)
    ]
    if mask_paths is not None:
        frames = [frame | {"mask_path": mask} for frame, mask in zip(frames, mask_paths, strict=True)]
    return {
        "camera_model": "OPENCV",
        "w": camera.width,
        "h": camera.height,
        "fl_x": camera.focal,
        "fl_y": camera.focal,
        "cx": camera.cx,
        "cy": camera.cy,
        **{name: 0.0 for name in ("k1", "k2", "p1", "p2")},
        **(extra or {}),
        "frames": frames,
    }


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write JSON that is stable from run to run and can be read by a person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
