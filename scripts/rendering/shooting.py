"""Takes the photographs of a recipe: builds the place, walks the path, exposes each frame."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from rendering import exposure, moving, paths, rooms, routes, sessions, shake, stages, streets
from rendering.places import Place
from rendering.raycast import Camera, Stage, developed
from rendering.recipes import Recipe
from rendering.stages import Workshop

_DAY_SECONDS = 86400.0


@dataclass(frozen=True)
class NaturalFault:
    """What is wrong with a frame as it came from the camera."""

    reason: str
    grade: str


@dataclass(frozen=True, eq=False)
class RenderedFrame:
    """One rendered frame."""

    pixels: UInt8[np.ndarray, "height width 3"]
    mask: Bool[np.ndarray, "height width"]
    """The subject; everything where there is no subject."""
    c2w: Float[np.ndarray, "4 4"]
    seconds: float
    """Since the first frame."""
    fault: NaturalFault | None = None


@dataclass(frozen=True, eq=False)
class _Shoot:
    """A place and the cameras in it, in the order in which the frames are taken."""

    place: Place
    c2w: Float[np.ndarray, "frame 4 4"]
    extras: moving.Extras
    shake: shake.Shake
    sessions: sessions.Sessions
    second_place: Place


@dataclass(frozen=True, eq=False)
class _Development:
    """What is done to the light of each frame."""

    gain: Float[np.ndarray, "frame 3"]
    noise: Float[np.ndarray, " frame"]


def render_frames(recipe: Recipe, frames: int, size: tuple[int, int]) -> Iterator[tuple[Camera, RenderedFrame]]:
    """Yield ``frames`` frames in the order in which they are taken; ``size`` is (width, height) in pixels."""
    rng = np.random.default_rng([recipe.seed, 2])
    focal = recipe.focal_over_width * size[0]
    if recipe.is_journey:
        place, c2w, extras = _journey(recipe, rng, frames)
        camera = _camera(rng, size, focal)
    else:
        place, extras = stages.build_place(rng, recipe.look), {}
        camera = _camera(rng, size, focal)
        if recipe.events.exposure.metering == "automatic":
            light = stages.uneven_light(place.light, recipe.look, np.random.default_rng([recipe.seed, 10]))
            place = replace(place, light=light)
        c2w = paths.hand_held(recipe.path, rng, frames, place.centre)
    shoot = _plan(recipe, place, c2w, extras, camera)
    stage = shoot.place.stage()
    second = shoot.second_place.stage() if shoot.sessions.is_second.any() else stage
    own = [second if later else stage for later in shoot.sessions.is_second]
    development = _develop_plan(recipe, shoot, own, rng)
    softness = recipe.softness_px * size[0] / 320.0 * rng.beta(1.0, 3.0, frames)
    seconds = np.cumsum(rng.uniform(0.25, 0.45, frames)) * rng.uniform(0.5, 4.0)
    seconds = seconds + _pause(recipe, shoot.sessions)
    blur_rng = np.random.default_rng([recipe.seed, 6])
    for i in range(frames):
        where = own[i]
        if shoot.extras.get(i):
            where = (shoot.second_place if shoot.sessions.is_second[i] else shoot.place).stage(shoot.extras[i])
        exposed = shake.expose(where, shoot.c2w[i], camera, (shoot.shake.extent[i], shoot.shake.direction[i]), blur_rng)
        linear = exposed.linear
        if softness[i] > 0.05:
            linear = cv2.GaussianBlur(linear, (0, 0), softness[i])
        pixels = developed(linear, development.gain[i], float(development.noise[i]), rng)
        mask = exposed.mask if shoot.place.has_subject else np.ones_like(exposed.mask)
        fault = _fault(bool(shoot.sessions.is_second[i]), exposed.extent)
        yield camera, RenderedFrame(pixels, mask, shoot.c2w[i], float(seconds[i]), fault)


def _camera(rng: np.random.Generator, size: tuple[int, int], focal: float) -> Camera:
    shift = rng.uniform(-0.01, 0.01, 2) * size[0]
    return Camera(*size, focal, size[0] / 2 + shift[0], size[1] / 2 + shift[1])


def _fault(is_second: bool, extent: float) -> NaturalFault | None:
    """Return what is wrong with a frame; that it is of another session outweighs its blur."""
    if is_second:
        return NaturalFault("foreign", "clear")
    grade = shake.grade_of(extent)
    return None if grade is None else NaturalFault("blur", grade)


def _journey(recipe: Recipe, rng: np.random.Generator, frames: int) -> tuple[Place, np.ndarray, moving.Extras]:
    """Build rooms or streets and travel through them; on a road there is traffic."""
    look, is_round_trip = recipe.look, recipe.path == "round_trip"
    shop = Workshop(rng, look)
    if look.surroundings == "rooms":
        place = rooms.build_rooms(rng, shop, is_round_trip, recipe.events.is_night)
        gait = routes.Gait(rng.uniform(1.3, 1.65), cornering=0.5, glances=int(rng.integers(1, 4)))
    elif look.surroundings == "road":
        place = streets.build_streets(rng, shop, look, streets.road_corners(rng), recipe.events.is_night)
        gait = routes.Gait(rng.uniform(1.2, 1.6), cornering=4.0, unevenness=0.15, shake=0.15)
    else:
        corners = streets.round_corners(rng) if is_round_trip else streets.winding_corners(rng)
        place = streets.build_streets(rng, shop, look, corners, recipe.events.is_night)
        gait = routes.Gait(rng.uniform(1.4, 1.7), cornering=0.8, glances=int(rng.integers(0, 3)))
    if place.route is None:
        raise ValueError(f"{look.surroundings} have no route")
    route = routes.Route(place.route, gait.cornering)
    along = routes.distances_along(route, gait, rng, frames)
    c2w = routes.travel(route, gait, along, rng)
    extras = moving.traffic(place, route, along, rng) if look.surroundings == "road" else {}
    return place, c2w, extras


def _plan(
    recipe: Recipe, place: Place, c2w: Float[np.ndarray, "frame 4 4"], extras: moving.Extras, camera: Camera
) -> _Shoot:
    """Draw what happens on the way, from generators of its own: without events the pictures stay the same."""
    events = recipe.events
    rng = np.random.default_rng([recipe.seed, 7])
    session = sessions.draw_sessions(rng, events.second_session, len(c2w))
    if events.second_session == "none":
        session = sessions.Sessions(session.order, np.zeros(len(c2w), bool), np.ones(3), 1.0)
    c2w = c2w[session.order]
    hand = shake.draw_shake(rng, c2w, events.blur_runs, events.tremor)
    c2w = shake.jerked(c2w, hand, camera, rng) if events.blur_runs else c2w
    if events.has_passers_by:
        for index, figures in moving.passers_by(place, place.stage(), c2w, camera, rng).items():
            extras.setdefault(index, []).extend(figures)
    second = sessions.second_session(place, rng, c2w[:, :3, 3]) if session.is_second.any() else place
    return _Shoot(place, c2w, extras, hand, session, second)


def _develop_plan(recipe: Recipe, shoot: _Shoot, own: list[Stage], rng: np.random.Generator) -> _Development:
    """Meter the path and return the gain and the noise of each frame."""
    settings, frames = recipe.events.exposure, len(own)
    preview = exposure.preview_camera(recipe.focal_over_width)
    every = slice(None, None, max(1, frames // 12))
    first = [
        stage.render(pose, preview, supersampling=1)[0]
        for stage, pose in zip(own[every], shoot.c2w[every], strict=True)
    ]
    fixed = recipe.brightness / max(float(np.median(np.stack(first))), 1e-4)
    drift = 2.0 ** (recipe.exposure_drift * paths.smooth_noise(rng, frames, 4.0)[:, 0])
    is_second = shoot.sessions.is_second
    noise = np.full(frames, recipe.noise)
    if settings.metering == "automatic":
        light = exposure.metered_path(own, shoot.c2w, recipe.focal_over_width, settings.spot)
        gain = exposure.automatic_gain(light, recipe.brightness, settings.adaptation, is_second)
        noise = exposure.sensor_noise(recipe.noise, gain, is_second)
    else:
        gain = fixed * drift
    colour_rng = np.random.default_rng([recipe.seed, 8])
    balance = exposure.white_balance(colour_rng, frames, settings.white_balance_drift)
    balance = np.where(is_second[:, None], balance * shoot.sessions.white_balance, balance)
    gain = np.where(is_second, gain * shoot.sessions.gain, gain)
    return _Development((gain[:, None] * balance).astype(np.float32), noise)


def _pause(recipe: Recipe, session: sessions.Sessions) -> Float[np.ndarray, " frame"]:
    """Return the seconds between the sessions, for whatever is taken after the pause."""
    if not session.is_second.any():
        return np.zeros(len(session.order))
    days = np.random.default_rng([recipe.seed, 9]).uniform(0.1, 40.0)
    after = ~session.is_second if session.is_second[0] else session.is_second
    return np.where(after, days * _DAY_SECONDS, 0.0)
