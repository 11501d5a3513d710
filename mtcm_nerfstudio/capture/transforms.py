"""Reading a capture from nerfstudio's ``transforms.json`` (any ``ns-process-data`` output, instant-ngp's too)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtcm_nerfstudio.capture.capture import Capture, Frame, in_temporal_order
from mtcm_nerfstudio.capture.images import ExifFacts, image_size, mask_beside, read_exif
from mtcm_nerfstudio.geometry.intrinsics import DISTORTION_KEYS, Intrinsics, Pose


def read_transforms(path: Path) -> Capture:
    """Read a capture from the ``transforms.json`` at ``path``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON or lists no frames; the message names the file and the frame.
    """
    meta = load_transforms(path)
    root = path.parent
    frames = [_frame(root, meta, entry, number) for number, entry in enumerate(meta["frames"])]
    return Capture(root, root.resolve().name, "transforms", in_temporal_order(frames))


def load_transforms(path: Path) -> dict[str, Any]:
    """Load the JSON of ``transforms.json`` and check its outline. Raises as ``read_transforms`` does."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text ({error.reason})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is no JSON ({error})") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list) or not meta["frames"]:
        raise ValueError(f"{path}: lists no frames. Process the capture again.")
    return meta


def _frame(root: Path, meta: Mapping[str, Any], entry: Any, number: int) -> Frame:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str) or not entry["file_path"]:
        raise ValueError(f"{root / 'transforms.json'}: frame {number} has no file_path. Take it out or name its image.")
    file_path = entry["file_path"]
    image_path = root / file_path
    exif = read_exif(image_path)
    return Frame(
        file_path=file_path,
        image_path=image_path,
        c2w=_matrix(entry.get("transform_matrix")),
        intrinsics=_intrinsics({**meta, **entry}, image_path),
        timestamp=_timestamp(entry, exif),
        mask_path=_mask(root, entry.get("mask_path")) or mask_beside(root, file_path),
        focal_over_diagonal=exif.focal_over_diagonal,
    )


def _mask(root: Path, mask_path: Any) -> Path | None:
    return root / mask_path if isinstance(mask_path, str) and mask_path else None


def _matrix(rows: Any) -> Pose | None:
    """Read a 4×4 (or 3×4) matrix; one that is no matrix at all counts as not finite, not as absent."""
    if rows is None:
        return None
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError):
        return np.full((4, 4), np.nan)
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
    return matrix if matrix.shape == (4, 4) else np.full((4, 4), np.nan)


def _timestamp(entry: Mapping[str, Any], exif: ExifFacts) -> float | None:
    """Return the frame's timestamp in seconds: ``timestamp`` or ``time`` of the file, else EXIF."""
    for key in ("timestamp", "time"):
        seconds = _number(entry.get(key))
        if seconds is not None:
            return seconds
    return exif.timestamp


def _intrinsics(meta: Mapping[str, Any], image_path: Path) -> Intrinsics | None:
    """Read the calibration, whose parts may stand per file or per frame; None where there is no focal length."""
    size = (_number(meta.get("w")) or 0.0, _number(meta.get("h")) or 0.0)
    width, height = map(float, size if all(size) else image_size(image_path) or (0, 0))
    if not width or not height:
        return None
    fl_x = _number(meta.get("fl_x")) or _focal_from_angle(meta.get("camera_angle_x"), width)
    fl_y = _number(meta.get("fl_y")) or _focal_from_angle(meta.get("camera_angle_y"), height) or fl_x
    fl_x = fl_x or fl_y
    if not fl_x or not fl_y:
        return None
    distortion = tuple((key, value) for key in DISTORTION_KEYS if (value := _number(meta.get(key))) is not None)
    return Intrinsics(
        camera_model=str(meta.get("camera_model", "OPENCV" if distortion else "PINHOLE")),
        width=int(width),
        height=int(height),
        fl_x=fl_x,
        fl_y=fl_y,
        cx=_number(meta.get("cx")) or width / 2,
        cy=_number(meta.get("cy")) or height / 2,
        distortion=distortion,
    )


def _focal_from_angle(angle_radians: Any, extent_px: float) -> float | None:
    angle = _number(angle_radians)
    return None if not angle or not 0 < angle < math.pi else 0.5 * extent_px / math.tan(0.5 * angle)


def _number(value: Any) -> float | None:
    """Return a finite float, or None for whatever else the file holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
