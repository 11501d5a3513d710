"""What moves while a capture is taken: people in the background, and cars on a road."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float

from rendering.paths import smooth_noise
from rendering.places import Place
from rendering.raycast import Camera, Stage, rays
from rendering.routes import Route
from rendering.shapes import Part, moved, part

Extras = dict[int, list[Part]]
"""Further solids in some frames, by the frame's index."""

_TALL = 1.0
"""Height of a figure before it is scaled."""


def _figure(rng: np.random.Generator) -> trimesh.Trimesh:
    """Return an upright box or a body with a head, of height 1, its feet at the origin."""
    width = rng.uniform(0.22, 0.4)
    if rng.random() < 0.3:
        return trimesh.creation.box(bounds=[[-width / 2, -0.12, 0], [width / 2, 0.12, _TALL]])
    body = trimesh.creation.cylinder(width / 2, 0.82, sections=20)
    body.apply_translation([0, 0, 0.41])
    head = trimesh.creation.icosphere(subdivisions=2, radius=0.09)
    head.apply_translation([0, 0, 0.91])
    vertices = np.concatenate([body.vertices, head.vertices])
    faces = np.concatenate([body.faces, head.faces + len(body.vertices)])
    return trimesh.Trimesh(vertices, faces, process=False)


def passers_by(
    place: Place, stage: Stage, c2w: Float[np.ndarray, "frame 4 4"], camera: Camera, rng: np.random.Generator
) -> Extras:
    """Put a figure of 3 % to 12 % of the picture's height into a few frames, far from the camera.

    One to four people come by; each is in one to three consecutive frames and walks on in between.
    """
    extras: Extras = {}
    for _ in range(int(rng.integers(1, 5))):
        first, length = int(rng.integers(len(c2w))), int(rng.integers(1, 4))
        spot = _background_spot(place, stage, c2w[first], camera, rng)
        if spot is None:
            continue
        at, distance = spot
        height = rng.uniform(0.03, 0.12) * camera.height / camera.focal * distance
        mesh = _figure(rng)
        mesh.apply_scale(height)
        figure = part(mesh, int(rng.choice(place.solid_textures)), 3.0 * height, rng)
        angle = rng.uniform(0, 2 * np.pi)
        step = 0.4 * height * np.array([np.cos(angle), np.sin(angle), 0.0])
        for number, index in enumerate(range(first, min(first + length, len(c2w)))):
            extras.setdefault(index, []).append(moved(figure, at + number * step))
    return extras


def _background_spot(
    place: Place, stage: Stage, c2w: Float[np.ndarray, "4 4"], camera: Camera, rng: np.random.Generator
) -> tuple[np.ndarray, float] | None:
    """Return a point on the ground of the background that a frame sees, and its distance; None if there is none."""
    bearings = rays(c2w, Camera(16, 12, camera.focal / camera.width * 16, 8.0, 6.0), 1).reshape(12, 16, 3)
    for _ in range(25):
        bearing = bearings[int(rng.integers(3, 10)), int(rng.integers(1, 15))].astype(float)
        reach = min(stage.hit_distance(c2w[:3, 3], bearing), 40.0)
        at = c2w[:3, 3] + 0.95 * reach * bearing
        from_camera = float(np.linalg.norm(at[:2] - c2w[:2, 3]))
        is_near_ground = at[2] - place.floor < 0.08 * reach + 0.15
        is_apart = not place.has_subject or float(np.linalg.norm(at[:2])) > 1.7
        if from_camera > 3.0 and is_near_ground and is_apart:
            return np.array([at[0], at[1], place.floor]), reach
    return None


@dataclass(frozen=True, eq=False)
class _Car:
    body: list[Part]
    lane: float
    """Distance to the left of the route."""
    place_at: Callable[[int], float]
    """Distance along the route in a frame."""


def traffic(place: Place, route: Route, along: Float[np.ndarray, " frame"], rng: np.random.Generator) -> Extras:
    """Return a car in front, at most, and cars that come towards the camera in the other lane."""
    frames = len(along)
    cars: list[_Car] = []
    if rng.random() < 0.8:
        gap = np.clip(rng.uniform(8.0, 16.0) + 2.5 * smooth_noise(rng, frames, frames / 6)[:, 0], 6.0, 30.0)
        cars.append(_Car(_car(place, rng), 0.0, lambda i, ahead=along + gap: float(ahead[i])))
    for _ in range(int(rng.integers(4, 10))):
        speed = rng.uniform(0.6, 1.3) * float(along[-1]) / frames
        meets = rng.uniform(0.0, 1.0) * frames
        start = float(np.interp(meets, np.arange(frames), along)) + speed * meets
        cars.append(_Car(_car(place, rng), 3.1, lambda i, start=start, speed=speed: start - speed * i))
    extras: Extras = {}
    for i in range(frames):
        extras[i] = [solid for car in cars for solid in _drive(car, route, i)]
    return extras


def _car(place: Place, rng: np.random.Generator) -> list[Part]:
    """Return the parts of a car that faces along the x axis: body, cabin and wheels."""
    long, wide, low = rng.uniform((3.6, 1.6, 0.7), (4.8, 1.9, 1.0))
    paint, glass, rubber = (int(texture) for texture in rng.choice(place.solid_textures, 3))
    body = trimesh.creation.box(bounds=[[-long / 2, -wide / 2, 0.3], [long / 2, wide / 2, low]])
    cabin = trimesh.creation.box(bounds=[[-0.32 * long, -0.44 * wide, low], [0.2 * long, 0.44 * wide, low + 0.6]])
    parts = [part(body, paint, 14.0, rng), part(cabin, glass, 14.0, rng)]
    for x in (-0.32 * long, 0.32 * long):
        axle = trimesh.creation.cylinder(0.32, wide + 0.04, sections=24)
        axle.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
        axle.apply_translation([x, 0, 0.32])
        parts.append(part(axle, rubber, 9.0, rng))
    return parts


def _drive(car: _Car, route: Route, frame: int) -> list[Part]:
    """Return a car's parts where it is in a frame; none far outside of the route."""
    distance = np.array([car.place_at(frame)])
    if not -15.0 < distance[0] < route.length + 40.0:
        return []
    forward = route.direction(distance)[0]
    at = route.at(distance)[0] + car.lane * np.array([-forward[1], forward[0]])
    turn = float(np.arctan2(forward[1], forward[0]))
    return [moved(solid, np.array([at[0], at[1], 0.0]), turn) for solid in car.body]
