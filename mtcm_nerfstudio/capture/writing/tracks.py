"""A COLMAP model thinned to some of its images: their tracks, in the model's own world."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Float

from mtcm_nerfstudio.capture.capture import Frame, Pose
from mtcm_nerfstudio.capture.poses import (
    OPENGL_FROM_OPENCV,
    geometric_median,
    nearest_rotation,
    rotation_angle_degrees,
)
from mtcm_nerfstudio.capture.writing.files import ModelImage, ModelPoint, colmap_camera, rigid_from_c2w

MAX_REPROJECTION_ERROR_PX = 4.0
"""An observation of an image that was moved stays with its point up to here (COLMAP's own limit)."""

_SAME_ROTATION_DEGREES, _SAME_POSITION_SHARE = 0.05, 1e-3
_FIT_ROTATION_DEGREES, _FIT_POSITION_SHARE = 1.0, 0.02
_AT_MOST_COMPARED = 200


@dataclass(frozen=True, eq=False)
class Placed:
    """A frame that is to be in the thinned model."""

    frame: Frame
    name: str
    """Its name in the thinned model."""
    c2w: Pose
    """Its pose in the capture's world: the repaired one, where there is one."""


@dataclass(frozen=True, eq=False)
class World:
    """The similarity transform from a COLMAP model's world into the capture's: x → scale · rotation · x + shift."""

    rotation: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, "3"]
    scale: float

    def to_model(self, c2w: Pose) -> Pose:
        """Express a pose of the capture's world in the model's."""
        out = np.eye(4)
        out[:3, :3] = self.rotation.T @ c2w[:3, :3]
        out[:3, 3] = self.rotation.T @ (c2w[:3, 3] - self.shift) / self.scale
        return out

    def to_capture(self, c2w: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
        """Undo ``to_model``, for many poses."""
        out = np.tile(np.eye(4), (len(c2w), 1, 1))
        out[:, :3, :3] = self.rotation @ c2w[:, :3, :3]
        out[:, :3, 3] = self.scale * c2w[:, :3, 3] @ self.rotation.T + self.shift
        return out


SAME_WORLD = World(np.eye(3), np.zeros(3), 1.0)


def world_from_meta(meta: Mapping[str, object]) -> World:
    """Return the transform that ``ns-process-data`` notes as ``applied_transform`` (and ``applied_scale``)."""
    applied, scale = meta.get("applied_transform"), meta.get("applied_scale", 1.0)
    if applied is None or not isinstance(scale, int | float):
        return SAME_WORLD
    matrix = np.array(applied, dtype=np.float64)
    return World(nearest_rotation(matrix[None, :3, :3])[0], scale * matrix[:3, 3], float(scale))


def fit_world(model: Float[np.ndarray, "n 4 4"], capture: Float[np.ndarray, "n 4 4"]) -> World | None:
    """Find the similarity transform between two worlds in which the same cameras have poses.

    Robust: medians throughout, so that some wrong poses on either side change nothing. None where fewer than half
    of the cameras agree with it: then the two are not of one reconstruction.
    """
    if len(model) == 0:
        return None
    some = np.unique(np.linspace(0, len(model) - 1, min(len(model), _AT_MOST_COMPARED)).round().astype(int))
    turns = nearest_rotation(capture[some, :3, :3]) @ nearest_rotation(model[some, :3, :3]).transpose(0, 2, 1)
    apart = rotation_angle_degrees(*np.broadcast_arrays(turns[:, None], turns[None]))
    middle = int(np.argmin(np.median(apart, axis=1)))
    rotation = nearest_rotation(turns[apart[middle] < _FIT_ROTATION_DEGREES].mean(axis=0)[None])[0]
    turned, target = model[:, :3, 3] @ rotation.T, capture[:, :3, 3]
    scale = _scale(turned[some], target[some])
    world = World(rotation, geometric_median(target - scale * turned), scale)
    agreeing = agree(world.to_capture(model), capture, _FIT_ROTATION_DEGREES, _FIT_POSITION_SHARE)
    return world if scale > 0 and agreeing.mean() >= 0.5 else None


def agree(a: Float[np.ndarray, "n 4 4"], b: Float[np.ndarray, "n 4 4"], degrees: float, share: float) -> np.ndarray:
    """Tell which poses are equal up to an angle and up to a share of the cameras' median distance from their middle."""
    middle = geometric_median(b[:, :3, 3])
    spread = float(np.median(np.linalg.norm(b[:, :3, 3] - middle, axis=1)))
    near = np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1) <= share * spread + 1e-12
    turned = rotation_angle_degrees(nearest_rotation(a[:, :3, :3]), nearest_rotation(b[:, :3, :3]))
    return near & (turned <= degrees)


def model_c2w(image: pycolmap.Image) -> Pose:
    """Return an image's OpenGL camera-to-world in the model's world."""
    return np.linalg.inv(np.vstack([image.cam_from_world().matrix(), [0.0, 0.0, 0.0, 1.0]])) @ OPENGL_FROM_OPENCV


def new_images(placed: Sequence[Placed], world: World) -> list[ModelImage] | None:
    """Return the images of a model without tracks; None where COLMAP has no camera for one of them."""
    images = [_new_image(entry, world) for entry in placed]
    return None if any(image is None for image in images) else [image for image in images if image is not None]


def thinned(
    placed: Sequence[Placed], model: pycolmap.Reconstruction, found: Mapping[str, pycolmap.Image], world: World
) -> tuple[list[ModelImage], list[ModelPoint]] | None:
    """Take the placed frames out of a COLMAP model, with every point that two of them still see.

    A frame whose pose is the model's own keeps it to the last bit. One that was moved keeps those observations that
    its new pose explains. Frames that the model does not have get no observations.

    Args:
        placed: the frames.
        model: the whole model.
        found: the model's image of each frame, by the frame's ``file_path``.
        world: from the model's world to the capture's.

    Returns:
        Images and points, or None where COLMAP has no camera for a frame.
    """
    moved = _moved(placed, found, world)
    images: list[ModelImage] = []
    for entry in placed:
        image = found.get(entry.frame.file_path)
        added = _new_image(entry, world) if image is None else _kept_image(entry, image, model, world, moved)
        if added is None:
            return None
        images.append(added)
    names = {found[entry.frame.file_path].image_id: entry.name for entry in placed if entry.frame.file_path in found}
    moved_images = {image.name: image for image in images if image.name in moved}
    points = []
    for point in model.points3D.values():
        seen = [(names[e.image_id], e.point2D_idx) for e in point.track.elements if e.image_id in names]
        track = tuple(entry for entry in seen if _explained(point.xyz, entry, moved_images))
        if len({name for name, _ in track}) >= 2:
            red, green, blue = (int(channel) for channel in point.color)
            points.append(ModelPoint(np.array(point.xyz, dtype=np.float64), (red, green, blue), track))
    return images, points


def _moved(placed: Sequence[Placed], found: Mapping[str, pycolmap.Image], world: World) -> set[str]:
    common = [entry for entry in placed if entry.frame.file_path in found]
    if not common:
        return set()
    own = world.to_capture(np.array([model_c2w(found[entry.frame.file_path]) for entry in common]))
    same = agree(own, np.array([entry.c2w for entry in common]), _SAME_ROTATION_DEGREES, _SAME_POSITION_SHARE)
    return {entry.name for entry, stays in zip(common, same, strict=True) if not stays}


def _new_image(entry: Placed, world: World) -> ModelImage | None:
    camera = None if entry.frame.intrinsics is None else colmap_camera(entry.frame.intrinsics)
    return None if camera is None else ModelImage(entry.name, camera, world.to_model(entry.c2w))


def _kept_image(
    entry: Placed, image: pycolmap.Image, model: pycolmap.Reconstruction, world: World, moved: set[str]
) -> ModelImage:
    """Keep an image's keypoints and camera, scaled where the capture's images are of another size than the model's."""
    old = model.cameras[image.camera_id]
    camera = pycolmap.Camera(model=old.model.name, width=old.width, height=old.height, params=old.params)
    keypoints = np.array([point.xy for point in image.points2D], dtype=np.float64).reshape(-1, 2)
    size = entry.frame.intrinsics
    if size is not None and (size.width, size.height) != (old.width, old.height):
        camera.rescale(size.width, size.height)
        keypoints = keypoints * [size.width / old.width, size.height / old.height]
    c2w = world.to_model(entry.c2w) if entry.name in moved else model_c2w(image)
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


def _scale(points: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]) -> float:
    """Return how much longer distances are in ``target``: 1 where there are no two different points.

    Siegel's repeated median (Biometrika 69(1), 1982): the median over points of the median over their partners.
    Wrong points up to half of all do not reach it; the plain median over pairs already fails at three in ten.
    """
    before, after = (np.linalg.norm(p[:, None] - p[None], axis=2) for p in (points, target))
    usable = before > 1e-9 * before.max(initial=0.0)
    ratios = np.where(usable, after / np.where(usable, before, 1.0), np.nan)[usable.any(axis=1)]
    return float(np.median(np.nanmedian(ratios, axis=1))) if len(ratios) else 1.0
