"""A COLMAP model thinned to some of its images: their tracks, in the model's own world."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.capture.colmap import model_c2w
from mtcm_nerfstudio.capture.writing.files import ModelImage, ModelPoint, colmap_camera, rigid_from_c2w
from mtcm_nerfstudio.geometry.intrinsics import Pose
from mtcm_nerfstudio.geometry.sim3 import Sim3, agree

MAX_REPROJECTION_ERROR_PX = 4.0
"""An observation of an image that was moved stays with its point up to here (COLMAP's own limit)."""

_SAME_ROTATION_DEGREES, _SAME_POSITION_SHARE = 0.05, 1e-3


@dataclass(frozen=True, eq=False)
class ExportedFrame:
    """A frame that is to be in the thinned model."""

    frame: Frame
    name: str
    """Its name in the thinned model."""
    c2w: Pose
    """Its pose in the capture's world: the repaired one, where there is one."""


def new_images(exported: Sequence[ExportedFrame], sim3: Sim3) -> list[ModelImage] | None:
    """Return the images of a model without tracks; None where COLMAP has no camera for one of them."""
    images = [_new_image(entry, sim3) for entry in exported]
    return None if any(image is None for image in images) else [image for image in images if image is not None]


def thinned(
    exported: Sequence[ExportedFrame], model: pycolmap.Reconstruction, found: Mapping[str, pycolmap.Image], sim3: Sim3
) -> tuple[list[ModelImage], list[ModelPoint]] | None:
    """Take the placed frames out of a COLMAP model, with every point that two of them still see.

    A frame whose pose is the model's own keeps it to the last bit. One that was moved keeps those observations that
    its new pose explains. Frames that the model does not have get no observations.

    Args:
        exported: the frames.
        model: the whole model.
        found: the model's image of each frame, by the frame's ``file_path``.
        sim3: from the model's world to the capture's.

    Returns:
        Images and points, or None where COLMAP has no camera for a frame.
    """
    moved = _moved(exported, found, sim3)
    images: list[ModelImage] = []
    for entry in exported:
        image = found.get(entry.frame.file_path)
        added = _new_image(entry, sim3) if image is None else _kept_image(entry, image, model, sim3, moved)
        if added is None:
            return None
        images.append(added)
    names = {found[entry.frame.file_path].image_id: entry.name for entry in exported if entry.frame.file_path in found}
    moved_images = {image.name: image for image in images if image.name in moved}
    points = []
    for point in model.points3D.values():
        seen = [(names[e.image_id], e.point2D_idx) for e in point.track.elements if e.image_id in names]
        track = tuple(entry for entry in seen if _explained(point.xyz, entry, moved_images))
        if len({name for name, _ in track}) >= 2:
            red, green, blue = (int(channel) for channel in point.color)
            points.append(ModelPoint(np.array(point.xyz, dtype=np.float64), (red, green, blue), track))
    return images, points


def _moved(exported: Sequence[ExportedFrame], found: Mapping[str, pycolmap.Image], sim3: Sim3) -> set[str]:
    common = [entry for entry in exported if entry.frame.file_path in found]
    if not common:
        return set()
    own = sim3.to_capture(np.array([model_c2w(found[entry.frame.file_path]) for entry in common]))
    same = agree(own, np.array([entry.c2w for entry in common]), _SAME_ROTATION_DEGREES, _SAME_POSITION_SHARE)
    return {entry.name for entry, stays in zip(common, same, strict=True) if not stays}


def _new_image(entry: ExportedFrame, sim3: Sim3) -> ModelImage | None:
    camera = None if entry.frame.intrinsics is None else colmap_camera(entry.frame.intrinsics)
    return None if camera is None else ModelImage(entry.name, camera, sim3.to_model(entry.c2w))


def _kept_image(
    entry: ExportedFrame, image: pycolmap.Image, model: pycolmap.Reconstruction, sim3: Sim3, moved: set[str]
) -> ModelImage:
    """Keep an image's keypoints and camera, scaled where the capture's images are of another size than the model's."""
    old = model.cameras[image.camera_id]
    camera = pycolmap.Camera(model=old.model.name, width=old.width, height=old.height, params=old.params)
    keypoints = np.array([point.xy for point in image.points2D], dtype=np.float64).reshape(-1, 2)
    size = entry.frame.intrinsics
    if size is not None and (size.width, size.height) != (old.width, old.height):
        camera.rescale(size.width, size.height)
        keypoints = keypoints * [size.width / old.width, size.height / old.height]
    c2w = sim3.to_model(entry.c2w) if entry.name in moved else model_c2w(image)
    return ModelImage(entry.name, camera, c2w, keypoints)


def _explained(xyz: np.ndarray, entry: tuple[str, int], moved: Mapping[str, ModelImage]) -> bool:
    """Tell whether an observation fits: those of images that stay where they are do by themselves."""
    name, index = entry
    if name not in moved:
        return True
    image = moved[name]
    in_camera = rigid_from_c2w(image.c2w) * np.asarray(xyz)
    if in_camera[2] <= 0:
        return False
    pixel = image.camera.img_from_cam(in_camera)
    return pixel is not None and float(np.linalg.norm(pixel - image.keypoints[index])) <= MAX_REPROJECTION_ERROR_PX
