"""A camera's pose and its intrinsics, as captures hold them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Pose = Float[np.ndarray, "4 4"]
"""An OpenGL camera-to-world matrix (x right, y up, z back) in the capture's own world."""

DISTORTION_KEYS = (
    "k0", "k1", "k2", "k3", "k4", "k5", "k6", "p0", "p1", "p2", "sx1", "sy1", "s0", "s1", "s2", "s3", "omega",
)  # fmt: skip
"""Names of the distortion coefficients of all camera models, as COLMAP and transforms.json have them."""


@dataclass(frozen=True)
class Intrinsics:
    """One camera's calibration, in pixels of the image file as it is stored (EXIF orientation not applied)."""

    camera_model: str
    """COLMAP's name of the camera model, as nerfstudio writes it: ``OPENCV``, ``PINHOLE``, ``OPENCV_FISHEYE`` …"""
    width: int
    height: int
    fl_x: float
    fl_y: float
    cx: float
    cy: float
    distortion: tuple[tuple[str, float], ...] = ()
    """Named distortion coefficients in transforms.json's terms, for instance ``(("k1", 0.01), ("k2", 0.0))``."""

    @property
    def focal_over_diagonal(self) -> float:
        """Mean focal length as a share of the image's diagonal (unitless)."""
        return float(0.5 * (self.fl_x + self.fl_y) / np.hypot(self.width, self.height))
