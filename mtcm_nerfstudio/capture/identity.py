"""Reading a capture from the identity layout: embeddings, images, masks and metadata in folders per identity.

    data/embeddings/<identity>/*.npy
    data/raw_images/<identity>/*.jpg
    data/masks/<identity>/*.png
    data/metadata/<identity>/poses.json   {"images": {"059_xxx.jpg": {qvec, tvec, camera_id}}, "cameras": {…}}
    data/metadata/<identity>/exif.json    {"059_xxx.jpg": {"timestamp": …, "focal_length": …}}

Whatever is missing is left out of the frames that lack it; nothing else changes.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from mtcm_nerfstudio.capture.capture import Capture, Frame, in_temporal_order, natural_key
from mtcm_nerfstudio.capture.colmap import intrinsics_of
from mtcm_nerfstudio.capture.images import (
    FULL_FRAME_DIAGONAL_MM,
    image_size,
    list_images,
    mask_beside,
    parse_exif_date,
    read_exif,
)
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics, Pose
from mtcm_nerfstudio.geometry.poses import c2w_from_colmap

_PARTS = ("raw_images", "metadata", "embeddings")


@dataclass(frozen=True)
class _Metadata:
    poses: Mapping[str, Any]
    """``images`` of poses.json."""
    intrinsics: Mapping[str, Intrinsics]
    exif: Mapping[str, Any]
    embeddings: Mapping[str, tuple[Path, int | None]]
    """File and row of each frame's embedding, by the image's name."""


def list_identities(data: Path) -> list[str]:
    """List the identities below ``data``, in natural order; none where the folder is not of this layout."""
    names = {
        folder.name
        for part in _PARTS
        if (data / part).is_dir()
        for folder in (data / part).iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    }
    return sorted(names, key=natural_key)


def read_identity(data: Path, identity: str | None = None) -> Capture:
    """Read one identity as a capture. ``file_path`` is relative to ``raw_images/<identity>/``.

    Args:
        data: the folder that holds ``raw_images/`` and its siblings.
        identity: its name; may be left out where there is only one.

    Raises:
        FileNotFoundError: the identity is not there, or has neither images nor poses.
        ValueError: there are several and none was named, or a file of it cannot be read.
    """
    identity = _chosen(data, identity)
    images = data / "raw_images" / identity
    files = [path.relative_to(images).as_posix() for path in list_images(images)] if images.is_dir() else []
    metadata = _read_metadata(data, identity, files)
    names = sorted({*files, *metadata.poses}, key=natural_key)
    if not names:
        raise FileNotFoundError(f"{images}: no images, and no poses in {data / 'metadata' / identity / 'poses.json'}")
    return Capture(
        root=images,
        name=identity,
        source="identity",
        frames=in_temporal_order(_frame(data, identity, name, metadata) for name in names),
        embedder=_stated_backend(data / "embeddings" / identity / "backend.json"),
    )


def _chosen(data: Path, identity: str | None) -> str:
    identities = list_identities(data)
    if identity is None and len(identities) == 1:
        return identities[0]
    if identity is None:
        raise ValueError(f"{data}: holds {len(identities)} identities ({', '.join(identities)}). Name one: --identity")
    if identity not in identities:
        raise FileNotFoundError(f"{data}: no identity {identity!r}; there are {', '.join(identities) or 'none'}")
    return identity


def _read_metadata(data: Path, identity: str, files: list[str]) -> _Metadata:
    folder = data / "metadata" / identity
    poses = _load_json(folder / "poses.json")
    images, cameras = poses.get("images", {}), poses.get("cameras", {})
    if not isinstance(images, dict) or not isinstance(cameras, dict):
        raise ValueError(f"{folder / 'poses.json'}: 'images' and 'cameras' must be objects keyed by name and id")
    return _Metadata(
        poses=images,
        intrinsics={key: _camera(folder / "poses.json", key, entry) for key, entry in cameras.items()},
        exif=_load_json(folder / "exif.json"),
        embeddings=_find_embeddings(data / "embeddings" / identity, sorted({*files, *images}, key=natural_key)),
    )


def _frame(data: Path, identity: str, name: str, metadata: _Metadata) -> Frame:
    image_path = data / "raw_images" / identity / name
    entry = metadata.poses.get(name)
    exif_entry = metadata.exif.get(name)
    exif_entry = exif_entry if isinstance(exif_entry, dict) else {}
    exif = read_exif(image_path)
    timestamp = _seconds(exif_entry.get("timestamp"))
    embedding_path, row = metadata.embeddings.get(name, (None, None))
    camera_id = str(entry.get("camera_id", "")) if isinstance(entry, dict) else ""
    return Frame(
        file_path=name,
        image_path=image_path,
        c2w=_pose(entry),
        intrinsics=metadata.intrinsics.get(camera_id),
        timestamp=timestamp if timestamp is not None else exif.timestamp,
        mask_path=_mask(data / "masks" / identity, name) or mask_beside(image_path.parent, name),
        embedding_path=embedding_path,
        embedding_row=row,
        focal_over_diagonal=_focal_share(exif_entry, image_path) or exif.focal_over_diagonal,
    )


def _mask(folder: Path, name: str) -> Path | None:
    candidates = (folder / Path(name).with_suffix(".png"), folder / f"{name}.png")
    return next((path for path in candidates if path.is_file()), None)


def _pose(entry: Any) -> Pose | None:
    if entry is None:
        return None
    try:
        qvec, tvec = np.array(entry["qvec"], dtype=np.float64), np.array(entry["tvec"], dtype=np.float64)
    except (TypeError, ValueError, KeyError):
        return np.full((4, 4), np.nan)
    readable = qvec.shape == (4,) and tvec.shape == (3,) and np.isfinite([*qvec, *tvec]).all() and qvec.any()
    return c2w_from_colmap(qvec, tvec) if readable else np.full((4, 4), np.nan)


def _camera(path: Path, key: str, entry: Any) -> Intrinsics:
    try:
        camera = pycolmap.Camera(
            model=entry["model"], width=entry["width"], height=entry["height"], params=entry["params"]
        )
        return intrinsics_of(camera)
    except (TypeError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{path}: camera {key} needs model, width, height and params as COLMAP has them") from error


def _find_embeddings(folder: Path, names: list[str]) -> dict[str, tuple[Path, int | None]]:
    """Match ``.npy`` files to images by stem, or the rows of a single N × 384 array to all images in order."""
    files = sorted(folder.rglob("*.npy")) if folder.is_dir() else []
    by_stem = {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
    if len(files) == 1 and files[0].stem not in {Path(name).stem for name in names}:
        rows = np.load(files[0], mmap_mode="r", allow_pickle=False)
        if rows.ndim != 2 or len(rows) != len(names):
            raise ValueError(f"{files[0]}: has shape {rows.shape}, wanted {len(names)} × 384, one row an image")
        return {name: (files[0], row) for row, name in enumerate(names)}
    alike = Counter(Path(name).stem for name in names)
    found = {}
    for name in names:
        # A file at the top belongs to an image in a subfolder only where no other image has the same stem.
        file = by_stem.get(Path(name).with_suffix("").as_posix())
        if file is None and alike[Path(name).stem] == 1:
            file = by_stem.get(Path(name).stem)
        if file is not None:
            found[name] = (file, None)
    return found


def _stated_backend(path: Path) -> str | None:
    backend = _load_json(path).get("backend")
    return backend if isinstance(backend, str) else None


def _seconds(value: Any) -> float | None:
    """Read a time: seconds as a number (or a number in quotes), else an EXIF date."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return parse_exif_date(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) else None


def _focal_share(entry: Mapping[str, Any], image_path: Path) -> float | None:
    """Return the focal length over the image's diagonal.

    Millimetres are taken as 35-mm-equivalent, since nothing here says how large the sensor was.
    """
    focal = entry.get("focal_length")
    if isinstance(focal, bool) or not isinstance(focal, int | float) or not focal > 0:
        return None
    if entry.get("focal_length_unit", "px") == "mm":
        return float(focal) / FULL_FRAME_DIAGONAL_MM
    size = image_size(image_path)
    return float(focal / np.hypot(*size)) if size else None


def _load_json(path: Path) -> dict[str, Any]:
    """Load a JSON object; a file that is not there is an empty one."""
    if not path.is_file():
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is no JSON ({error})") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: holds a {type(loaded).__name__}, wanted an object")
    return loaded
