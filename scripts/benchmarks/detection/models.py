"""What a COLMAP model beside a capture says of its frames: how much each one sees, and how well its pose explains it.

The model is the one of the capture as it came: a corrupted image is not posed again, which would take COLMAP minutes a
trial. A wrong pose is, in the model's world, the true one moved by as much.
"""

from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Float, Int

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.colmap import find_model, image_folder, read_colmap, read_model
from mtcm_nerfstudio.capture.corruptions import spread
from mtcm_nerfstudio.geometry.poses import OPENGL_FROM_OPENCV

_NOT_SEEN = 1e5
"""Error of a frame that sees no point of the model, in pixels: more than any other."""


@dataclass(frozen=True, eq=False)
class FramePoints:
    """The points of the model that one frame sees."""

    places: Float[np.ndarray, "point 3"]
    """In the model's world."""
    pixels: Float[np.ndarray, "point 2"]
    camera: pycolmap.Camera

    def error(self, c2w: Float[np.ndarray, "4 4"]) -> float:
        """Return the mean reprojection error in pixels for a pose in the model's world (OpenGL).

        What lies behind the camera counts as one diagonal off, and nothing counts as more.
        """
        w2c = np.linalg.inv(c2w @ OPENGL_FROM_OPENCV)
        seen = self.camera.img_from_cam(self.places @ w2c[:3, :3].T + w2c[:3, 3])
        diagonal = float(np.hypot(self.camera.width, self.camera.height))
        off = np.linalg.norm(seen - self.pixels, axis=1)
        return float(np.where(np.isfinite(off), np.minimum(off, diagonal), diagonal).mean())


@dataclass(frozen=True, eq=False)
class ModelPoints:
    """What a model says of all frames of a capture."""

    frames: tuple[FramePoints | None, ...]
    """None for frames that the model does not have."""
    c2w: Float[np.ndarray, "frame 4 4"]
    """The model's own poses, NaN for frames that it does not have."""
    true_c2w: Float[np.ndarray, "frame 4 4"]
    """The capture's, which may be in another world."""

    @property
    def observations(self) -> Int[np.ndarray, " frame"]:
        """Number of points that each frame sees."""
        return np.array([0 if frame is None else len(frame.places) for frame in self.frames])

    def errors(self, claimed: Float[np.ndarray, "frame 4 4"]) -> Float[np.ndarray, " frame"]:
        """Return each frame's mean reprojection error in pixels, given poses in the capture's world."""
        own_motion = np.linalg.inv(self.true_c2w) @ claimed
        own_motion[:, :3, 3] *= spread(self.c2w) / spread(self.true_c2w)
        poses = self.c2w @ own_motion
        errors = [
            _NOT_SEEN if frame is None or not len(frame.places) else frame.error(pose)
            for frame, pose in zip(self.frames, poses, strict=True)
        ]
        return np.array(errors)


def points_of_model(capture: Capture) -> ModelPoints | None:
    """Read the COLMAP model in a capture's folder; None where there is none of its frames."""
    folder = capture.model_dir or find_model(capture.root)
    if folder is None:
        return None
    posed = {frame.file_path: frame.c2w for frame in read_colmap(capture.root, folder).frames}
    model = read_model(folder)
    images = [image for image in model.images.values() if image.has_pose]
    within = image_folder(capture.root, [image.name for image in images])
    seen = {(within / image.name).as_posix(): _frame_points(model, image) for image in images}
    frames = tuple(seen.get(frame.file_path) for frame in capture.frames)
    if all(frame is None for frame in frames):
        return None
    none = np.full((4, 4), np.nan)
    own, claimed = [posed.get(frame.file_path) for frame in capture.frames], [frame.c2w for frame in capture.frames]
    return ModelPoints(
        frames=frames,
        c2w=np.stack([none if pose is None else pose for pose in own]),
        true_c2w=np.stack([none if pose is None else pose for pose in claimed]),
    )


def _frame_points(model: pycolmap.Reconstruction, image: pycolmap.Image) -> FramePoints:
    seen = [point for point in image.points2D if point.has_point3D()]
    return FramePoints(
        places=np.array([model.points3D[point.point3D_id].xyz for point in seen]).reshape(-1, 3),
        pixels=np.array([point.xy for point in seen]).reshape(-1, 2),
        camera=model.cameras[image.camera_id],
    )
