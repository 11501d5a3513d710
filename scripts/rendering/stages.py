"""What stands around the camera: a subject, and a room, a street, a field or a plain backdrop about it."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from rendering.places import Place
from rendering.raycast import Lamp, Light
from rendering.shapes import Part, bumped, part, placed, random_solid
from rendering.textures import Atlas, Texture, fractal_noise, random_texture

Surroundings = Literal["room", "outdoor", "street", "plain", "field", "tabletop", "open", "rooms", "town", "road"]

TEXTURES = 8
"""Textures in a scene, beside the noise that breaks up their repetition."""

CAMERA_ZONE = 4.0
"""Camera paths stay within this distance of the z axis (all but the walk down a street)."""


@dataclass(frozen=True)
class Look:
    """How a scene looks, apart from what stands in it."""

    surroundings: Surroundings
    contrast: float
    """Contrast of the textures of the surroundings: 1 as they are, 0 plain."""
    subject_contrast: float = 1.0
    subject_size: float = 0.8
    """Radius of the subject's largest solid, in the scene's units."""
    shadows: bool = True


def random_solid_at(rng: np.random.Generator, size: float, at: tuple[float, float, float]) -> trimesh.Trimesh:
    """Return a random solid of radius ``size``, turned, bumped now and then, with its lowest point at height ``at``."""
    mesh = random_solid(rng)
    if rng.random() < 0.5 and len(mesh.vertices) > 500:
        mesh = bumped(mesh, rng, 0.05)
    turn = Rotation.from_euler("zyx", [rng.uniform(0, 360), *rng.uniform(-25, 25, 2)], degrees=True)
    return placed(mesh, size, turn, np.array(at))


class Workshop:
    """Draws textured parts, all from one generator of random numbers."""

    def __init__(self, rng: np.random.Generator, look: Look) -> None:
        """Draw the scene's textures: the first half for the subject, the second half for what stands around."""
        half = TEXTURES // 2
        self.rng = rng
        self.textures: list[Texture] = [random_texture(rng, look.subject_contrast) for _ in range(half)]
        self.textures += [random_texture(rng, look.contrast) for _ in range(TEXTURES - half)]

    def add_noise_texture(self) -> int:
        """Append a grey noise of mean ½ and return its index."""
        grey = np.clip(0.5 + 0.2 * fractal_noise(self.rng), 0.0, 1.0).astype(np.float32)
        self.textures.append(np.repeat(grey[..., None], 3, axis=2))
        return len(self.textures) - 1

    def part(self, mesh: trimesh.Trimesh, tile: tuple[float, float], is_subject: bool = False) -> Part:
        """Cover a mesh with one of the textures, ``tile`` (from, to) units of the world a tile."""
        half = TEXTURES // 2
        texture = int(self.rng.integers(0, half)) if is_subject else int(self.rng.integers(half, TEXTURES))
        return part(mesh, texture, self.rng.uniform(*tile), self.rng, is_subject)

    def solid(self, size: float, at: tuple[float, float, float], is_subject: bool = False) -> Part:
        """Set a random solid, bumped now and then, of radius ``size`` on the point ``at``."""
        mesh = random_solid_at(self.rng, size, at)
        return replace(self.part(mesh, (0.7 * size, 1.6 * size), is_subject), is_movable=True)

    def slab(self, low: tuple[float, float, float], high: tuple[float, float, float], tile: float) -> Part:
        """Put up a box between two corners: a wall, a floor, a table."""
        return self.part(trimesh.creation.box(bounds=[low, high]), (0.8 * tile, 1.25 * tile))

    def ring(self, count: int, radius: tuple[float, float], size: tuple[float, float], floor: float) -> list[Part]:
        """Set ``count`` solids around the z axis, outside of ``radius[0]`` whatever their size."""
        parts = []
        for angle in np.linspace(0, 2 * np.pi, count, endpoint=False) + self.rng.uniform(0, 1, count):
            big = self.rng.uniform(*size)
            distance = self.rng.uniform(*radius) + big
            parts.append(self.solid(big, (distance * np.cos(angle), distance * np.sin(angle), floor)))
        return parts


def subject(shop: Workshop, size: float) -> list[Part]:
    """Compose one to four solids at the origin; all stay within a radius of about 1.3."""
    rng = shop.rng
    parts = [shop.solid(size, (0.0, 0.0, 0.0), is_subject=True)]
    height = float(parts[0].vertices[:, 2].max())
    if rng.random() < 0.7:
        parts.append(shop.solid(size * rng.uniform(0.4, 0.6), (0.0, 0.0, height * 0.92), is_subject=True))
    for _ in range(int(rng.integers(0, 3))):
        angle = rng.uniform(0, 2 * np.pi)
        at = (0.85 * size * np.cos(angle), 0.85 * size * np.sin(angle), 0.0)
        parts.append(shop.solid(size * rng.uniform(0.25, 0.5), at, is_subject=True))
    return parts


def _room(shop: Workshop, floor: float = 0.0) -> list[Part]:
    half, top = shop.rng.uniform(4.8, 6.0), floor + shop.rng.uniform(3.6, 4.6)
    walls = [
        shop.slab((-half - 0.1, -half, floor), (-half, half, top), 6.0),
        shop.slab((half, -half, floor), (half + 0.1, half, top), 6.0),
        shop.slab((-half, -half - 0.1, floor), (half, -half, top), 6.0),
        shop.slab((-half, half, floor), (half, half + 0.1, top), 6.0),
        shop.slab((-half, -half, top), (half, half, top + 0.1), 6.0),
        shop.slab((-half, -half, floor - 0.1), (half, half, floor), 4.0),
    ]
    return walls + shop.ring(int(shop.rng.integers(4, 10)), (CAMERA_ZONE, CAMERA_ZONE + 0.2), (0.3, 0.7), floor)


def _outdoor(shop: Workshop) -> list[Part]:
    ground = shop.slab((-120, -120, -0.1), (120, 120, 0.0), 4.0)
    near = shop.ring(int(shop.rng.integers(4, 9)), (CAMERA_ZONE, 6.0), (0.4, 1.0), 0.0)
    return [ground, *near, *shop.ring(int(shop.rng.integers(6, 14)), (7.0, 14.0), (1.5, 4.0), 0.0)]


def _open(shop: Workshop) -> list[Part]:
    """Put a few solids at a middle distance and large ones far away."""
    ground = shop.slab((-160, -160, -0.1), (160, 160, 0.0), 5.0)
    middle = shop.ring(int(shop.rng.integers(3, 8)), (8.0, 13.0), (0.6, 1.6), 0.0)
    return [ground, *middle, *shop.ring(int(shop.rng.integers(10, 18)), (22.0, 48.0), (4.0, 11.0), 0.0)]


def _street(shop: Workshop) -> list[Part]:
    parts = [shop.slab((-120, -120, -0.1), (120, 120, 0.0), 3.5)]
    for side in (-1.0, 1.0):
        x = -9.0
        while x < 9.0:
            length, depth, height = shop.rng.uniform((0.8, 0.5, 0.7), (2.4, 1.5, 3.5))
            y = side * shop.rng.uniform(1.5, 2.4)
            low, high = (x, min(y, y + side * depth), 0.0), (x + length, max(y, y + side * depth), height)
            parts.append(shop.slab(low, high, 1.8))
            x += length + shop.rng.uniform(0.1, 0.8)
    return [*parts, shop.slab((11, -6, 0), (12, 6, 5), 3.0)]


def _field(shop: Workshop) -> list[Part]:
    parts = [shop.slab((-16, -16, -0.1), (16, 16, 0.0), 4.0)]
    for _ in range(int(shop.rng.integers(25, 50))):
        x, y = shop.rng.uniform(-7, 7, 2)
        if np.hypot(x, y) > 1.5:
            parts.append(shop.solid(shop.rng.uniform(0.2, 0.8), (x, y, 0.0)))
    return parts


def _tabletop(shop: Workshop) -> list[Part]:
    return [shop.slab((-1.4, -1.4, -0.12), (1.4, 1.4, 0.0), 1.4), *_room(shop, floor=-0.9)]


def around(shop: Workshop, surroundings: Surroundings) -> list[Part]:
    """Build everything but the subject."""
    if surroundings == "tabletop":
        return _tabletop(shop)
    builders = {"room": _room, "plain": _room, "outdoor": _outdoor, "open": _open}
    builders |= {"street": _street, "field": _field}
    return builders[surroundings](shop)


def lighting(rng: np.random.Generator, look: Look) -> Light:
    """Draw a sun or a lamp, more or less of it direct, warm or cold. Rooms are lit from everywhere."""
    indoors = look.surroundings in ("room", "plain", "tabletop")
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.3)
    towards = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    warmth = np.array([1.0, 1.0, 1.0]) + rng.uniform(-0.15, 0.2) * np.array([1.0, 0.2, -1.0])
    direct = 0.0 if indoors else rng.uniform(0.4, 2.0)
    sky = np.stack([rng.uniform(0.5, 0.9, 3), rng.uniform((0.1, 0.2, 0.4), (0.4, 0.6, 0.9))])
    if indoors:
        # The ceiling would shade everything: what a lamp adds is a brighter upper side, without cast shadows.
        return Light(towards, 0.6 * warmth, 0.8 * warmth, sky, shadows=False)
    return Light(towards, direct * warmth, np.array([0.75, 0.85, 1.0]), sky, look.shadows)


def uneven_light(light: Light, look: Look, rng: np.random.Generator) -> Light:
    """Return a light that makes one side of a place brighter than the other by a stop or more.

    Rooms get a lamp as large as a window before one wall, other places a lower and stronger sun and a brighter sky.
    """
    azimuth = rng.uniform(0, 2 * np.pi)
    if look.surroundings in ("room", "plain", "tabletop"):
        lamp = Lamp((4.0 * np.cos(azimuth), 4.0 * np.sin(azimuth), rng.uniform(1.0, 2.2)), rng.uniform(1.5, 3.5), 8.0)
        return replace(light, ambient=0.4 * light.ambient, sun=0.4 * light.sun, lamps=(lamp,))
    height = rng.uniform(0.3, 0.7)
    towards = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    sun = light.sun / light.sun.mean() * rng.uniform(1.5, 3.0)
    return replace(
        light, towards_sun=towards, sun=sun, ambient=0.5 * light.ambient, sky=light.sky * rng.uniform(1.0, 2.5)
    )


def build_place(rng: np.random.Generator, look: Look) -> Place:
    """Return a subject and what stands about it, with its light."""
    shop = Workshop(rng, look)
    subject_parts = subject(shop, look.subject_size)
    everything = subject_parts + around(shop, look.surroundings)
    detail, sky = shop.add_noise_texture(), shop.add_noise_texture()
    corners = np.concatenate([p.vertices for p in subject_parts])
    centre = 0.5 * (corners.min(axis=0) + corners.max(axis=0))
    floor = -0.9 if look.surroundings == "tabletop" else 0.0
    return Place(tuple(everything), Atlas(shop.textures), detail, sky, lighting(rng, look), centre, floor)
