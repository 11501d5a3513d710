"""The COLMAP model of a capture: images, sparse points, and the Sim3 from model to capture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pycolmap
from jaxtyping import Float

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.colmap import IMAGE_FOLDERS, find_model, model_c2w, read_model
from mtcm_nerfstudio.geometry.sim3 import Sim3, estimate_sim3


@dataclass(frozen=True, eq=False)
class CaptureModel:
    """A COLMAP model and the capture that it belongs to."""

    folder: Path
    reconstruction: pycolmap.Reconstruction
    images: Mapping[str, pycolmap.Image]
    """The model's image of each frame that it has, by the frame's ``file_path``."""
    sim3: Sim3 | None
    """From the model's world to the capture's; None where the poses are of another reconstruction."""


def model_of(capture: Capture) -> CaptureModel | None:
    """Return the model that a capture was read from, or the one that lies beside its transforms.json; None without one.

    Raises:
        ValueError: the model cannot be read.
    """
    folder = capture.model_dir or (find_model(capture.root) if capture.source == "transforms" else None)
    if folder is None:
        return None
    reconstruction = read_model(folder)
    images = _images_of(capture, reconstruction)
    both = [(images[f.file_path], f.c2w) for f in capture.frames if f.file_path in images and f.has_usable_pose]
    sim3 = estimate_sim3(
        np.array([model_c2w(image) for image, _ in both]).reshape(-1, 4, 4),
        np.array([c2w for _, c2w in both]).reshape(-1, 4, 4),
    )
    return CaptureModel(folder, reconstruction, images, sim3)


def sparse_points(capture: Capture) -> Float[np.ndarray, "n 3"] | None:
    """Return the points of a capture's COLMAP model in the capture's world; None where there is no such model.

    Raises:
        ValueError: the capture was read from a model that cannot be read now.
    """
    try:
        model = model_of(capture)
    except ValueError:
        if capture.model_dir is not None:
            raise
        return None  # nobody asked for what lies beside a transforms.json
    if model is None or model.sim3 is None:
        return None
    points = np.array([point.xyz for point in model.reconstruction.points3D.values()]).reshape(-1, 3)
    return model.sim3.scale * points @ model.sim3.rotation.T + model.sim3.shift


def name_below_images(file_path: str) -> str:
    """Return a frame's path below the capture's image folder, as COLMAP names images."""
    path = PurePosixPath(file_path)
    if path.is_absolute() or ".." in path.parts:
        return path.name
    return str(PurePosixPath(*path.parts[1:])) if len(path.parts) > 1 and path.parts[0] in IMAGE_FOLDERS else str(path)


def _images_of(capture: Capture, model: pycolmap.Reconstruction) -> dict[str, pycolmap.Image]:
    """Find the model's image of each frame: by its path, by its path below ``images/``, or by a name that is unique."""
    posed = [image for image in model.images.values() if image.has_pose and np.isfinite(model_c2w(image)).all()]
    by_name = {image.name: image for image in posed}
    alike: dict[str, list[pycolmap.Image]] = {}
    for image in posed:
        alike.setdefault(PurePosixPath(image.name).name, []).append(image)
    found = {}
    for frame in capture.frames:
        path = PurePosixPath(frame.file_path)
        same = alike.get(path.name, [])
        image = by_name.get(str(path)) or by_name.get(name_below_images(frame.file_path))
        image = image or (same[0] if len(same) == 1 else None)
        if image is not None:
            found[frame.file_path] = image
    return found
