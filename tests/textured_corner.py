"""Pictures of the corner of a textured room from known poses, which COLMAP can find again."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tiny_capture import look_at

WIDTH, HEIGHT, FOCAL = 320, 240, 300.0
_TEXTURE_PX = 512
_SIDE = 3.0
_PLANES = (
    (np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0])),
    (np.zeros(3), np.array([0, 1.0, 0]), np.array([0, 0, 1.0])),
    (np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 0, 1.0])),
)
"""Floor and two walls: a corner, and the directions in which each plane extends from it."""


def walk(count: int) -> np.ndarray:
    """Poses (count, 4, 4) on an arc in the room, looking into the corner."""
    angles = np.radians(np.linspace(25.0, 65.0, count))
    positions = np.stack([5 * np.cos(angles), 5 * np.sin(angles), 2.2 + 0.5 * np.sin(3 * angles)], axis=1)
    return np.array([look_at(position, np.array([0.9, 0.9, 0.8])) for position in positions])


def render(c2w: np.ndarray) -> Image.Image:
    """Draw the corner as a pinhole camera sees it: each plane through its homography."""
    w2c = np.linalg.inv(c2w @ np.diag([1.0, -1.0, -1.0, 1.0]))
    intrinsics = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])
    picture = np.full((HEIGHT, WIDTH, 3), 30, dtype=np.uint8)
    for number, (corner, along, across) in enumerate(_PLANES):
        step = _SIDE / _TEXTURE_PX
        axes = np.stack([w2c[:3, :3] @ along * step, w2c[:3, :3] @ across * step, w2c[:3, :3] @ corner + w2c[:3, 3]])
        homography = intrinsics @ axes.T
        size, flags = (WIDTH, HEIGHT), cv2.INTER_AREA
        drawn = cv2.warpPerspective(texture(number), homography, size, flags=flags)
        inside = cv2.warpPerspective(np.full((_TEXTURE_PX, _TEXTURE_PX), 255, np.uint8), homography, size)
        picture = np.where(inside[..., None] > 127, drawn, picture)
    return Image.fromarray(picture)


def texture(seed: int) -> np.ndarray:
    """Coloured noise at several scales: corners and blobs everywhere, no two places alike."""
    rng = np.random.default_rng(seed)
    total = np.zeros((_TEXTURE_PX, _TEXTURE_PX, 3))
    for cells in (16, 48, 128):
        noise = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        total += cv2.resize(noise, (_TEXTURE_PX, _TEXTURE_PX), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 70 * total, 0, 255).astype(np.uint8)


def write_photos(folder: Path, names: list[str]) -> np.ndarray:
    """Write one photo of the walk for each name; returns their poses."""
    poses = walk(len(names))
    for name, pose in zip(names, poses, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        render(pose).save(folder / name, quality=95)
    return poses
