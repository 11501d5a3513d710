"""Writing a capture's files: ``transforms.json`` for nerfstudio, a COLMAP model for others, second names of images."""

import itertools
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from jaxtyping import Float

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics, Pose
from mtcm_nerfstudio.geometry.poses import OPENGL_FROM_OPENCV, nearest_rotation

_PARAMETERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "SIMPLE_PINHOLE": ("PINHOLE", ()),
    "PINHOLE": ("PINHOLE", ()),
    "SIMPLE_RADIAL": ("OPENCV", ("k1", "k2", "p1", "p2")),
    "RADIAL": ("OPENCV", ("k1", "k2", "p1", "p2")),
    "OPENCV": ("OPENCV", ("k1", "k2", "p1", "p2")),
    "OPENCV_FISHEYE": ("OPENCV_FISHEYE", ("k1", "k2", "k3", "k4")),
}
"""transforms.json's camera model: COLMAP's model for it, and the distortion coefficients in COLMAP's order."""


@dataclass(frozen=True, eq=False)
class ModelImage:
    """One image of a COLMAP model that is to be written."""

    name: str
    """The image's path relative to the folder of the images (POSIX)."""
    camera: pycolmap.Camera
    c2w: Pose
    """OpenGL camera-to-world in the model's world."""
    keypoints: Float[np.ndarray, "n 2"] = field(default_factory=lambda: np.zeros((0, 2)))
    """Pixel positions that tracks refer to by index."""


@dataclass(frozen=True, eq=False)
class ModelPoint:
    """One 3D point of a COLMAP model, and where it is seen."""

    xyz: Float[np.ndarray, "3"]
    rgb: tuple[int, int, int]
    track: tuple[tuple[str, int], ...]
    """(image name, index of the keypoint) of each observation; two at least."""


def transforms_meta(frames: Sequence[Frame], names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Lay frames with poses out as ``transforms.json`` does: shared calibration at the top, else frame by frame.

    Args:
        frames: frames with a pose and intrinsics.
        names: the ``file_path`` to write for each frame's own; without it they stay.

    Raises:
        ValueError: a frame has no pose or no intrinsics.
    """
    for frame in frames:
        if frame.c2w is None or frame.intrinsics is None:
            raise ValueError(f"{frame.file_path}: has no {'pose' if frame.c2w is None else 'focal length'} to write")
    cameras = {frame.intrinsics for frame in frames if frame.intrinsics is not None}
    shared = camera_entry(next(iter(cameras))) if len(cameras) == 1 else {}
    return {**shared, "frames": [_frame_entry(frame, names or {}, bool(shared)) for frame in frames]}


def camera_entry(intrinsics: Intrinsics) -> dict[str, Any]:
    """Return the calibration in transforms.json's terms."""
    entry = asdict(intrinsics)
    distortion = dict(entry.pop("distortion"))
    entry["w"], entry["h"] = entry.pop("width"), entry.pop("height")
    return {**entry, **distortion}


def colmap_camera(intrinsics: Intrinsics) -> pycolmap.Camera | None:
    """Return COLMAP's camera for a calibration, or None where COLMAP has no model for it (equirectangular …).

    ``k3`` of the OpenCV model takes COLMAP's larger one; its ``k4`` means another thing there and must be zero.
    """
    if intrinsics.camera_model not in _PARAMETERS:
        return None
    model, keys = _PARAMETERS[intrinsics.camera_model]
    named = dict(intrinsics.distortion)
    if model == "OPENCV" and named.get("k3"):
        model, keys = "FULL_OPENCV", ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    if model != "OPENCV_FISHEYE" and named.get("k4"):
        return None
    return pycolmap.Camera(
        model=model,
        width=intrinsics.width,
        height=intrinsics.height,
        params=[
            intrinsics.fl_x,
            intrinsics.fl_y,
            intrinsics.cx,
            intrinsics.cy,
            *(named.get(key, 0.0) for key in keys),
        ],
    )


def write_colmap_model(images: Sequence[ModelImage], points: Sequence[ModelPoint], folder: Path) -> None:
    """Write a COLMAP model in COLMAP's binary format. Equal cameras become one."""
    model = pycolmap.Reconstruction()
    camera_ids = _add_cameras(model, images)
    ids = {image.name: number for number, image in enumerate(images, start=1)}
    for image, camera_id in zip(images, camera_ids, strict=True):
        _add_image(model, image, ids[image.name], camera_id)
    for point in points:
        track = pycolmap.Track()
        for name, index in point.track:
            track.add_element(ids[name], index)
        model.add_point3D(point.xyz, track, np.array(point.rgb, dtype=np.uint8))
    model.update_point_3d_errors()
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(str(folder))


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name on the same disk, or copy it with its times where that cannot be.

    A symbolic link is followed first: the new name must outlive the old one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copy2(source, target)


def rigid_from_c2w(c2w: Pose) -> pycolmap.Rigid3d:
    """Turn an OpenGL camera-to-world matrix into COLMAP's world-to-camera transform."""
    opencv = c2w @ OPENGL_FROM_OPENCV
    rotation = nearest_rotation(opencv[None, :3, :3])[0].T
    return pycolmap.Rigid3d(np.hstack([rotation, -rotation @ opencv[:3, 3:]]))


def _frame_entry(frame: Frame, names: Mapping[str, str], shared: bool) -> dict[str, Any]:
    assert frame.c2w is not None and frame.intrinsics is not None
    entry: dict[str, Any] = {"file_path": names.get(frame.file_path, frame.file_path)}
    if not shared:
        entry |= camera_entry(frame.intrinsics)
    entry["transform_matrix"] = frame.c2w.tolist()
    if frame.timestamp is not None:
        entry["timestamp"] = frame.timestamp
    return entry


def _add_cameras(model: pycolmap.Reconstruction, images: Sequence[ModelImage]) -> list[int]:
    """Add each different camera once, with the rig of one that COLMAP wants; return the images' camera ids."""
    known: dict[tuple[Any, ...], int] = {}
    numbers = itertools.count(1)
    camera_ids = []
    for image in images:
        camera = image.camera
        key = (camera.model.name, camera.width, camera.height, tuple(camera.params))
        if key not in known:
            known[key] = next(numbers)
            added = pycolmap.Camera(
                model=camera.model.name,
                width=camera.width,
                height=camera.height,
                params=camera.params,
                camera_id=known[key],
            )
            model.add_camera(added)
            rig = pycolmap.Rig(rig_id=known[key])
            rig.add_ref_sensor(added.sensor_id)
            model.add_rig(rig)
        camera_ids.append(known[key])
    return camera_ids


def _add_image(model: pycolmap.Reconstruction, image: ModelImage, image_id: int, camera_id: int) -> None:
    added = pycolmap.Image(name=image.name, keypoints=image.keypoints, camera_id=camera_id, image_id=image_id)
    frame = pycolmap.Frame(frame_id=image_id, rig_id=camera_id)
    added.frame_id = image_id
    frame.add_data_id(added.data_id)
    model.add_frame(frame)
    model.frame(image_id).set_cam_from_world(camera_id, rigid_from_c2w(image.c2w))
    model.add_image(added)
    model.register_frame(image_id)
