"""Photos or a video turned into a posed capture: pictures, COLMAP, masks, files, in this order."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mtcm_nerfstudio.capture.capture import natural_key
from mtcm_nerfstudio.capture.colmap import read_colmap, read_model
from mtcm_nerfstudio.capture.images import IMAGE_SUFFIXES
from mtcm_nerfstudio.capture.process.input_images import InputImage, find_input_images, input_folder, read_input_images
from mtcm_nerfstudio.capture.process.masks import DEFAULT_MODEL, MaskSession, open_session, write_masks
from mtcm_nerfstudio.capture.process.sfm import (
    CameraModel,
    Job,
    MappingResult,
    Matching,
    camera_groups,
)
from mtcm_nerfstudio.capture.process.subprocess_runner import reconstruct_in_subprocess
from mtcm_nerfstudio.capture.process.video import extract_frames, frame_times
from mtcm_nerfstudio.capture.process.workspace import (
    InputImages,
    Workspace,
    digest,
    file_facts,
    input_images_from_json,
    input_images_to_json,
    mapped_from_json,
)
from mtcm_nerfstudio.capture.writing.files import link_or_copy, transforms_meta
from mtcm_nerfstudio.decisions import write_text_atomically

EXHAUSTIVE_UP_TO = 120
"""Matching every image with every other is quadratic: 120 images are 7,140 pairs."""

Report = Callable[[str, int, int], None]
"""Progress callback: (stage, steps done, steps in all)."""


@dataclass(frozen=True)
class ProcessSettings:
    """How photos or a video become a posed capture."""

    max_frames: int = 120
    """Of a video: at most so many frames, spread evenly over its whole length."""
    fps: float | None = None
    """Of a video: frames per second to take. Default: as many as --max-frames allows."""
    matching: Literal["auto", "exhaustive", "sequential"] = "auto"
    """Which images are compared. exhaustive: all pairs; sequential: neighbours in name order; auto: all pairs up to
    120 images."""
    camera_model: CameraModel = "OPENCV"
    """COLMAP's camera model. SIMPLE_RADIAL is steadier for few images."""
    cameras: Literal["shared", "per-image"] = "shared"
    """shared: one camera for all images of the same size and focal length; per-image: one for each."""
    max_image_size: int = 3200
    """Features are looked for at this length of the longer side, in pixels; the images stay as they are."""
    max_features: int = 8192
    """At most so many features an image."""
    masks: bool = False
    """Make a mask of the subject for every frame (needs the masks extra)."""
    mask_model: str = DEFAULT_MODEL
    """rembg's name of a segmentation network, or a local .onnx file."""
    seed: int = 0
    """Seed of COLMAP's random choices."""
    threads: int = 0
    """Threads for COLMAP; 0: one a core, eight at most (each needs up to a gigabyte at 3,200 pixels)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("max_frames", 2), ("max_image_size", 64), ("max_features", 16), ("threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"--fps must be above 0, got {self.fps}")


@dataclass(frozen=True)
class ProcessResult:
    """What became of the photos or the video."""

    output_dir: Path
    input_images: InputImages
    matching: Matching
    mapped: MappingResult
    masks: int = 0
    """Frames that have a mask."""

    @property
    def unregistered(self) -> tuple[str, ...]:
        """Names of the pictures that COLMAP gave no pose, in natural order."""
        left_out = {input_image.name for input_image in self.input_images.photos} - set(self.mapped.registered)
        return tuple(sorted(left_out, key=natural_key))


def process(
    data: Path,
    output_dir: Path,
    settings: ProcessSettings | None = None,
    report: Report = lambda stage, done, total: None,
    mask_session: MaskSession | None = None,
) -> ProcessResult:
    """Pose photos or a video's frames, and write a capture: images/, sparse/0, transforms.json, masks/ on request.

    The files of ``data`` are only read; photos are linked into the capture, or copied. ``transforms.json`` is written
    last. A run that was stopped goes on where it was; one that was complete is read back.

    Args:
        data: a folder of photos, or a video file.
        output_dir: a new folder, or one of an earlier run.
        settings: the defaults, without it.
        report: told of progress.
        mask_session: the segmentation network for masks; without it, ``settings.mask_model`` is loaded.

    Raises:
        FileNotFoundError: there is no such file or folder, or no photo in it.
        ValueError: too few photos, no video, COLMAP poses nothing, or masks cannot be made.
    """
    settings = settings or ProcessSettings()
    _check_folders(data, output_dir)
    session = (mask_session or open_session(settings.mask_model)) if settings.masks else None
    paths = _input_files(data, output_dir)
    workspace = Workspace(output_dir)
    input_images = _collect_input_images(data, paths, workspace, settings, report)
    if len(input_images.photos) < 2:
        unreadable = f" ({len(input_images.unreadable)} unreadable)" if input_images.unreadable else ""
        raise ValueError(f"{data}: {len(input_images.photos)} usable picture(s){unreadable}. COLMAP needs two at least")
    matching = chosen_matching(settings.matching, [input_image.name for input_image in input_images.photos])
    mapped = _mapped(data, workspace, input_images, matching, settings, report)
    names = sorted(mapped.registered, key=natural_key)
    mask_names = _masks(workspace, session, names, settings, report)
    _write_transforms(workspace, input_images, mapped, dict(zip(names, mask_names, strict=False)))
    return ProcessResult(output_dir, input_images, matching, mapped, len(mask_names))


def chosen_matching(asked: Literal["auto", "exhaustive", "sequential"], names: list[str]) -> Matching:
    """Choose which pairs to match.

    COLMAP's sequence is the order of the names as text, where frame_10 comes before frame_2.

    Raises:
        ValueError: sequential matching is asked for, but that order is not the natural one.
    """
    as_text = sorted(names) == sorted(names, key=natural_key)
    if asked == "sequential" and not as_text:
        raise ValueError(
            "--matching sequential goes by the names as text, which puts frame_10 before frame_2: "
            "rename the photos with leading zeros, or take --matching exhaustive"
        )
    if asked == "auto":
        return "exhaustive" if len(names) <= EXHAUSTIVE_UP_TO or not as_text else "sequential"
    return asked


def _check_folders(data: Path, output_dir: Path) -> None:
    if not data.exists():
        raise FileNotFoundError(f"{data}: no such file or folder")
    if data.is_file() and data.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{data}: is one photo. Give --data a folder of photos taken from different places")
    out, source = output_dir.resolve(), data.resolve()
    if out in (source, *source.parents) or out == input_folder(source):
        raise ValueError(f"{output_dir}: holds the originals, which are never written to. Give another --output-dir")


def _input_files(data: Path, output_dir: Path) -> list[Path]:
    if data.is_file():
        frame_times(data)  # says so before anything is written where it is no video
        return [data]
    return find_input_images(input_folder(data), leave_out=output_dir)


def _collect_input_images(
    data: Path, paths: list[Path], workspace: Workspace, settings: ProcessSettings, report: Report
) -> InputImages:
    """Bring the pictures into the capture, or find them there from an earlier run."""
    is_video = data.is_file()
    folder = data.parent if is_video else input_folder(data)
    key = digest(file_facts(folder, paths), (settings.max_frames, settings.fps) if is_video else None)
    known = workspace.result("pictures", key)
    if known is not None:
        input_images = input_images_from_json(known)
        if all((workspace.images / input_image.name).is_file() for input_image in input_images.photos):
            return input_images
    workspace.reopen()
    workspace.remove_images()
    input_images = (
        _extract_video_images(data, workspace, settings, report)
        if is_video
        else _link_input_images(folder, paths, workspace, report)
    )
    workspace.complete("pictures", key, input_images_to_json(input_images))
    return input_images


def _link_input_images(folder: Path, paths: list[Path], workspace: Workspace, report: Report) -> InputImages:
    photos, unreadable = read_input_images(folder, paths, lambda done: report("reading photos", done, len(paths)))
    for input_image in photos:
        link_or_copy(folder / input_image.name, workspace.images / input_image.name)
    return InputImages(tuple(photos), tuple(unreadable))


def _extract_video_images(video: Path, workspace: Workspace, settings: ProcessSettings, report: Report) -> InputImages:
    workspace.images.mkdir(parents=True)
    photos = extract_frames(
        video,
        workspace.images,
        settings.max_frames,
        settings.fps,
        lambda done, total: report("reading the video", done, total),
    )
    return InputImages(tuple(photos))


def _mapped(
    data: Path,
    workspace: Workspace,
    input_images: InputImages,
    matching: Matching,
    settings: ProcessSettings,
    report: Report,
) -> MappingResult:
    """Run COLMAP, or return what it found in an earlier run with the same pictures and settings."""
    names = [input_image.name for input_image in input_images.photos]
    features = digest(
        input_images_to_json(input_images),
        (settings.camera_model, settings.cameras, settings.max_image_size, settings.max_features),
    )
    key = digest(features, matching, settings.seed)
    known = workspace.result("model", key)
    if known is not None and workspace.model.is_dir():
        return mapped_from_json(known)
    workspace.reopen()
    if workspace.result("features", features) is None:
        workspace.forget_features()
        workspace.complete("features", features, True)
    keys = [(input_image.name, _camera_key(input_image, settings)) for input_image in input_images.photos]
    job = Job(
        images=workspace.images,
        work=workspace.colmap,
        cameras=camera_groups(keys),
        matching=matching,
        camera_model=settings.camera_model,
        max_image_size=settings.max_image_size,
        max_features=settings.max_features,
        seed=settings.seed,
        threads=settings.threads or min(8, os.cpu_count() or 1),
    )
    mapped = reconstruct_in_subprocess(job, lambda stage, done, total: report(f"COLMAP: {stage}", done, total))
    if mapped is None:
        raise ValueError(
            f"{data}: COLMAP could pose none of the {len(names)} pictures: no two of them show enough of the same "
            "things from different places. Take photos that overlap by two thirds, and step sideways"
        )
    workspace.model.parent.mkdir(parents=True, exist_ok=True)
    job.model.replace(workspace.model)
    workspace.complete("model", key, asdict(mapped))
    return mapped


def _camera_key(input_image: InputImage, settings: ProcessSettings) -> object:
    return input_image.name if settings.cameras == "per-image" else input_image.camera_key


def _masks(
    workspace: Workspace, session: MaskSession | None, names: list[str], settings: ProcessSettings, report: Report
) -> list[str]:
    """Make the masks that are missing; masks of another network are not kept."""
    if session is None:
        return []
    key = digest(settings.mask_model)
    if workspace.result("masks", key) is None:
        shutil.rmtree(workspace.masks, ignore_errors=True)
        workspace.complete("masks", key, True)
    return write_masks(
        session, workspace.images, names, workspace.masks, lambda done: report("masks", done, len(names))
    )


def _write_transforms(
    workspace: Workspace, input_images: InputImages, mapped: MappingResult, masks: dict[str, str]
) -> None:
    """Write the point cloud and, last of all, ``transforms.json``, in the world of the COLMAP model."""
    capture = read_colmap(workspace.root, workspace.model)
    times = {f"images/{input_image.name}": input_image.timestamp for input_image in input_images.photos}
    meta = transforms_meta(capture.frames)
    for entry in meta["frames"]:
        _set_or_drop(entry, "timestamp", times[entry["file_path"]])
        _set_or_drop(entry, "mask_path", _below("masks", masks.get(entry["file_path"].removeprefix("images/"))))
    meta["frames"].sort(key=lambda entry: natural_key(entry["file_path"]))
    partial = workspace.root / ".sparse_pc.partial.ply"
    read_model(workspace.model).export_PLY(str(partial))
    partial.replace(workspace.points)
    left_out = {input_image.name for input_image in input_images.photos} - set(mapped.registered)
    meta["ply_file_path"] = workspace.points.name
    meta["unregistered_images"] = [f"images/{name}" for name in sorted(left_out, key=natural_key)]
    write_text_atomically(workspace.transforms, json.dumps(meta, indent=1, ensure_ascii=False) + "\n")


def _set_or_drop(entry: dict[str, Any], key: str, value: Any) -> None:
    entry.pop(key, None)
    if value is not None:
        entry[key] = value


def _below(folder: str, name: str | None) -> str | None:
    return None if name is None else f"{folder}/{name}"
