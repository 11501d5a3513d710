"""Writes a capture with known faults to disk, for anything that reads captures, with the truth beside it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from mtcm_nerfstudio.capture.capture import Capture, Frame
from mtcm_nerfstudio.capture.corruptions.image import apply_image_fault, foreign_image
from mtcm_nerfstudio.capture.corruptions.plan import IMAGE_FAULTS, Fault, faulted_poses
from mtcm_nerfstudio.capture.images import read_rgb
from mtcm_nerfstudio.capture.transforms import read_transforms
from mtcm_nerfstudio.capture.writing.files import camera_entry, link_or_copy

TRUTH_FILE = "faults.json"
_SCHEMA_VERSION = 1
_JPEG_QUALITY = 95


def inject(capture: Capture, faults: Sequence[Fault], foreign: Capture | None, out_dir: Path) -> Capture:
    """Write a copy of a capture with faults: ``transforms.json``, images, masks, and ``faults.json``.

    Clean images are hard-linked where the file system allows, else copied; the original files are never written to.
    Frames that the capture has no pose for are left out, since nerfstudio refuses a file that lists them.

    Args:
        capture: the clean capture.
        faults: a plan, see ``plan_faults``.
        foreign: another capture, whose images stand in for those of ``foreign`` faults.
        out_dir: a new or empty folder.

    Returns:
        The capture as it reads from ``out_dir``.

    Raises:
        ValueError: ``out_dir`` is not empty, or a foreign fault has no capture to draw from.
        FileNotFoundError: the image of a faulty frame is missing.
    """
    if out_dir.exists() and any(out_dir.iterdir()):
        raise ValueError(f"{out_dir}: is not empty. Name a new folder for the faulty capture.")
    if foreign is None and any(fault.kind == "foreign" for fault in faults):
        raise ValueError("a foreign fault needs another capture to take an image from")
    out_dir.mkdir(parents=True, exist_ok=True)
    poses = faulted_poses(_poses(capture), faults)
    names = [_name_within(frame.file_path, i) for i, frame in enumerate(capture.frames)]
    posed = [i for i, frame in enumerate(capture.frames) if frame.c2w is not None]
    fault_of = {fault.frame: fault for fault in faults}
    for i in posed:
        _write_image(capture.frames[i], fault_of.get(i), foreign, out_dir / names[i])
    entries = [_entry(capture.frames[i], names[i], poses[i], out_dir) for i in posed]
    cameras = [camera_entry(camera) if (camera := capture.frames[i].intrinsics) else {} for i in posed]
    _write_json(out_dir / "transforms.json", _transforms(entries, cameras))
    written = [fault for fault in faults if fault.frame in posed]
    truth = [{"file_path": names[fault.frame], "reason": fault.reason, **asdict(fault)} for fault in written]
    _write_json(out_dir / TRUTH_FILE, {"schema_version": _SCHEMA_VERSION, "faults": truth})
    return read_transforms(out_dir / "transforms.json")


def read_truth(capture_dir: Path) -> dict[str, Fault]:
    """Read the faults that ``inject`` put into a capture, keyed by ``file_path``.

    Raises:
        FileNotFoundError: the folder has no ``faults.json``.
        ValueError: the file is damaged or of another schema version.
    """
    path = capture_dir / TRUTH_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema_version"] != _SCHEMA_VERSION:
            raise ValueError(f"schema_version is {record['schema_version']!r}, this program reads {_SCHEMA_VERSION}")
        return {
            entry["file_path"]: Fault(entry["frame"], entry["kind"], entry["severity"], entry["seed"])
            for entry in record["faults"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a file of faults ({error})") from error


def faulty_image(image: Image.Image, fault: Fault, foreign: Capture | None) -> Image.Image:
    """Return a frame's image with its fault, at the same size; pose faults leave it as it is.

    Raises:
        ValueError: the fault is ``foreign`` and there is no capture to draw from.
    """
    for kind in IMAGE_FAULTS:
        if fault.kind == kind:
            return apply_image_fault(image, kind, fault.severity, fault.rng())
    if fault.kind == "foreign":
        if foreign is None:
            raise ValueError("a foreign fault needs another capture to take an image from")
        return foreign_image(read_rgb(foreign_frame(foreign, fault).image_path), image.size)
    return image


def foreign_frame(foreign: Capture, fault: Fault) -> Frame:
    """Return the frame of another capture that a foreign fault shows."""
    return foreign.frames[int(fault.rng().integers(len(foreign)))]


def _poses(capture: Capture) -> np.ndarray:
    return np.stack([np.full((4, 4), np.nan) if frame.c2w is None else frame.c2w for frame in capture.frames])


def _name_within(file_path: str, index: int) -> str:
    """Return where a frame's image goes: its own name, unless that would leave the folder."""
    path = PurePosixPath(file_path)
    if path.is_absolute() or ".." in path.parts:
        return f"images/{index:05d}_{path.name}"
    return path.as_posix()


def _write_image(frame: Frame, fault: Fault | None, foreign: Capture | None, target: Path) -> None:
    """Link a clean image, write a faulty one; a missing one stays missing, which is a fault of its own."""
    if fault is None or (fault.kind not in IMAGE_FAULTS and fault.kind != "foreign"):
        if frame.image_path.is_file():
            link_or_copy(frame.image_path, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    faulty = faulty_image(read_rgb(frame.image_path), fault, foreign)
    faulty.save(target, quality=_JPEG_QUALITY, subsampling=0) if _is_jpeg(target) else faulty.save(target)


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg")


def _link_mask(frame: Frame, name: str, out_dir: Path) -> str | None:
    """Put the frame's mask at ``masks/<name of the image>.png`` and return that path."""
    if frame.mask_path is None or not frame.mask_path.is_file():
        return None
    mask_path = f"masks/{name}{frame.mask_path.suffix}"
    link_or_copy(frame.mask_path, out_dir / mask_path)
    return mask_path


def _entry(frame: Frame, name: str, c2w: np.ndarray, out_dir: Path) -> dict[str, Any]:
    """Return what transforms.json says of a frame, its camera aside; its mask is linked on the way."""
    entry: dict[str, Any] = {"file_path": name, "transform_matrix": c2w.tolist()}
    mask_path = _link_mask(frame, name, out_dir)
    if mask_path is not None:
        entry["mask_path"] = mask_path
    if frame.timestamp is not None:
        entry["timestamp"] = frame.timestamp
    return entry


def _transforms(entries: list[dict[str, Any]], cameras: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of transforms.json; nerfstudio reads the camera model only where all frames share one."""
    if all(camera == cameras[0] for camera in cameras):
        return {**(cameras[0] if cameras else {}), "frames": entries}
    return {"frames": [{**entry, **camera} for entry, camera in zip(entries, cameras, strict=True)]}


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
