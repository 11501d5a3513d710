"""A walk through a textured corner, seen, matched and weighed; and the same in numbers alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from textured_corner import FOCAL, HEIGHT, WIDTH, write_photos

from mtcm_nerfstudio.capture.capture import Frame, Intrinsics
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.evidence.collect import Matched, match_capture
from mtcm_nerfstudio.tokens.evidence.geometry import SeenByTwo, opencv_from_opengl
from mtcm_nerfstudio.tokens.progress import progress_bars

LENS = Intrinsics("PINHOLE", WIDTH, HEIGHT, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)
QUIET = progress_bars(shown=False)


def frames_of(folder: Path, count: int) -> list[Frame]:
    """Photos of the corner with their true poses."""
    names = [f"images/{i:02d}.png" for i in range(count)]
    poses = write_photos(folder, names)
    return [Frame(name, folder / name, c2w=pose, intrinsics=LENS) for name, pose in zip(names, poses, strict=True)]


def poses_of(frames: list[Frame]) -> np.ndarray:
    return np.stack([np.full((4, 4), np.nan) if frame.c2w is None else frame.c2w for frame in frames])


def matched(frames: list[Frame], cache: Cache) -> Matched:
    return match_capture(frames, poses_of(frames), np.ones(len(frames), dtype=bool), cache, QUIET)


def with_image(frame: Frame, path: Path) -> Frame:
    return replace(frame, image_path=path)


def seen_points(
    c2w: np.ndarray, pairs: np.ndarray, points: int = 40, noise_px: float = 0.0, seed: int = 0
) -> SeenByTwo:
    """Random points in front of OpenGL cameras, as pairs of them see these."""
    rng = np.random.default_rng(seed)
    cloud = rng.uniform(-1.0, 1.0, (points, 3))
    w2c = np.linalg.inv(opencv_from_opengl(c2w))
    local = cloud @ np.swapaxes(w2c[:, :3, :3], 1, 2) + w2c[:, None, :3, 3]
    rays = local[..., :2] / local[..., 2:] + rng.normal(0.0, noise_px / 800.0, (len(c2w), points, 2))
    there = np.ones((len(pairs), points), dtype=bool)
    return SeenByTwo(pairs, rays[pairs], there, np.full(len(pairs), 800.0))
