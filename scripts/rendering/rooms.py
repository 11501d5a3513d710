"""A chain of furnished rooms with doors between them, some with bare walls, each with a lamp of its own."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import trimesh
from jaxtyping import Float

from rendering.places import Place
from rendering.raycast import Lamp, Light
from rendering.shapes import Part, part
from rendering.stages import Workshop, random_solid_at
from rendering.textures import Atlas, random_texture

Cell = tuple[int, int]
Opening = tuple[float, float, float]
"""Half of the width of a hole in a wall, its lower and its upper edge."""

_THICKNESS, _DOOR = 0.1, (0.75, 0.0, 2.2)
_SIDES: tuple[Cell, ...] = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class _Cover:
    """Textures of one room."""

    wall: int
    wall_tile: float
    floor: int
    solids: tuple[int, int]


def winding_cells(rng: np.random.Generator, count: int) -> list[Cell]:
    """Return the cells of a walk on a grid that meets no cell twice and turns at least once."""
    while True:
        cells, step = [(0, 0)], _SIDES[int(rng.integers(4))]
        turns = 0
        for _ in range(count - 1):
            if rng.random() < 0.5:
                step, turns = (step[1], step[0]) if rng.random() < 0.5 else (-step[1], -step[0]), turns + 1
            cells.append((cells[-1][0] + step[0], cells[-1][1] + step[1]))
        if turns > 0 and len(set(cells)) == count:
            return cells


def ring_cells(rng: np.random.Generator) -> list[Cell]:
    """Return the cells of a rectangular round trip; the first two cells come again at its end."""
    width, depth = ((2, 2), (3, 2), (2, 3), (3, 3))[int(rng.integers(4))]
    there = [(x, 0) for x in range(width)] + [(width - 1, y) for y in range(1, depth)]
    back = [(x, depth - 1) for x in range(width - 2, -1, -1)] + [(0, y) for y in range(depth - 2, 0, -1)]
    cells = there + back
    return [*cells, *cells[:2]]


class _Builder:
    """Puts up rooms on a grid, with one generator of random numbers and one set of textures."""

    def __init__(self, shop: Workshop, cells: list[Cell]) -> None:
        self.shop, self.rng, self.cells = shop, shop.rng, cells
        self.side, self.height = self.rng.uniform(4.4, 6.4), self.rng.uniform(2.6, 3.2)
        self.doors = {frozenset(pair) for pair in itertools.pairwise(cells)}
        self.parts: list[Part] = []

    def texture(self, contrast: float) -> int:
        self.shop.textures.append(random_texture(self.rng, contrast))
        return len(self.shop.textures) - 1

    def add(self, mesh: trimesh.Trimesh, texture: int, tile: float, is_movable: bool = False) -> None:
        self.parts.append(replace(part(mesh, texture, tile, self.rng), is_movable=is_movable))

    def slab(self, low: np.ndarray, high: np.ndarray, texture: int, tile: float) -> None:
        if (high - low > 1e-3).all():
            self.add(trimesh.creation.box(bounds=[low, high]), texture, tile)

    def room(self, cell: Cell) -> None:
        """Put up floor, ceiling, four walls and what stands and hangs in one room."""
        is_bare = self.rng.random() < 0.45
        cover = _Cover(
            wall=self.texture(0.04 if is_bare else self.rng.uniform(0.4, 1.0)),
            wall_tile=25.0 if is_bare else self.rng.uniform(2.0, 5.0),
            floor=self.texture(self.rng.uniform(0.3, 0.9)),
            solids=(int(self.rng.integers(0, 4)), int(self.rng.integers(4, 8))),
        )
        middle, half = np.array(cell) * self.side, self.side / 2
        low, high = np.append(middle - half, 0.0), np.append(middle + half, self.height)
        self.slab(low - [0, 0, _THICKNESS], high * [1, 1, 0], cover.floor, 3.0)
        ceiling = np.array([*low[:2], self.height])
        self.slab(ceiling, high + np.array([0, 0, _THICKNESS]), cover.wall, 25.0)
        for step in _SIDES:
            beyond = (cell[0] + step[0], cell[1] + step[1])
            has_door = frozenset((cell, beyond)) in self.doors
            opening = _DOOR if has_door else None
            if not has_door and beyond not in self.cells and self.rng.random() < 0.35:
                opening = (self.rng.uniform(0.5, 1.1), 0.9, 2.1)
            self.wall(middle, step, cover, opening)
            if opening is None:
                self.furnish_wall(middle, step, cover, is_bare)
        for corner in np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]):
            if self.rng.random() < (0.45 if is_bare else 0.85):
                self.solid(middle + corner * (half - self.rng.uniform(0.7, 1.0, 2)), cover)

    def wall(self, middle: np.ndarray, step: Cell, cover: _Cover, opening: Opening | None) -> None:
        """Put up the wall on one side of a room, with a hole for a door or a window."""
        half = self.side / 2
        hole, bottom, top = opening or (0.0, 0.0, 0.0)
        pieces = [(-half, -hole, 0.0, self.height), (hole, half, 0.0, self.height)]
        pieces += [(-hole, hole, top, self.height), (-hole, hole, 0.0, bottom)]
        for start, end, low, high in pieces:
            across = (half - _THICKNESS, half) if sum(step) > 0 else (-half, -half + _THICKNESS)
            corners = [across, (start, end)] if step[0] else [(start, end), across]
            (x0, x1), (y0, y1) = corners
            low_corner, high_corner = np.array([x0, y0, low]), np.array([x1, y1, high])
            offset = np.append(middle, 0.0)
            self.slab(offset + low_corner, offset + high_corner, cover.wall, cover.wall_tile)

    def furnish_wall(self, middle: np.ndarray, step: Cell, cover: _Cover, is_bare: bool) -> None:
        """Hang a picture on a wall or stand something before it; bare rooms have little of both."""
        outward = np.array(step, dtype=float)
        sideways = outward[::-1] * self.rng.uniform(-0.2, 0.2) * self.side
        if self.rng.random() < (0.25 if is_bare else 0.8):
            at = np.append(middle + outward * (self.side / 2 - _THICKNESS) + sideways, self.rng.uniform(1.4, 1.7))
            size = np.append(np.where(outward == 0, self.rng.uniform(0.35, 0.9), 0.04), self.rng.uniform(0.3, 0.6))
            self.slab(at - size, at + size, int(self.rng.integers(0, 4)), self.rng.uniform(0.8, 1.6))
        if self.rng.random() < (0.25 if is_bare else 0.6):
            self.solid(middle + outward * (self.side / 2 - 0.75) - sideways, cover)

    def solid(self, at: np.ndarray, cover: _Cover) -> None:
        size = self.rng.uniform(0.35, 0.75)
        mesh = random_solid_at(self.rng, size, (float(at[0]), float(at[1]), 0.0))
        self.add(mesh, cover.solids[int(self.rng.integers(2))], size * self.rng.uniform(0.7, 1.6), is_movable=True)


def build_rooms(rng: np.random.Generator, shop: Workshop, is_round_trip: bool, is_night: bool) -> Place:
    """Return a chain of rooms with the route through them; on a round trip the first two rooms come again."""
    cells = ring_cells(rng) if is_round_trip else winding_cells(rng, int(rng.integers(5, 8)))
    builder = _Builder(shop, cells)
    rooms = list(dict.fromkeys(cells))
    for cell in rooms:
        builder.room(cell)
    route = _door_to_door(cells, builder.side)
    detail, sky = shop.add_noise_texture(), shop.add_noise_texture()
    centre = np.append(route.mean(axis=0), 1.2)
    light = _room_light(rng, rooms, builder, is_night)
    return Place(tuple(builder.parts), Atlas(shop.textures), detail, sky, light, centre, 0.0, route)


def _door_to_door(cells: list[Cell], side: float) -> Float[np.ndarray, "corner 2"]:
    """Return the middles of the rooms; the route begins behind the first and ends beyond the last."""
    middles = np.array(cells, dtype=float) * side
    first = middles[0] - 0.22 * (middles[1] - middles[0])
    last = middles[-1] + 0.15 * (middles[-1] - middles[-2])
    return np.concatenate([[first], middles[1:-1], [last]])


def _room_light(rng: np.random.Generator, rooms: list[Cell], builder: _Builder, is_night: bool) -> Light:
    """Draw a lamp a room, bright or dim, and a bright sky behind the windows, or a night's."""
    warmth = np.array([1.0, 1.0, 1.0]) + rng.uniform(-0.1, 0.25) * np.array([1.0, 0.2, -1.0])
    strengths = np.exp(rng.uniform(np.log(0.15), np.log(1.8), len(rooms)))
    reach = 0.85 * builder.side
    at = [(*(np.array(cell) * builder.side).tolist(), builder.height - 0.4) for cell in rooms]
    lamps = tuple(
        Lamp((float(x), float(y), float(z)), float(strength), reach)
        for (x, y, z), strength in zip(at, strengths, strict=True)
    )
    towards = np.array([0.36, 0.48, 0.8])
    sky = (0.02 if is_night else rng.uniform(1.5, 4.0)) * np.array([[0.85, 0.9, 0.95], [0.5, 0.7, 0.95]])
    return Light(towards, 0.15 * warmth, 0.35 * warmth, sky, shadows=False, lamps=lamps)
