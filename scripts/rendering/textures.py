"""Textures for rendered scenes: photos that come inside scikit-image, and patterns computed from noise.

Only photos that show no person are used. Where those of the sample come from is in ``data/README.md``.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import skimage.data
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

Texture = Float[np.ndarray, "height width 3"]
"""Linear RGB in [0, 1]."""

SIDE_PX = 512
"""Height and width of every texture."""

PHOTOS = (
    "brick",
    "grass",
    "gravel",
    "coffee",
    "chelsea",
    "rocket",
    "coins",
    "page",
    "text",
    "clock",
    "moon",
    "hubble_deep_field",
    "immunohistochemistry",
)
"""scikit-image's functions whose photo is in its wheel and shows no person."""

GAMMA = 2.2
"""Exponent between stored and linear brightness."""


@lru_cache(maxsize=len(PHOTOS))
def photo(name: str) -> Texture:
    """Load one of ``PHOTOS`` as a linear RGB texture with its own proportions.

    Raises:
        ValueError: the photo is not on the list.
    """
    if name not in PHOTOS:
        raise ValueError(f"photo {name!r} is none of {', '.join(PHOTOS)}")
    image = np.asarray(getattr(skimage.data, name)())
    rgb = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]
    return (rgb.astype(np.float32) / 255.0) ** GAMMA


def photo_crop(rng: np.random.Generator, name: str, turned: bool = True) -> Texture:
    """Cut a random square out of a photo, turn it by a multiple of 90° if wanted, and bring it to ``SIDE_PX``."""
    image = photo(name)
    side = int(min(image.shape[:2]) * rng.uniform(0.6, 1.0))
    top = int(rng.integers(0, image.shape[0] - side + 1))
    left = int(rng.integers(0, image.shape[1] - side + 1))
    quarters = int(rng.integers(4)) if turned else 0
    crop = np.ascontiguousarray(np.rot90(image[top : top + side, left : left + side], quarters))
    return cv2.resize(crop, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)


def fractal_noise(rng: np.random.Generator, roughness: float = 0.6, largest_px: int = 128) -> np.ndarray:
    """Sum octaves of smoothed white noise that tile without a seam; zero mean, unit deviation, square."""
    total = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    size, weight = float(largest_px), 1.0
    while size >= 1.0:
        octave = gaussian_filter(rng.standard_normal((SIDE_PX, SIDE_PX)), size / 2, mode="wrap", truncate=2.5)
        total += (weight * octave / octave.std()).astype(np.float32)
        size, weight = size / 3.0, weight * roughness
    return total / total.std()


def _colours(rng: np.random.Generator, count: int) -> Float[np.ndarray, "count 3"]:
    """Draw linear colours as paint has them: mostly muted, some bright."""
    grey = np.exp(rng.uniform(np.log(0.02), np.log(0.8), (count, 1)))
    return np.clip(grey * np.exp(rng.normal(0.0, 0.45, (count, 3))), 0.01, 0.95).astype(np.float32)


def _two_colours(rng: np.random.Generator, share: np.ndarray) -> Texture:
    """Blend two random colours by ``share`` in [0, 1]."""
    first, second = _colours(rng, 2)
    return first + np.clip(share, 0.0, 1.0)[..., None].astype(np.float32) * (second - first)


def noise_pattern(rng: np.random.Generator) -> Texture:
    """Clouds, marble or speckle, by the roughness that is drawn."""
    noise = fractal_noise(rng, roughness=rng.uniform(0.5, 1.1))
    if rng.random() < 0.4:
        noise = 2.0 * np.sin(noise * rng.uniform(2.0, 5.0))
    return _two_colours(rng, 0.5 + 0.3 * noise)


def checker_pattern(rng: np.random.Generator) -> Texture:
    """A worn checkerboard: fields of random brightness under noise, so that no two look the same."""
    count = int(rng.integers(4, 14))
    fields = (np.indices((count, count)).sum(axis=0) % 2) * 0.6 + rng.uniform(0.0, 0.4, (count, count))
    large = cv2.resize(fields.astype(np.float32), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_NEAREST)
    return _two_colours(rng, large + 0.12 * fractal_noise(rng, roughness=0.9))


def voronoi_pattern(rng: np.random.Generator) -> Texture:
    """Cells of random colours with dark joints, like paving or giraffe skin."""
    count = int(rng.integers(40, 400))
    points = rng.uniform(0, SIDE_PX, (count, 2))
    grid = np.stack(np.meshgrid(np.arange(SIDE_PX), np.arange(SIDE_PX), indexing="ij"), axis=-1).reshape(-1, 2)
    distance, nearest = KDTree(points, boxsize=SIDE_PX).query(grid, k=2)
    distance, nearest = np.asarray(distance), np.asarray(nearest)
    joint = np.clip((distance[:, 1] - distance[:, 0]) / 4.0, 0.15, 1.0)
    base = _colours(rng, 1)
    colours = np.clip(base * np.exp(rng.normal(0, 0.35, (count, 1)) + rng.normal(0, 0.12, (count, 3))), 0.01, 0.95)
    picture = (colours[nearest[:, 0]] * joint[:, None]).reshape(SIDE_PX, SIDE_PX, 3)
    return np.clip(picture * (1.0 + 0.1 * fractal_noise(rng, 0.9)[..., None]), 0, 1).astype(np.float32)


def poster_pattern(rng: np.random.Generator) -> Texture:
    """Random blocks, discs, strokes and letters over one another: unmistakable from any side."""
    picture = np.tile(_colours(rng, 1)[0] ** (1 / GAMMA), (SIDE_PX, SIDE_PX, 1)).copy()
    for _ in range(int(rng.integers(60, 160))):
        colour = tuple(float(c) for c in _colours(rng, 1)[0] ** (1 / GAMMA))
        x, y, size = (int(v) for v in rng.integers((0, 0, 6), (SIDE_PX, SIDE_PX, 70)))
        kind = rng.integers(4)
        if kind == 0:
            cv2.rectangle(picture, (x, y), (x + size, y + int(size * rng.uniform(0.3, 2))), colour, -1)
        elif kind == 1:
            cv2.circle(picture, (x, y), size // 2, colour, -1, cv2.LINE_AA)
        elif kind == 2:
            dx, dy = (int(v) for v in rng.integers(-90, 91, 2))
            cv2.line(picture, (x, y), (x + dx, y + dy), colour, int(rng.integers(1, 7)), cv2.LINE_AA)
        else:
            letters = "".join(chr(int(c)) for c in rng.integers(65, 91, 4))
            cv2.putText(picture, letters, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size / 45, colour, 2, cv2.LINE_AA)
    return np.clip(picture, 0.0, 1.0) ** GAMMA


PATTERNS: tuple[Callable[[np.random.Generator], Texture], ...] = (
    noise_pattern,
    checker_pattern,
    voronoi_pattern,
    poster_pattern,
)


def random_texture(rng: np.random.Generator, contrast: float = 1.0) -> Texture:
    """Draw a photo or a pattern, tint it, and pull it towards its mean by ``contrast`` (0: one plain colour)."""
    if rng.random() < 0.6:
        texture = photo_crop(rng, PHOTOS[int(rng.integers(len(PHOTOS)))])
    else:
        texture = PATTERNS[int(rng.integers(len(PATTERNS)))](rng)
    texture = texture * np.exp(rng.uniform(0.1, 0.3) * fractal_noise(rng, 0.8, largest_px=16))[..., None]
    tint = rng.uniform(0.8, 1.2, 3).astype(np.float32)
    mean = texture.mean(axis=(0, 1))
    level = float(rng.uniform(0.15, 0.45)) / max(float(mean.mean()), 1e-3)
    toned = (mean + contrast * (texture - mean)) * tint * np.clip(level, 0.5, 3.0)
    return np.clip(toned, 0.005, 1.0).astype(np.float32)


class Atlas:
    """All textures of a scene and their coarser versions in one picture, read with one call for all pixels.

    Each texture is a column of levels, every level half the size of the one above it, with a border that repeats
    its edge. Textures repeat by reflection, so they have no seams.
    """

    LEVELS = 7
    BORDER_PX = 2

    def __init__(self, textures: list[Texture]) -> None:
        """Build the atlas; ``textures`` keep their index."""
        columns = [self._column(texture) for texture in textures]
        self.picture = np.ascontiguousarray(np.concatenate(columns, axis=1), dtype=np.float32)
        self.column_px = SIDE_PX + 2 * self.BORDER_PX
        sizes = SIDE_PX >> np.arange(self.LEVELS)
        self.level_size = sizes.astype(np.float32)
        self.level_top = (np.concatenate([[0], np.cumsum(sizes + 2 * self.BORDER_PX)[:-1]])).astype(np.float32)

    def _column(self, texture: Texture) -> np.ndarray:
        levels, border = [], self.BORDER_PX
        for level in range(self.LEVELS):
            side = SIDE_PX >> level
            small = cv2.resize(texture, (side, side), interpolation=cv2.INTER_AREA)
            padded = cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_REFLECT)
            fill = SIDE_PX + 2 * border - padded.shape[1]
            levels.append(cv2.copyMakeBorder(padded, 0, 0, 0, fill, cv2.BORDER_REPLICATE))
        return np.concatenate(levels, axis=0)

    def read(
        self, index: np.ndarray, uv: Float[np.ndarray, "n 2"], level: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n 3"]:
        """Sample texture ``index`` at ``uv`` (in tiles), linearly within and between levels of detail."""
        level = np.clip(level, 0.0, self.LEVELS - 1.001).astype(np.float32)
        lower = level.astype(np.intp)
        folded = 1.0 - np.abs(np.mod(uv, 2.0) - 1.0).astype(np.float32)
        coarse = self._read_level(index, folded, lower + 1)
        fine = self._read_level(index, folded, lower)
        return fine + (level - lower)[:, None] * (coarse - fine)

    def read_one_level(self, index: int, uv: Float[np.ndarray, "n 2"], level: int) -> Float[np.ndarray, "n 3"]:
        """Sample one texture at one level of detail: for what is smooth anyway."""
        folded = 1.0 - np.abs(np.mod(uv, 2.0) - 1.0).astype(np.float32)
        return self._read_level(index, folded, level)

    def _read_level(self, index: np.ndarray | int, folded: np.ndarray, level: np.ndarray | int) -> np.ndarray:
        size = self.level_size[level]
        x = (index * self.column_px + self.BORDER_PX - 0.5 + folded[:, 0] * size).astype(np.float32)
        y = self.level_top[level] + (self.BORDER_PX - 0.5) + folded[:, 1] * size
        # OpenCV's remap takes lists of less than 32768 pixels a side: photographs come in bands shorter than that.
        return cv2.remap(self.picture, x[None], y[None], cv2.INTER_LINEAR)[0]
