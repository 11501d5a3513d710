"""A second session at the same place: some solids have moved, and the light is another."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from rendering.places import Place
from rendering.raycast import Light
from rendering.shapes import Part, moved, part
from rendering.stages import random_solid_at

Placement = Literal["none", "beginning", "end", "spread"]
"""Which part of the path the second session covers: its beginning, its end, or frames all along it, taken last."""

_CLEARANCE = 0.6
"""Distance that what is moved or added keeps from the cameras, beside its own size."""


@dataclass(frozen=True, eq=False)
class Sessions:
    """The frames of a capture by session, in the order in which they are taken."""

    order: np.ndarray
    """Index into the path of each frame."""
    is_second: Bool[np.ndarray, " frame"]
    white_balance: Float[np.ndarray, "3"]
    """Gains of the second session."""
    gain: float
    """Brightness of the second session over that of the first."""


def draw_sessions(rng: np.random.Generator, placement: Placement, frames: int) -> Sessions:
    """Draw 10 % to 35 % of the frames for the second session."""
    is_second = np.zeros(frames, dtype=bool)
    order = np.arange(frames)
    count = round(rng.uniform(0.1, 0.35) * frames)
    if placement == "beginning":
        is_second[:count] = True
    elif placement == "end":
        is_second[frames - count :] = True
    elif placement == "spread":
        late = np.sort(rng.permutation(frames)[:count])
        order = np.concatenate([np.setdiff1d(order, late), late])
        is_second[frames - count :] = True
    warmth = rng.choice([-1.0, 1.0]) * rng.uniform(0.18, 0.35)
    balance = np.exp(np.array([warmth, 0.0, -warmth]))
    return Sessions(order, is_second, balance, float(np.exp(rng.choice([-1.0, 1.0]) * rng.uniform(0.15, 0.55))))


def second_session(place: Place, rng: np.random.Generator, cameras: Float[np.ndarray, "frame 3"]) -> Place:
    """Return the place with two to four solids, or a third of very many, moved, removed or added, in another light.

    What moves stays clear of all ``cameras``. The first part, on which others may stand, stays as it is.
    """
    parts = list(place.parts)
    movable = [i for i, solid in enumerate(parts) if solid.is_movable and i > 0]
    # A change of what is in few pictures would not tell: what many cameras are close to goes first.
    by_distance = sorted(movable, key=lambda i: float(np.median(_gap(parts[i], cameras))))
    nearest = by_distance[: max(6, len(movable) // 2)] if place.has_subject else movable
    most = max(int(rng.integers(2, 5)), 0 if place.has_subject else len(movable) // 3)
    chosen = rng.permutation(nearest)[:most]
    removed, added = set(), []
    for index in chosen.tolist():
        kind = int(rng.integers(3))
        shifted = _shifted(parts[index], rng, cameras)
        if kind == 0 or shifted is None:
            removed.add(index)
        elif kind == 1:
            parts[index] = shifted
        else:
            added.append(_another(place, shifted, rng))
    kept = tuple(solid for i, solid in enumerate(parts) if i not in removed)
    return replace(place, parts=(*kept, *added), light=other_light(place.light, rng))


def _gap(solid: Part, cameras: Float[np.ndarray, "frame 3"]) -> Float[np.ndarray, " frame"]:
    """Return how far each camera is, on the ground, from the middle of a solid."""
    return np.linalg.norm(cameras[:, :2] - solid.vertices[:, :2].mean(axis=0), axis=1)


def _radius(solid: Part) -> float:
    ground = solid.vertices[:, :2]
    return float(np.linalg.norm(ground - ground.mean(axis=0), axis=1).max())


def _shifted(solid: Part, rng: np.random.Generator, cameras: Float[np.ndarray, "frame 3"]) -> Part | None:
    """Return a solid one to three times its radius away; None if every try would stand in a camera's way."""
    radius = _radius(solid)
    for _ in range(12):
        angle, distance = rng.uniform(0, 2 * np.pi), radius * rng.uniform(1.0, 3.0)
        candidate = moved(solid, np.array([np.cos(angle), np.sin(angle), 0.0]) * distance)
        if _gap(candidate, cameras).min() > radius + _CLEARANCE:
            return candidate
    return None


def _another(place: Place, beside: Part, rng: np.random.Generator) -> Part:
    """Return a new solid of about the same size where ``beside`` is."""
    size = _radius(beside) * rng.uniform(0.8, 1.1)
    x, y = beside.vertices[:, :2].mean(axis=0)
    mesh = random_solid_at(rng, size, (float(x), float(y), float(beside.vertices[:, 2].min())))
    texture = int(rng.choice(place.solid_textures))
    return replace(part(mesh, texture, size * rng.uniform(0.7, 1.6), rng, beside.is_subject), is_movable=True)


def other_light(light: Light, rng: np.random.Generator) -> Light:
    """Return a light from another direction, with another share of direct light and another sky."""
    turn = rng.uniform(0.6, 1.4) * np.pi
    x, y, z = light.towards_sun
    cos, sin = np.cos(turn), np.sin(turn)
    direct = np.exp(rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.0))
    lamps = tuple(replace(lamp, strength=lamp.strength * float(np.exp(rng.normal(0, 0.5)))) for lamp in light.lamps)
    return replace(
        light,
        towards_sun=np.array([cos * x - sin * y, sin * x + cos * y, z]),
        sun=direct * light.sun,
        sky=light.sky * np.exp(rng.normal(0, 0.25, (1, 3)) + rng.uniform(-0.5, 0.3)),
        lamps=lamps,
    )
