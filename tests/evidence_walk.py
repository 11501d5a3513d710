"""A walk through a textured corner whose frames are matched, and matches of random points for cameras in numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from textured_corner import FOCAL, HEIGHT, WIDTH, write_photos

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.evidence.frame_numbers import Evidence, compute_evidence
from mtcm_nerfstudio.evidence.match_capture import MatchedCapture, match_capture
from mtcm_nerfstudio.geometry.bearings import bearings_from_pixels, pixels_from_bearings, pixels_per_radian
from mtcm_nerfstudio.geometry.epipolar import MatchedBearings, opencv_from_opengl
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics
from mtcm_nerfstudio.geometry.poses import canonical_frame
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import EMBEDDING_DIM
from mtcm_nerfstudio.tokens.progress import progress_bars

INTRINSICS = Intrinsics("PINHOLE", WIDTH, HEIGHT, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)
PINHOLE = Intrinsics("PINHOLE", 1000, 800, 800.0, 800.0, 500.0, 400.0)
QUIET = progress_bars(shown=False)


def frames_of(folder: Path, count: int) -> list[Frame]:
    """Photos of the corner with their true poses."""
    names = [f"images/{i:02d}.png" for i in range(count)]
    poses = write_photos(folder, names)
    return [Frame(name, folder / name, c2w=pose, intrinsics=INTRINSICS) for name, pose in zip(names, poses)]


def poses_of(frames: list[Frame]) -> np.ndarray:
    """Claimed poses, NaN for frames without one."""
    return np.stack([np.full((4, 4), np.nan) if frame.c2w is None else frame.c2w for frame in frames])


def embeddings_of(frames: list[Frame]) -> np.ndarray:
    """Small copies of the images in place of embeddings, NaN for frames without an image."""
    out = np.full((len(frames), EMBEDDING_DIM), np.nan)
    for row, frame in zip(out, frames):
        if frame.image_path.is_file():
            small = Image.open(frame.image_path).convert("RGB").resize((16, 8), Image.Resampling.BOX)
            row[:] = np.asarray(small, dtype=np.float64).ravel() / 50.0
    return out


def in_own_unit(c2w: np.ndarray) -> np.ndarray:
    """Poses in the capture's own frame of reference and unit; all of them as they are where none is known."""
    known = np.isfinite(c2w).all(axis=(1, 2))
    return canonical_frame(c2w[known]).to_capture(c2w) if known.any() else c2w


def readable_of(frames: list[Frame]) -> np.ndarray:
    """Frames that have an image."""
    return np.array([frame.image_path.is_file() for frame in frames])


def matched(frames: list[Frame], cache: Cache | None = None) -> MatchedCapture:
    """The frames' matches."""
    c2w = in_own_unit(poses_of(frames))
    return match_capture(frames, embeddings_of(frames), c2w, readable_of(frames), cache, QUIET)


def evidence_of_walk(found: MatchedCapture, frames: list[Frame], c2w: np.ndarray | None = None) -> Evidence:
    """Evidence about matched frames, at other poses than they claim where these are given."""
    c2w = in_own_unit(poses_of(frames) if c2w is None else c2w)
    return compute_evidence(found.table, embeddings_of(frames), c2w, readable_of(frames))


def with_image(frame: Frame, path: Path) -> Frame:
    """The frame with another image file."""
    return replace(frame, image_path=path)


def matched_points(
    c2w: np.ndarray, pairs: np.ndarray, points: int = 40, noise_px: float = 0.0, seed: int = 0, cameras=PINHOLE
) -> MatchedBearings:
    """Random points about the origin as pairs of OpenGL cameras see them.

    Args:
        c2w: OpenGL camera-to-world.
        pairs: of frames.
        points: number of points.
        noise_px: standard deviation along x and along y, in pixels of the images that the intrinsics describe.
        seed: of points and noise.
        cameras: intrinsics of all frames, or one for each.
    """
    rng = np.random.default_rng(seed)
    cloud = rng.uniform(-1.0, 1.0, (points, 3))
    each = [cameras] * len(c2w) if isinstance(cameras, Intrinsics) else list(cameras)
    bearings = np.stack([observed(pose, cloud, one, noise_px, rng) for pose, one in zip(c2w, each)])
    resolution = np.array([pixels_per_radian(one) for one in each])
    valid = np.isfinite(bearings).all(axis=-1)[pairs].all(axis=1)
    return MatchedBearings(pairs, np.nan_to_num(bearings)[pairs], valid, resolution[pairs])


def observed(c2w: np.ndarray, cloud: np.ndarray, camera: Intrinsics, noise_px: float, rng) -> np.ndarray:
    """Bearings of points in one OpenGL camera, with noise in the image."""
    w2c = np.linalg.inv(opencv_from_opengl(c2w[None])[0])
    local = cloud @ w2c[:3, :3].T + w2c[:3, 3]
    pixels = pixels_from_bearings(local, camera)
    return bearings_from_pixels(pixels + rng.normal(0.0, noise_px, pixels.shape), camera)
