"""Streets between houses with corners on the way: narrow ones for walks, wide ones for drives."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import trimesh
from jaxtyping import Float

from rendering.places import Place
from rendering.raycast import Lamp, Light
from rendering.shapes import Part, part
from rendering.stages import Look, Workshop, lighting, random_solid_at
from rendering.textures import Atlas, random_texture

Corners = Float[np.ndarray, "corner 2"]


@dataclass(frozen=True)
class Layout:
    """Dimensions of a street, in metres."""

    setback: tuple[float, float]
    """Distance of the houses from the middle of the route."""
    kerb: float
    """Distance of what stands on the pavement from the middle of the route."""
    spacing: tuple[float, float]
    """Between the things on the pavement."""


WALK = Layout(setback=(3.0, 4.4), kerb=1.9, spacing=(3.0, 8.0))
DRIVE = Layout(setback=(7.0, 10.0), kerb=5.2, spacing=(4.0, 12.0))


def winding_corners(rng: np.random.Generator) -> Corners:
    """Return the corners of a walk of three or four legs that turns left and right by turns."""
    legs = int(rng.integers(3, 5))
    turn = rng.choice([-1.0, 1.0])
    corners, step = [np.zeros(2)], np.array([1.0, 0.0])
    for leg in range(legs):
        corners.append(corners[-1] + step * rng.uniform(13.0, 22.0))
        side = turn if leg % 2 == 0 else -turn
        step = side * np.array([-step[1], step[0]])
    return np.stack(corners)


def round_corners(rng: np.random.Generator) -> Corners:
    """Return the corners of a walk around a block that ends a few metres beyond its beginning."""
    width, depth = rng.uniform(13.0, 20.0, 2)
    start = rng.uniform(0.3, 0.6) * width
    overlap = min(start + rng.uniform(3.0, 6.0), width - 1.0)
    block = np.array([[start, 0], [width, 0], [width, depth], [0, depth], [0, 0], [overlap, 0]])
    return block * np.array([1.0, rng.choice([-1.0, 1.0])])


def road_corners(rng: np.random.Generator) -> Corners:
    """Return the corners of a drive: straight on, or with one turn."""
    first = rng.uniform(60.0, 110.0)
    if rng.random() < 0.5:
        return np.array([[0.0, 0.0], [first, 0.0]])
    return np.array([[0.0, 0.0], [0.6 * first, 0.0], [0.6 * first, rng.choice([-1.0, 1.0]) * rng.uniform(35.0, 55.0)]])


class _Builder:
    """Builds along a route of legs that are parallel to the axes."""

    def __init__(self, shop: Workshop, route: Corners, layout: Layout) -> None:
        self.shop, self.rng, self.route, self.layout = shop, shop.rng, route, layout
        self.fronts = [self._texture(self.rng.uniform(0.5, 1.0)) for _ in range(6)]
        self.fronts += [self._texture(0.08) for _ in range(2)]
        self.parts: list[Part] = []

    def _texture(self, contrast: float) -> int:
        self.shop.textures.append(random_texture(self.rng, contrast))
        return len(self.shop.textures) - 1

    def _add(self, mesh: trimesh.Trimesh, texture: int, tile: float, is_movable: bool = False) -> None:
        self.parts.append(replace(part(mesh, texture, tile, self.rng), is_movable=is_movable))

    def legs(self) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Yield beginning, unit direction and length of each leg, both ends prolonged."""
        for start, end in itertools.pairwise(self.route):
            length = float(np.linalg.norm(end - start))
            direction = (end - start) / length
            beyond = self.layout.setback[1] + 8.0
            yield start - direction * beyond, direction, length + 2 * beyond

    def clearance(self, low: np.ndarray, high: np.ndarray) -> float:
        """Return how far a rectangle on the ground stays from the route."""
        dense = np.concatenate(
            [a + np.linspace(0, 1, 80)[:, None] * (b - a) for a, b in itertools.pairwise(self.route)]
        )
        outside = np.maximum(np.maximum(low - dense, dense - high), 0.0)
        return float(np.linalg.norm(outside, axis=1).min())

    def houses(self, start: np.ndarray, direction: np.ndarray, length: float) -> None:
        """Line both sides of a leg with houses, except where they would stand in the way."""
        for side in (-1.0, 1.0):
            outward = side * np.array([-direction[1], direction[0]])
            along = self.rng.uniform(0.0, 2.0)
            while along < length:
                front, deep, height = self.rng.uniform((3.5, 3.0, 2.6), (8.0, 6.0, 9.0))
                near = start + direction * along + outward * self.rng.uniform(*self.layout.setback)
                ends = np.stack([near, near + direction * front + outward * deep])
                low, high = ends.min(axis=0), ends.max(axis=0)
                if self.clearance(low, high) > 0.85 * self.layout.setback[0]:
                    box = trimesh.creation.box(bounds=[np.append(low, 0.0), np.append(high, height)])
                    texture = self.fronts[int(self.rng.integers(len(self.fronts)))]
                    is_bare = texture in self.fronts[-2:]
                    self._add(box, texture, 25.0 if is_bare else self.rng.uniform(2.0, 5.0))
                along += front + self.rng.uniform(0.0, 1.2)

    def pavement(self, start: np.ndarray, direction: np.ndarray, length: float) -> None:
        """Stand solids and trees along both kerbs."""
        for side in (-1.0, 1.0):
            outward = side * np.array([-direction[1], direction[0]])
            along = self.rng.uniform(*self.layout.spacing)
            while along < length:
                size = self.rng.uniform(0.3, 0.7)
                at = start + direction * along + outward * (self.layout.kerb + self.rng.uniform(0.0, 0.6))
                along += self.rng.uniform(*self.layout.spacing)
                if self.clearance(at - size, at + size) < 0.6:
                    continue
                if self.rng.random() < 0.3:
                    self.tree(at)
                    continue
                mesh = random_solid_at(self.rng, size, (float(at[0]), float(at[1]), 0.0))
                self._add(mesh, int(self.rng.integers(0, 8)), size * self.rng.uniform(0.7, 1.6), is_movable=True)

    def tree(self, at: np.ndarray) -> None:
        """Plant a trunk with a round crown."""
        height, crown = self.rng.uniform(1.8, 2.8), self.rng.uniform(0.7, 1.2)
        trunk = trimesh.creation.cylinder(0.1, height, sections=16)
        trunk.apply_translation([*at, height / 2])
        ball = trimesh.creation.icosphere(subdivisions=3, radius=crown)
        ball.apply_translation([*at, height + 0.6 * crown])
        self._add(trunk, int(self.rng.integers(0, 8)), 0.7)
        self._add(ball, int(self.rng.integers(0, 8)), 1.2)


def build_streets(rng: np.random.Generator, shop: Workshop, look: Look, route: Corners, is_night: bool) -> Place:
    """Return streets along a route, lit by the sun or, at night, by lamps."""
    builder = _Builder(shop, route, DRIVE if look.surroundings == "road" else WALK)
    ground = trimesh.creation.box(bounds=[[-250, -250, -0.1], [250, 250, 0.0]])
    builder.parts.append(part(ground, int(rng.integers(4, 8)), 3.5, rng))
    for leg in builder.legs():
        builder.houses(*leg)
        builder.pavement(*leg)
    detail, sky = shop.add_noise_texture(), shop.add_noise_texture()
    light = lighting(rng, look)
    if is_night:
        light = night_light(rng, light, route)
    centre = np.append(route.mean(axis=0), 1.2)
    return Place(tuple(builder.parts), Atlas(shop.textures), detail, sky, light, centre, 0.0, route)


def night_light(rng: np.random.Generator, day: Light, route: Corners) -> Light:
    """Return a dark sky, a little moonlight and street lamps along a route."""
    lamps = []
    for start, end in itertools.pairwise(route):
        for share in np.arange(0.1, 1.0, 11.0 / float(np.linalg.norm(end - start))):
            x, y = start + share * (end - start) + rng.uniform(-1.5, 1.5, 2)
            lamps.append(Lamp((float(x), float(y), 3.8), rng.uniform(1.2, 2.4), 10.0))
    moon, ambient = 0.06 * day.sun, 0.12 * day.ambient
    return replace(day, sun=moon, ambient=ambient, sky=0.03 * day.sky, lamps=tuple(lamps))
