"""A drop-in capture of the kept frames, for any tool that reads transforms.json or a COLMAP model."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mtcm_nerfstudio.capture.capture import Capture, Frame
from mtcm_nerfstudio.capture.colmap_model import model_of, name_below_images
from mtcm_nerfstudio.capture.transforms import load_transforms
from mtcm_nerfstudio.capture.writing.files import link_or_copy, transforms_meta, write_colmap_model
from mtcm_nerfstudio.capture.writing.tracks import ExportedFrame, new_images, thinned
from mtcm_nerfstudio.decisions import Decisions
from mtcm_nerfstudio.geometry.sim3 import Sim3, sim3_from_meta

_FILE_KEYS = {"mask_path": "masks", "depth_file_path": "depths"}
"""Files that a frame of transforms.json may name, and the folder for those that lie outside the capture."""
_SPLITS = ("train_filenames", "val_filenames", "test_filenames")
_DOWNSCALED = (2, 4, 8)


@dataclass(frozen=True)
class Exported:
    """What was written."""

    frames: int
    left_out: tuple[str, ...]
    """Frames that were to be kept, but have no image or no finite pose."""
    points: int | None
    """Points of the COLMAP model; None where no model could be written."""
    notes: tuple[str, ...]
    """What a person should know, one sentence each."""


def export_capture(capture: Capture, decisions: Decisions, out: Path) -> Exported:
    """Write a capture of the kept frames: images/, transforms.json, sparse/0, masks and depth maps.

    Images are hard links to the originals where the disk allows, else copies. Whatever ``transforms.json`` says
    beside its frames is kept, repaired poses stand in place of the claimed ones there and in the COLMAP model, whose
    points keep the tracks of the images that are left (two at least). Where the capture has no COLMAP model, one of
    cameras and images is written, without points. Frames without an image or a finite pose are left out; a capture
    with no poses at all becomes a folder of its kept photos.

    Raises:
        ValueError: ``out`` is the capture itself, is not empty, or no frame is left to write.
    """
    _check_target(capture, out)
    kept = _kept_frames(capture, decisions)
    posed = any(frame.c2w is not None for frame in capture.frames)
    usable = [frame for frame in kept if frame.image_path.is_file() and (frame.has_usable_pose or not posed)]
    if not usable:
        raise ValueError(f"{capture.root}: none of the {len(capture)} frames is kept with an image and a pose")
    names = exported_names([frame.file_path for frame in usable])
    partial = out.parent / f".{out.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        notes, points = _write(capture, usable, names, partial) if posed else ((), None)
        _place_images(capture, usable, names, partial)
        if out.is_dir():
            out.rmdir()
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    left_out = tuple(frame.file_path for frame in kept if frame not in usable)
    return Exported(len(usable), left_out, points, notes)


def exported_names(file_paths: Sequence[str]) -> dict[str, str]:
    """Return each image's name below ``images/``, by its ``file_path``: unique, and never outside of it."""
    short = {path: name_below_images(path) for path in file_paths}
    counts: dict[str, int] = {}
    for name in short.values():
        counts[name] = counts.get(name, 0) + 1
    return {
        path: name if counts[name] == 1 else f"{number:05d}/{PurePosixPath(name).name}"
        for number, (path, name) in enumerate(short.items())
    }


def _check_target(capture: Capture, out: Path) -> None:
    if out.resolve() in (capture.root.resolve(), *capture.root.resolve().parents):
        raise ValueError(f"{out}: holds the capture itself. Give the export another folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: is there already and not empty. Give the export a new folder")


def _kept_frames(capture: Capture, decisions: Decisions) -> list[Frame]:
    """Return the kept frames at their repaired poses."""
    decided = decisions.by_file_path()
    kept = [frame for frame in capture.frames if frame.file_path in decided and decided[frame.file_path].kept]
    return [
        frame if matrix is None else replace(frame, c2w=np.array(matrix, dtype=np.float64))
        for frame in kept
        for matrix in (decided[frame.file_path].repaired_transform_matrix,)
    ]


def _write(
    capture: Capture, frames: Sequence[Frame], names: Mapping[str, str], out: Path
) -> tuple[tuple[str, ...], int | None]:
    """Write transforms.json, what it refers to, and the COLMAP model; return notes and the number of points."""
    out.mkdir(parents=True)
    original = _original_meta(capture)
    meta = _made_meta(frames, names, out) if original is None else _kept_meta(capture, original, frames, names, out)
    text = json.dumps(meta, indent=1, ensure_ascii=False)
    (out / "transforms.json").write_text(text + "\n", encoding="utf-8")
    sim3 = sim3_from_meta(original or {})
    return _write_model(capture, frames, names, sim3, out / "sparse" / "0")


def _original_meta(capture: Capture) -> dict[str, Any] | None:
    """Return what ``transforms.json`` says, where the capture was read from it and not from a JSON of another name."""
    path = capture.root / "transforms.json"
    if capture.source != "transforms" or not path.is_file():
        return None
    meta = load_transforms(path)
    listed = {entry.get("file_path") for entry in meta["frames"] if isinstance(entry, dict)}
    return meta if all(frame.file_path in listed for frame in capture.frames) else None


def _made_meta(frames: Sequence[Frame], names: Mapping[str, str], out: Path) -> dict[str, Any]:
    """Lay out the frames of a capture that has no transforms.json, with masks where every frame has one."""
    meta = transforms_meta(frames, {path: f"images/{name}" for path, name in names.items()})
    masks = {frame.file_path: f"masks/{PurePosixPath(names[frame.file_path]).with_suffix('.png')}" for frame in frames}
    listed = all(frame.mask_path is not None and frame.mask_path.is_file() for frame in frames)
    for frame, entry in zip(frames, meta["frames"], strict=True):
        target = out / masks[frame.file_path]
        if frame.mask_path is not None and frame.mask_path.is_file() and not target.exists():
            link_or_copy(frame.mask_path, target)
        if listed:
            entry["mask_path"] = masks[frame.file_path]
    return meta


def _kept_meta(
    capture: Capture, original: Mapping[str, Any], frames: Sequence[Frame], names: Mapping[str, str], out: Path
) -> dict[str, Any]:
    """Thin a transforms.json to the kept frames and bring along the files that it names."""
    by_path = {frame.file_path: frame for frame in frames}
    entries = []
    for entry in original["frames"]:
        frame = by_path.get(entry["file_path"])
        if frame is not None and frame.c2w is not None:
            changed = {"file_path": f"images/{names[frame.file_path]}", "transform_matrix": _rows(entry, frame)}
            entries.append({**entry, **changed})
    for key, folder in _FILE_KEYS.items():
        _bring_files(capture.root, entries, key, folder, out)
    if not any("mask_path" in entry for entry in entries):
        _bring_unlisted_masks(frames, names, out)
    meta: dict[str, Any] = {**original, "frames": entries}
    new_paths = {path: f"images/{name}" for path, name in names.items()}
    for split in _SPLITS:
        if isinstance(meta.get(split), list):
            meta[split] = [new_paths[path] for path in meta[split] if path in new_paths]
    cloud = meta.get("ply_file_path")
    if isinstance(cloud, str) and (capture.root / cloud).is_file():
        meta["ply_file_path"] = _inside(cloud, "points")
        link_or_copy(capture.root / cloud, out / meta["ply_file_path"])
    return meta


def _rows(entry: Mapping[str, Any], frame: Frame) -> Any:
    """Return the matrix as the file has it, to the last digit, or the repaired one."""
    assert frame.c2w is not None
    rows = entry["transform_matrix"]
    claimed = np.array(rows, dtype=np.float64)
    return rows if np.array_equal(claimed, frame.c2w[: len(claimed)]) else frame.c2w.tolist()


def _bring_files(root: Path, entries: list[dict[str, Any]], key: str, folder: str, out: Path) -> None:
    """Carry the masks or depth maps that frames name; nerfstudio wants them of every frame or of none."""
    complete = all(isinstance(entry.get(key), str) and (root / entry[key]).is_file() for entry in entries)
    for entry in entries:
        path = entry.pop(key, None)
        if not isinstance(path, str) or not (root / path).is_file():
            continue
        inside = _inside(path, folder)
        _link_with_downscaled(root, path, out, inside)
        if complete:
            entry[key] = inside


def _bring_unlisted_masks(frames: Sequence[Frame], names: Mapping[str, str], out: Path) -> None:
    """Carry masks that lie beside the capture without being listed; they stay unlisted."""
    for frame in frames:
        if frame.mask_path is not None and frame.mask_path.is_file():
            target = out / "masks" / PurePosixPath(names[frame.file_path]).with_suffix(".png")
            if not target.exists():
                link_or_copy(frame.mask_path, target)


def _place_images(capture: Capture, frames: Sequence[Frame], names: Mapping[str, str], out: Path) -> None:
    for frame in frames:
        name = f"images/{names[frame.file_path]}"
        _link_with_downscaled(capture.root, frame.file_path, out, name)


def _link_with_downscaled(root: Path, path: str, out: Path, name: str) -> None:
    """Link a file and the smaller copies that nerfstudio keeps in ``images_2/`` and so on."""
    if (out / name).exists():
        return
    link_or_copy(root / path, out / name)
    old, new = PurePosixPath(path), PurePosixPath(name)
    if len(old.parts) < 2 or old.is_absolute() or ".." in old.parts:
        return
    for factor in _DOWNSCALED:
        smaller = root / f"{old.parts[0]}_{factor}" / PurePosixPath(*old.parts[1:])
        if smaller.is_file():
            link_or_copy(smaller, out / f"{new.parts[0]}_{factor}" / PurePosixPath(*new.parts[1:]))


def _inside(path: str, folder: str) -> str:
    """Return a path that stays below the exported capture."""
    pure = PurePosixPath(path)
    return f"{folder}/{pure.name}" if pure.is_absolute() or ".." in pure.parts else str(pure)


def _write_model(
    capture: Capture, frames: Sequence[Frame], names: Mapping[str, str], sim3: Sim3, folder: Path
) -> tuple[tuple[str, ...], int | None]:
    """Write the COLMAP model, with tracks where the capture has a model of the same world."""
    exported = [ExportedFrame(frame, names[frame.file_path], frame.c2w) for frame in frames if frame.c2w is not None]
    tracks, notes = _with_tracks(capture, exported)
    images, points = tracks or (new_images(exported, sim3), [])
    if images is None:
        return (*notes, "COLMAP has no camera model for these frames: no sparse/0 is written."), None
    write_colmap_model(images, points, folder)
    return notes, len(points)


def _with_tracks(capture: Capture, exported: Sequence[ExportedFrame]) -> tuple[Any, tuple[str, ...]]:
    model = model_of(capture)
    if model is None:
        return None, ()
    if model.sim3 is None:
        return None, (f"{model.folder}: is of another reconstruction than the poses: its points are left out.",)
    return thinned(exported, model.reconstruction, model.images, model.sim3), ()
