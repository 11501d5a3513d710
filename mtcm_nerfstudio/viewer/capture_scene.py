"""What is drawn of a capture and does not change with decisions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio.capture.capture import Capture, Frame
from mtcm_nerfstudio.capture.colmap_model import sparse_points
from mtcm_nerfstudio.decisions import Decisions
from mtcm_nerfstudio.geometry.poses import canonical_frame, far_away
from mtcm_nerfstudio.viewer.frusta import usual_size
from mtcm_nerfstudio.views.decision_poses import claimed_poses, suggested_poses, used_poses

_USUAL_TANGENTS = (0.58, 0.43)
"""Of half the fields of view of a phone's camera, for frames of which they are not known."""
_MOST_POINTS = 100_000

PoseTransform = Callable[[Float[np.ndarray, "n 4 4"]], Float[np.ndarray, "n 4 4"]]
"""From poses in the capture's world to poses in the viewer's."""


@dataclass(frozen=True, eq=False)
class CaptureScene:
    """A capture as a viewer draws it; row i of every array belongs to entry i of the decisions' frames."""

    capture: Capture
    to_viewer: PoseTransform
    tangents: Float[np.ndarray, "frame 2"]
    """Of half the horizontal and half the vertical field of view."""
    size: float
    """Of a frustum, in the viewer's unit."""
    points: Float[np.ndarray, "p 3"] | None
    """Of the scene, in the viewer's world."""

    @property
    def images(self) -> tuple[Path, ...]:
        """Where the frames' images lie."""
        return tuple(frame.image_path for frame in self.capture.frames)

    def claimed(self) -> Float[np.ndarray, "frame 4 4"]:
        """Return where the capture says that its frames are, in the viewer's world; NaN where it does not say."""
        return self.to_viewer(claimed_poses(self.capture))

    def used(self, decisions: Decisions) -> Float[np.ndarray, "frame 4 4"]:
        """Return where training has them."""
        return self.to_viewer(used_poses(self.capture, decisions))

    def suggested(self, decisions: Decisions) -> Float[np.ndarray, "m 4 4"]:
        """Return where views are suggested."""
        return self.to_viewer(suggested_poses(decisions))


def build_scene(capture: Capture, to_viewer: PoseTransform | None = None, points: bool = True) -> CaptureScene:
    """Prepare a capture for a viewer.

    Args:
        capture: as it was read.
        to_viewer: into the viewer's world; by default that of the capture's own frame, y up.
        points: whether to show the scene's points.
    """
    claimed = claimed_poses(capture)
    to_viewer = to_capture_frame(claimed) if to_viewer is None else to_viewer
    found = sparse_points(capture) if points else None
    return CaptureScene(
        capture,
        to_viewer,
        np.array([_tangents(frame) for frame in capture.frames], dtype=np.float64).reshape(-1, 2),
        usual_size(to_viewer(claimed)),
        None if found is None else _placed_points(found, to_viewer),
    )


def to_capture_frame(c2w: Float[np.ndarray, "n 4 4"]) -> PoseTransform:
    """Return what takes poses into the frame that the cameras define: they stand about the origin, and up is +y."""
    posed = c2w[np.isfinite(c2w).all(axis=(1, 2))]
    near = posed[~far_away(posed[:, :3, 3])]
    return canonical_frame(near).to_capture


def _tangents(frame: Frame) -> tuple[float, float]:
    intrinsics = frame.intrinsics
    if intrinsics is None or not (intrinsics.fl_x > 0 and intrinsics.fl_y > 0):
        return _USUAL_TANGENTS
    return min(0.5 * intrinsics.width / intrinsics.fl_x, 2.0), min(0.5 * intrinsics.height / intrinsics.fl_y, 2.0)


def _placed_points(points: Float[np.ndarray, "p 3"], to_viewer: PoseTransform) -> Float[np.ndarray, "q 3"]:
    """Return a part of many points that is evenly spread over their list, in the viewer's world."""
    some = points[:: max(1, -(-len(points) // _MOST_POINTS))]
    poses = np.tile(np.eye(4), (len(some), 1, 1))
    poses[:, :3, 3] = some
    return to_viewer(poses)[:, :3, 3]
