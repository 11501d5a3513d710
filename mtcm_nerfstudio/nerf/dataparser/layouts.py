"""Which of nerfstudio's parsers reads a capture, set up for it."""

import math
from pathlib import Path, PurePosixPath
from typing import Any

from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

from mtcm_nerfstudio.capture.capture import Capture, Frame, Source
from mtcm_nerfstudio.capture.colmap import find_model
from mtcm_nerfstudio.capture.identity import read_identity
from mtcm_nerfstudio.capture.images import image_size
from mtcm_nerfstudio.capture.transforms import load_transforms
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics
from mtcm_nerfstudio.nerf.dataparser.colmap_parser import ColmapParser
from mtcm_nerfstudio.nerf.dataparser.flags import StockFlags, with_flags
from mtcm_nerfstudio.nerf.dataparser.frame_subset_parser import FrameSubsetParser
from mtcm_nerfstudio.nerf.dataparser.transforms_parser import TransformsParser


def open_capture(
    data: Path, source: Source, flags: StockFlags, identity: str | None, model: str | None, derived: Path
) -> FrameSubsetParser:
    """Set up the stock parser that reads a capture.

    Args:
        data: the capture's folder (or its transforms.json).
        source: its layout.
        flags: settings of the stock parser that were given.
        identity: which identity, for that layout.
        model: the COLMAP model's folder relative to ``data``, for that layout.
        derived: the folder for files that are made from the capture.

    Raises:
        ValueError: the capture has no poses, or a flag is not one of its parser's.
    """
    if source == "transforms":
        path = data if data.is_file() else data / "transforms.json"
        config = with_flags(NerfstudioDataParserConfig(data=path.parent), flags)
        return TransformsParser(config, load_transforms(path), path.parent)
    if source == "identity":
        capture = read_identity(data, identity)
        config = with_flags(NerfstudioDataParserConfig(data=capture.root), flags)
        return TransformsParser(config, transforms_of(capture), capture.root)
    if source == "colmap":
        config = ColmapDataParserConfig(data=data, colmap_path=Path(model or "."))
        return ColmapParser(with_flags(config, flags), derived, find_images=flags.images_path is None)
    raise ValueError(f"{data}: holds photos without poses. Pose them first: ns-mtcm-process")


def model_of(data: Path, source: Source, named: Path | None = None) -> str | None:
    """Return the COLMAP model that a capture is read from, relative to the capture; None for other layouts.

    Args:
        data: the capture's folder.
        source: its layout.
        named: the model that the user named, if any; without it, the one that the filter reads too.
    """
    if source != "colmap":
        return None
    model = find_model(data) if named is None else data / named
    return None if model is None else PurePosixPath(model.relative_to(data)).as_posix()


def refuse_another_model(capture: Capture, named: Path | None) -> None:
    """Raise ValueError where nerfstudio is to read another COLMAP model than the one that the filter judged."""
    if named is None or capture.model_dir is None or (capture.root / named).resolve() == capture.model_dir.resolve():
        return
    raise ValueError(
        f"--colmap-path {named} is not the model that the filter judged ({capture.model_dir}): poses of two models "
        "cannot be mixed. Leave the flag out, or take the other model away."
    )


def transforms_of(capture: Capture) -> dict[str, Any]:
    """Write a capture as the content of a transforms.json, its cameras per frame.

    A frame with no pose, or without a camera, goes in without a pose: it cannot be trained on.

    Raises:
        ValueError: the frames have several camera models, which nerfstudio cannot tell apart.
    """
    cameras = {frame.file_path: _camera_of(frame) for frame in capture.frames}
    models = sorted({camera.camera_model for camera in cameras.values() if camera})
    if len(models) > 1:
        raise ValueError(f"{capture.name}: cameras of several models ({', '.join(models)}); nerfstudio takes one")
    frames = [_entry(frame, cameras[frame.file_path]) for frame in capture.frames]
    return {"frames": frames, **({"camera_model": models[0]} if models else {})}


def _entry(frame: Frame, camera: Intrinsics | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"file_path": frame.file_path}
    if frame.mask_path is not None:
        entry["mask_path"] = str(frame.mask_path.absolute())
    if frame.c2w is None or camera is None:
        return entry
    size = {"w": camera.width, "h": camera.height}
    calibration = {"fl_x": camera.fl_x, "fl_y": camera.fl_y, "cx": camera.cx, "cy": camera.cy}
    return {**entry, **size, **calibration, **dict(camera.distortion), "transform_matrix": frame.c2w.tolist()}


def _camera_of(frame: Frame) -> Intrinsics | None:
    """Return a frame's calibration, else a pinhole of the focal length that its metadata tells."""
    if frame.intrinsics is not None:
        return frame.intrinsics
    size = image_size(frame.image_path)
    if size is None or frame.focal_over_diagonal is None:
        return None
    focal = frame.focal_over_diagonal * math.hypot(*size)
    return Intrinsics("PINHOLE", *size, focal, focal, size[0] / 2, size[1] / 2)
