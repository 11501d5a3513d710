"""Reading a capture from a COLMAP model, text or binary, through pycolmap."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pycolmap

from mtcm_nerfstudio.capture.capture import Capture, Frame, in_temporal_order
from mtcm_nerfstudio.capture.images import list_images, mask_beside, read_exif
from mtcm_nerfstudio.geometry.intrinsics import DISTORTION_KEYS, Intrinsics, Pose
from mtcm_nerfstudio.geometry.poses import OPENGL_FROM_OPENCV

SPARSE_FOLDERS = ("colmap/sparse", "sparse")
IMAGE_FOLDERS = ("images", "image", "input", ".")

_FISHEYE = {"SIMPLE_RADIAL_FISHEYE": ("k1",), "RADIAL_FISHEYE": ("k1", "k2")}
_NERFSTUDIO_MODEL = {
    "SIMPLE_PINHOLE": "PINHOLE",
    "SIMPLE_RADIAL": "OPENCV",
    "RADIAL": "OPENCV",
    **dict.fromkeys(_FISHEYE, "OPENCV_FISHEYE"),
}
"""COLMAP's small models are special cases of these, which nerfstudio reads."""
_RECORDS = {"points3D.bin": (51, 43, 8, 8), "frames.bin": (68, 64, 4, 16)}
"""Binary files whose records end in a list: bytes before the list, place and bytes of its length, bytes of an entry."""


def find_model(root: Path) -> Path | None:
    """Return the folder of the COLMAP model below ``root`` that has most images, or None if there is none.

    COLMAP numbers the models of a capture that falls apart (``sparse/0``, ``sparse/1`` …), the largest not always
    first. A folder that is itself a model counts too.
    """
    models = [folder for folder in _model_folders(root) if _is_model(folder)]
    if len(models) <= 1:
        return models[0] if models else None
    return max(models, key=_registered)


def _registered(model_dir: Path) -> int:
    """Return how many images a model has; one that cannot be read loses to any that can."""
    try:
        return read_model(model_dir).num_reg_images()
    except ValueError:
        return -1


def read_colmap(root: Path, model_dir: Path | None = None) -> Capture:
    """Read the registered images of a COLMAP model as a capture.

    Args:
        root: the capture's folder, which holds the images in ``images/`` (or ``image/``, ``input/``, or itself).
        model_dir: the model's folder; without it, the one ``find_model`` finds.

    Raises:
        FileNotFoundError: there is no model.
        ValueError: the model cannot be read, or has no registered image.
    """
    model_dir = model_dir or find_model(root)
    if model_dir is None:
        raise FileNotFoundError(f"{root}: has no COLMAP model in sparse/0 or colmap/sparse/0. Run ns-mtcm-process.")
    reconstruction = read_model(model_dir)
    images = [image for image in reconstruction.images.values() if image.has_pose]
    if not images:
        raise ValueError(f"{model_dir}: no image has a pose. Run COLMAP again with more overlap between photos.")
    folder = image_folder(root, [image.name for image in images])
    frames = [_frame(root, folder, image, reconstruction.cameras[image.camera_id]) for image in images]
    return Capture(
        root=root,
        name=root.resolve().name,
        source="colmap",
        frames=in_temporal_order(frames),
        model_dir=model_dir,
        notes=_unregistered(root / folder, {image.name for image in images}),
    )


def read_model(model_dir: Path) -> pycolmap.Reconstruction:
    """Read a COLMAP model, or raise ValueError with one line that names it."""
    _refuse_cut_files(model_dir)
    try:
        reconstruction = pycolmap.Reconstruction(str(model_dir))
        if not (model_dir / "images.bin").is_file():
            for image_id, name in _names_in_text(model_dir / "images.txt"):
                reconstruction.images[image_id].name = name
        return reconstruction
    except (RuntimeError, ValueError, IndexError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ValueError(f"{model_dir}: cannot be read as a COLMAP model ({reason})") from error


def _refuse_cut_files(model_dir: Path) -> None:
    """Raise ValueError for a truncated model file, on which pycolmap would not return."""
    for name, (head, place, size, element) in _RECORDS.items():
        path = model_dir / name
        if not path.is_file():
            continue
        content = path.read_bytes()
        count, end = int.from_bytes(content[:8], "little"), 8
        for _ in range(count):
            end += head + element * int.from_bytes(content[end + place : end + place + size], "little")
            if end > len(content):
                break
        if end > len(content):
            raise ValueError(f"{path}: is cut short, it holds less than the {count} records it names. Copy it again.")


def intrinsics_of(camera: pycolmap.Camera) -> Intrinsics:
    """Express a COLMAP camera in transforms.json's terms (``k1``, ``p1`` …, the model's name as nerfstudio's)."""
    named = dict(zip((name.strip() for name in camera.params_info.split(",")), camera.params, strict=True))
    if "k" in named:
        named["k1"] = named.pop("k")
    return Intrinsics(
        camera_model=_NERFSTUDIO_MODEL.get(camera.model.name, camera.model.name),
        width=camera.width,
        height=camera.height,
        fl_x=float(camera.focal_length_x),
        fl_y=float(camera.focal_length_y),
        cx=float(camera.principal_point_x),
        cy=float(camera.principal_point_y),
        distortion=tuple((key, float(value)) for key, value in named.items() if key in DISTORTION_KEYS),
    )


def _names_in_text(path: Path) -> Iterator[tuple[int, str]]:
    """Yield id and name of every image in an ``images.txt``; pycolmap cuts names at their first space.

    Every other line that is no comment is an image, nine numbers and its name, and the next one its points.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for line in lines[::2]:
        fields = line.split(maxsplit=9)
        if len(fields) == 10:
            yield int(fields[0]), fields[9].strip()


def model_c2w(image: pycolmap.Image) -> Pose:
    """Return an image's OpenGL camera-to-world in the model's world; NaN where the model's own is no pose."""
    camera_from_world = np.vstack([image.cam_from_world().matrix(), [0.0, 0.0, 0.0, 1.0]])
    return _inverse_or_nan(camera_from_world) @ OPENGL_FROM_OPENCV


def _frame(root: Path, folder: PurePosixPath, image: pycolmap.Image, camera: pycolmap.Camera) -> Frame:
    file_path = (folder / image.name).as_posix()
    exif = read_exif(root / file_path)
    return Frame(
        file_path=file_path,
        image_path=root / file_path,
        c2w=model_c2w(image),
        intrinsics=intrinsics_of(camera),
        timestamp=exif.timestamp,
        mask_path=mask_beside(root, f"images/{image.name}"),
        focal_over_diagonal=exif.focal_over_diagonal,
    )


def _inverse_or_nan(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.inv(matrix) if np.isfinite(matrix).all() else np.full((4, 4), np.nan)


def _model_folders(root: Path) -> Iterator[Path]:
    for sparse in SPARSE_FOLDERS:
        folder = root / sparse
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.is_dir())
            yield folder
    yield root


def _is_model(folder: Path) -> bool:
    return any(
        all((folder / f"{name}{suffix}").is_file() for name in ("cameras", "images")) for suffix in (".bin", ".txt")
    )


def image_folder(root: Path, names: list[str]) -> PurePosixPath:
    """Return the folder that holds most of the model's images, as a path relative to the capture's."""
    found = {folder: sum((root / folder / name).is_file() for name in names) for folder in IMAGE_FOLDERS}
    return PurePosixPath(max(IMAGE_FOLDERS, key=lambda folder: found[folder]))


def _unregistered(folder: Path, registered: set[str]) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    left_out = [name for path in list_images(folder) if (name := path.relative_to(folder).as_posix()) not in registered]
    if not left_out:
        return ()
    named = ", ".join(left_out[:5]) + (" …" if len(left_out) > 5 else "")
    return (f"COLMAP gave no pose to {len(left_out)} of {len(left_out) + len(registered)} images: {named}.",)
