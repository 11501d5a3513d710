"""The scene of the sample capture: a painted figure on a round table, in a small gallery with a skylight."""

from dataclasses import replace

import numpy as np
import trimesh
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from rendering.paths import progress, shaken, smooth_noise
from rendering.raycast import Light, Stage
from rendering.shapes import Part, bumped, part, placed, superellipsoid, torus_knot
from rendering.textures import (
    Atlas,
    Texture,
    checker_pattern,
    fractal_noise,
    noise_pattern,
    photo_crop,
    poster_pattern,
    voronoi_pattern,
)

FLOOR, HALF_WIDTH, WALL_TOP = -0.8, 4.0, 2.9
CENTRE = np.array([0.0, 0.0, 0.62])
"""The middle of the figure."""

_PICTURES = ("rocket", "chelsea", "coins", "immunohistochemistry", "hubble_deep_field", "clock", "coffee", "text")


def _toned(texture: Texture, colour: tuple[float, float, float], level: float) -> Texture:
    """Tint a texture and bring its mean brightness to ``level`` (linear)."""
    tinted = texture * np.array(colour, dtype=np.float32)
    return np.clip(tinted * level / float(tinted.mean()), 0.005, 0.95).astype(np.float32)


class _Gallery:
    """Collects textures and parts."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.textures: list[Texture] = []
        self.parts: list[Part] = []

    def texture(self, texture: Texture, colour: tuple[float, float, float], level: float) -> int:
        mottled = texture * np.exp(0.12 * fractal_noise(self.rng, 0.8, largest_px=24))[..., None]
        self.textures.append(_toned(mottled, colour, level))
        return len(self.textures) - 1

    def add(self, mesh: trimesh.Trimesh, texture: int, tile: float, is_subject: bool = False) -> None:
        self.parts.append(part(mesh, texture, tile, self.rng, is_subject))

    def slab(self, low: tuple[float, ...], high: tuple[float, ...], texture: int, tile: float) -> None:
        self.add(trimesh.creation.box(bounds=[low, high]), texture, tile)

    def noise(self) -> int:
        grey = np.clip(0.5 + 0.15 * fractal_noise(self.rng), 0.0, 1.0).astype(np.float32)
        self.textures.append(np.repeat(grey[..., None], 3, axis=2))
        return len(self.textures) - 1


def _upright(z: float = 0.0, degrees: float = 0.0) -> Rotation:
    return Rotation.from_euler("zx", [z, degrees], degrees=True)


def _add_figure(scene: _Gallery) -> None:
    """Stack a plinth, a bellied pot with a ring around its neck, and a knot; lay a ball, a cone and a block beside."""
    rng = scene.rng
    stone = scene.texture(voronoi_pattern(rng), (1.0, 0.9, 0.75), 0.30)
    glaze = scene.texture(photo_crop(rng, "coffee"), (1.0, 0.95, 0.9), 0.28)
    clay = scene.texture(noise_pattern(rng), (1.0, 0.55, 0.35), 0.30)
    paint = scene.texture(poster_pattern(rng), (0.8, 0.95, 1.0), 0.32)
    coins = scene.texture(photo_crop(rng, "coins"), (1.0, 0.92, 0.7), 0.3)
    gravel = scene.texture(photo_crop(rng, "gravel"), (0.85, 1.0, 0.9), 0.3)
    pot = bumped(superellipsoid(1.1, 0.9), rng, 0.04)
    ring = trimesh.creation.torus(0.7, 0.22, major_sections=96, minor_sections=32)
    solids = [
        (trimesh.creation.cylinder(0.5, 0.3, sections=72), 0.52, _upright(), (0.0, 0.0, 0.0), stone, 0.6),
        (pot, 0.46, _upright(20), (0.0, 0.0, 0.24), glaze, 0.7),
        (ring, 0.33, _upright(0, 6), (0.0, 0.0, 0.86), clay, 0.4),
        (torus_knot(2, 3, 0.24), 0.34, _upright(35, 80), (0.0, 0.0, 0.93), paint, 0.45),
        (trimesh.creation.icosphere(subdivisions=4), 0.2, _upright(10), (0.72, 0.35, 0.0), coins, 0.4),
        (trimesh.creation.cone(0.6, 1.3, sections=64), 0.3, _upright(), (-0.55, 0.6, 0.0), gravel, 0.4),
        (trimesh.creation.box([1.0, 1.4, 0.8]), 0.26, _upright(28), (-0.35, -0.75, 0.0), paint, 0.5),
    ]
    for mesh, size, turn, at, texture, tile in solids:
        scene.add(placed(mesh, size, turn, np.array(at)), texture, tile, is_subject=True)


def _add_room(scene: _Gallery) -> None:
    """Put up table, floor, walls without a ceiling, framed pictures, and chests along the walls."""
    rng, half = scene.rng, HALF_WIDTH
    wood = scene.texture(noise_pattern(rng), (1.0, 0.72, 0.45), 0.22)
    parquet = scene.texture(checker_pattern(rng), (1.0, 0.8, 0.6), 0.22)
    brick = scene.texture(np.rot90(photo_crop(rng, "brick", turned=False)), (1.0, 0.85, 0.75), 0.3)
    plaster = scene.texture(noise_pattern(rng), (0.95, 1.0, 0.92), 0.38)
    dark = scene.texture(voronoi_pattern(rng), (0.5, 0.6, 0.8), 0.12)
    table = trimesh.creation.cylinder(1.25, 0.08, sections=96)
    scene.add(placed(table, 1.25, _upright(), np.array([0.0, 0.0, -0.08])), wood, 1.6)
    scene.add(placed(trimesh.creation.cylinder(0.2, 0.74), 0.42, _upright(), np.array([0, 0, FLOOR])), dark, 0.6)
    scene.slab((-half, -half, FLOOR - 0.1), (half, half, FLOOR), parquet, 3.0)
    for axis, side, texture in ((0, -1, brick), (0, 1, plaster), (1, -1, plaster), (1, 1, brick)):
        low, high = [-half, -half, FLOOR], [half, half, WALL_TOP]
        low[axis], high[axis] = sorted((side * half, side * (half + 0.1)))
        scene.slab(tuple(low), tuple(high), texture, 3.2)
    _add_pictures(scene, dark)
    for angle in np.radians([40.0, 130.0, 222.0, 318.0]):
        at = np.array([3.9 * np.cos(angle), 3.9 * np.sin(angle), FLOOR])
        chest = trimesh.creation.box([1.0, 1.0, rng.uniform(0.7, 1.6)])
        scene.add(placed(chest, rng.uniform(0.6, 0.8), _upright(np.degrees(angle)), at), dark, 1.0)


def _add_pictures(scene: _Gallery, frame: int) -> None:
    """Hang two framed pictures on each wall, upright and whole."""
    for number, name in enumerate(_PICTURES):
        texture = scene.texture(photo_crop(scene.rng, name, turned=False), (1.0, 1.0, 1.0), 0.3)
        axis, side, along = number // 2 % 2, 1 if number >= 4 else -1, -1.6 + 3.2 * (number % 2)
        z = float(scene.rng.uniform(0.75, 1.05))
        scene.slab(*_on_wall(axis, side, along, z, size=0.92, depth=0.04), frame, 1.6)
        low, high = _on_wall(axis, side, along, z, size=0.8, depth=0.06)
        scene.slab(low, high, texture, 1.6)
        scene.parts[-1] = _whole_picture(scene.parts[-1], axis, side, np.array(low), np.array(high))


def _on_wall(
    axis: int, side: int, along: float, z: float, size: float, depth: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the corners of a square of half-width ``size`` that stands out ``depth`` from a wall."""
    low, high = [0.0] * 3, [0.0] * 3
    low[axis], high[axis] = sorted((side * (HALF_WIDTH - depth), side * HALF_WIDTH))
    low[1 - axis], high[1 - axis] = along - size, along + size
    low[2], high[2] = z - size, z + size
    return tuple(low), tuple(high)


def _whole_picture(slab: Part, axis: int, side: int, low: np.ndarray, high: np.ndarray) -> Part:
    """Fit one tile of the texture to a slab, left to right as seen from inside the room."""
    share = (slab.vertices[slab.faces] - low) / (high - low)
    across = share[..., 1 - axis]
    mirrored = (axis == 0) == (side > 0)
    return replace(slab, corner_uv=np.stack([1.0 - across if mirrored else across, 1.0 - share[..., 2]], axis=-1))


def build_gallery(seed: int) -> Stage:
    """Return the gallery, ready to be photographed."""
    scene = _Gallery(np.random.default_rng([seed, 10]))
    _add_figure(scene)
    _add_room(scene)
    detail, sky = scene.noise(), scene.noise()
    towards_sun = np.array([0.42, -0.30, 0.86]) / np.linalg.norm([0.42, -0.30, 0.86])
    light = Light(
        towards_sun=towards_sun,
        sun=np.array([1.15, 1.05, 0.9]),
        ambient=np.array([0.8, 0.85, 0.95]),
        sky=np.array([[0.85, 0.9, 0.95], [0.6, 0.75, 0.95]]),
    )
    return Stage(scene.parts, Atlas(scene.textures), detail, sky, light)


def gallery_path(seed: int, frames: int) -> Float[np.ndarray, "frame 4 4"]:
    """Walk a little more than once around the table, phone in hand, raising and lowering it on the way."""
    rng = np.random.default_rng([seed, 11])
    along = progress(rng, frames, unevenness=0.2)
    angle = np.radians(25.0 + 395.0 * along)
    radius = 2.45 + 0.12 * smooth_noise(rng, frames, frames / 7)[:, 0]
    height = 1.25 + 0.45 * np.sin(2.0 * np.pi * (1.4 * along - 0.1)) + 0.08 * smooth_noise(rng, frames, 5.0)[:, 0]
    positions = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    return shaken(positions, np.tile(CENTRE, (frames, 1)), rng)
