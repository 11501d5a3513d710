"""From points in an image to viewing directions, by the camera's calibration."""

import cv2
import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio.capture.capture import Intrinsics
from mtcm_nerfstudio.tokens.evidence.features import LONGER_SIDE

_PERSPECTIVE = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE = ("k1", "k2", "k3", "k4")


def rays_of(points: Float[np.ndarray, "point 2"], intrinsics: Intrinsics | None) -> Float[np.ndarray, "point 2"] | None:
    """Return x/z and y/z of the direction in which each point is seen (OpenCV axes: x right, y down, z ahead).

    Args:
        points: in pixels at a longer side of 1000.
        intrinsics: of the stored image.

    Returns:
        NaN for points that a fisheye sees beside or behind itself; None where the camera's model has no such
        directions (equirectangular) or is not known.
    """
    if intrinsics is None or not intrinsics.camera_model.startswith(("OPENCV", "PINHOLE", "SIMPLE", "RADIAL", "FULL")):
        return None
    if len(points) == 0:
        return np.zeros((0, 2))
    scale = max(intrinsics.width, intrinsics.height) / LONGER_SIDE
    pixels = (points * scale).astype(np.float64).reshape(-1, 1, 2)
    matrix = np.array([[intrinsics.fl_x, 0, intrinsics.cx], [0, intrinsics.fl_y, intrinsics.cy], [0, 0, 1]])
    lens = dict(intrinsics.distortion)
    if "FISHEYE" in intrinsics.camera_model:
        coefficients = np.array([lens.get(name, 0.0) for name in _FISHEYE])
        rays = cv2.fisheye.undistortPoints(pixels, matrix.astype(np.float64), coefficients)[:, 0]
    else:
        coefficients = np.array([lens.get(name, 0.0) for name in _PERSPECTIVE])
        rays = cv2.undistortPoints(pixels, matrix.astype(np.float64), coefficients)[:, 0]
    return np.where(np.abs(rays) < 1e3, rays, np.nan)


def focal_px(intrinsics: Intrinsics | None) -> float:
    """Return the mean focal length in pixels at a longer side of 1000, NaN where it is not known."""
    if intrinsics is None:
        return float("nan")
    longer = max(intrinsics.width, intrinsics.height)
    return 0.5 * (intrinsics.fl_x + intrinsics.fl_y) * LONGER_SIDE / longer
