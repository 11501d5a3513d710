"""Where each frame was taken from, in words: "three-quarter left, looking down, close-up".

Definitions. Cameras stand about a subject where most of them look at one point (``look_at.look_at_point``); wrong and
far-away poses have no say in where that is. Then, with angles in degrees:

- azimuth: of the camera's place about the subject, across the vertical, 0 at the front, positive to the right of
  somebody who stands at the front and looks at the subject. The front is the frame that the user gives, else the one
  that looks into the subject's face (``front``), else the middle of where the cameras stand, or, where they stand all
  around, the first frame.
  |azimuth| ≤ 22.5 "front", ≤ 67.5 "three-quarter left/right", ≤ 112.5 "left/right side",
  ≤ 157.5 "three-quarter back left/right", else "back".
- elevation: of the camera's place above the subject's level. Above 65 "from above" and below −65 "from below" stand
  in the place of the azimuth, which means little there.
- pitch: of the line of sight. Below −20 "looking down", above 20 "looking up" (not said with "from above/below").
- miss: between the line of sight and the line to the subject. Above 45 "looking away".
- distance: from the subject over the median distance. Below 0.6 "close-up", above 1.6 "far away".
- roll: of the picture's upright against the world's. Above 20 "tilted", above 135 "upside down"; not said where the
  line of sight is within 20 of the vertical.

Where the cameras do not look at one point (a walk, a flight, a panorama), the azimuth is that of the line of sight
against the path's direction, or against the user's front frame where one is given, or, where nobody moves, against
the middle of all views: |azimuth| ≤ 45 "looking ahead", ≤ 135 "looking left/right", else "looking back"; a pitch below
−65 is "straight down", above 65 "straight up", in its place. Pitch and roll are as above.

Up is found from how the cameras are held, and is the world's own axis where one stands upright
(``look_at.up_direction``). A flight that looks straight down and never turns cannot be told from a walk along a wall,
and is labelled like one. Moving or scaling the world changes no label; nor does turning it, but for labels at a limit
where an axis was the vertical.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mtcm_nerfstudio.geometry.poses import canonical_frame, far_away, nearest_rotation
from mtcm_nerfstudio.views.labels.look_at import (
    angle_between,
    directions,
    find_subject,
    first_agreed,
    up_direction,
    upright,
)

_STEEP = 65.0
_PITCHED = 20.0
_AWAY = 45.0
_CLOSE, _FAR = 0.6, 1.6
_TILTED, _UPSIDE_DOWN = 20.0, 135.0


@dataclass(frozen=True, eq=False)
class ViewAngles:
    """The numbers behind the words, one a frame, NaN where a frame has no pose; see the module for definitions."""

    azimuth: Float[np.ndarray, " n"]
    """Degrees in (−180, 180], positive to the right."""
    pitch: Float[np.ndarray, " n"]
    """Degrees in [−90, 90], positive upwards."""
    roll: Float[np.ndarray, " n"]
    """Degrees in (−180, 180]."""
    elevation: Float[np.ndarray, " n"] | None = None
    """Degrees in [−90, 90]; None where there is no subject, as are the next two."""
    miss: Float[np.ndarray, " n"] | None = None
    """Degrees in [0, 180]."""
    distance: Float[np.ndarray, " n"] | None = None
    """In medians of all distances."""


def pose_labels(
    c2w: Float[np.ndarray, "n 4 4"], front: int | None = None, real: Bool[np.ndarray, " n"] | None = None
) -> tuple[str | None, ...]:
    """Say where each frame was taken from; None for a frame whose pose is not finite.

    Args:
        c2w: OpenGL camera-to-world matrices in temporal order, in any world; rows with NaN have no pose.
        front: index of the frame that sees the front.
        real: frames that have a say in where the subject and the path are. Default: all.

    Raises:
        ValueError: there is no frame ``front``, or it has no pose.
    """
    angles = view_angles(c2w, front, real)
    return tuple(_compose_label(angles, i) if np.isfinite(angles.azimuth[i]) else None for i in range(len(c2w)))


def view_angles(
    c2w: Float[np.ndarray, "n 4 4"], front: int | None = None, real: Bool[np.ndarray, " n"] | None = None
) -> ViewAngles:
    """Measure where each frame was taken from; arguments and errors are those of ``pose_labels``."""
    posed = np.isfinite(c2w).all(axis=(1, 2))
    reference = posed if real is None else posed & real
    if front is not None and not (0 <= front < len(c2w) and posed[front]):
        raise ValueError(f"front={front}: the frame that sees the front must be one of {len(c2w)} and have a pose")
    if not reference.any():
        nothing = np.full(len(c2w), np.nan)
        return ViewAngles(nothing, nothing, nothing)
    clean = c2w[posed].astype(np.float64)
    clean[:, :3, :3] = nearest_rotation(clean[:, :3, :3])
    trusted = reference[posed]
    trusted[trusted] = ~far_away(clean[trusted, :3, 3])
    clean[:, :3, :3] = _upright_as(clean[:, :3, :3], trusted)
    front_camera = None if front is None else clean[int(posed[:front].sum())]
    about = _about_subject(clean, trusted, front_camera) or _along_path(clean, trusted, front_camera)
    return _spread(about, posed)


def _upright_as(rotation: Float[np.ndarray, "n 3 3"], trusted: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "n 3 3"]:
    """Stand all frames up in the way that those which have a say are to be (see ``look_at.upright``)."""
    turn = rotation[trusted][:1].transpose(0, 2, 1) @ upright(rotation[trusted])[:1]
    return rotation @ turn


def _about_subject(
    c2w: Float[np.ndarray, "n 4 4"], trusted: Bool[np.ndarray, " n"], front_camera: Float[np.ndarray, "4 4"] | None
) -> ViewAngles | None:
    subject = find_subject(c2w[trusted], front_camera)
    if subject is None:
        return None
    away = c2w[:, :3, 3] - subject.point
    distance = np.linalg.norm(away, axis=1)
    elevation = 90.0 - angle_between(away, subject.up[None])
    azimuth = _turn(directions(away, subject.up), subject.front, subject.up, seen_from_outside=True)
    miss = angle_between(-c2w[:, :3, 2], -away)
    return ViewAngles(azimuth, *_pitch_and_roll(c2w, subject.up), elevation, miss, distance / subject.distance)


def _along_path(
    c2w: Float[np.ndarray, "n 4 4"], trusted: Bool[np.ndarray, " n"], front_camera: Float[np.ndarray, "4 4"] | None
) -> ViewAngles:
    up = up_direction(c2w[trusted])
    sight = directions(-c2w[:, :3, 2], up)
    ahead = _headings(c2w, trusted, up) if front_camera is None else directions(-front_camera[None, :3, 2], up)
    return ViewAngles(_turn(sight, ahead, up), *_pitch_and_roll(c2w, up))


def _headings(
    c2w: Float[np.ndarray, "n 4 4"], trusted: Bool[np.ndarray, " n"], up: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "n 3"]:
    """Return in which direction the path goes at each frame: from the middle place before it to the one after it.

    The middles are over a twentieth of the frames, three at least and 25 at most. Where they lie within a hundredth
    of the capture's unit of each other, above each other, or are missing, it is the middle direction of all views.
    """
    n, reach = len(c2w), int(np.clip(len(c2w) // 20, 3, 25))
    position = np.where(trusted[:, None], c2w[:, :3, 3], np.nan)
    before = np.stack([_middle(position[max(0, i - reach) : i + 1]) for i in range(n)])
    after = np.stack([_middle(position[i : i + reach + 1]) for i in range(n)])
    step = np.nan_to_num(after - before)
    along = directions(step, up)
    everybody = first_agreed([directions(-c2w[trusted, :3, 2], up)], up)
    moves = np.linalg.norm(step - np.outer(step @ up, up), axis=1) > 0.01 * canonical_frame(c2w[trusted]).unit
    return np.where((moves & along.any(axis=1))[:, None], along, everybody)


def _middle(positions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3"]:
    """Return the one of the places that is nearest to all the others; NaN where there is none."""
    there = positions[np.isfinite(positions[:, 0])]
    if len(there) == 0:
        return np.full(3, np.nan)
    return there[np.linalg.norm(there[:, None] - there[None], axis=2).sum(axis=1).argmin()]


def _turn(
    towards: Float[np.ndarray, "n 3"], zero: Float[np.ndarray, "*n 3"], up: Float[np.ndarray, "3"],
    seen_from_outside: bool = False,
) -> Float[np.ndarray, " n"]:  # fmt: skip
    """Return the angle about ``up`` from ``zero`` to ``towards``, in degrees, positive to the right of a viewer.

    A viewer who looks along ``zero`` has ``zero`` × up at their right; one who looks back along it, from outside, has
    that at their left.
    """
    right = np.cross(zero, up) * (-1.0 if seen_from_outside else 1.0)
    return np.degrees(np.arctan2((towards * right).sum(axis=-1), (towards * zero).sum(axis=-1)))


def _pitch_and_roll(
    c2w: Float[np.ndarray, "n 4 4"], up: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    x, y, z = np.moveaxis(c2w[:, :3, :3], 2, 0)
    return 90.0 - angle_between(-z, up[None]), np.degrees(np.arctan2(x @ up, y @ up))


def _spread(angles: ViewAngles, posed: Bool[np.ndarray, " n"]) -> ViewAngles:
    """Put the values of posed frames in their places among all frames."""

    def spread(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " n"]:
        out = np.full(len(posed), np.nan)
        out[posed] = values
        return out

    always = spread(angles.azimuth), spread(angles.pitch), spread(angles.roll)
    if angles.elevation is None or angles.miss is None or angles.distance is None:
        return ViewAngles(*always)
    return ViewAngles(*always, spread(angles.elevation), spread(angles.miss), spread(angles.distance))


def _compose_label(angles: ViewAngles, i: int) -> str:
    azimuth, pitch, roll = angles.azimuth[i], angles.pitch[i], angles.roll[i]
    if angles.elevation is None or angles.miss is None or angles.distance is None:
        steep = abs(pitch) > _STEEP
        parts = ["straight down" if pitch < 0 else "straight up"] if steep else [_heading_label(azimuth)]
    else:
        elevation, distance = angles.elevation[i], angles.distance[i]
        steep = abs(elevation) > _STEEP
        parts = ["from above" if elevation > 0 else "from below"] if steep else [_azimuth_label(azimuth)]
        parts += ["looking away"] * bool(angles.miss[i] > _AWAY)
        parts += ["close-up"] * bool(distance < _CLOSE) + ["far away"] * bool(distance > _FAR)
    if not steep and abs(pitch) > _PITCHED:
        parts.insert(1, "looking down" if pitch < 0 else "looking up")
    if abs(pitch) < 90.0 - 20.0 and abs(roll) > _TILTED:
        parts.append("upside down" if abs(roll) > _UPSIDE_DOWN else "tilted")
    return ", ".join(parts)


def _azimuth_label(azimuth: float) -> str:
    side = "right" if azimuth > 0 else "left"
    parts = ("front", f"three-quarter {side}", f"{side} side", f"three-quarter back {side}", "back")
    return parts[_step(azimuth, 22.5, 45.0)]


def _heading_label(azimuth: float) -> str:
    side = "right" if azimuth > 0 else "left"
    return ("looking ahead", f"looking {side}", "looking back")[_step(azimuth, 45.0, 90.0)]


def _step(azimuth: float, first: float, width: float) -> int:
    """Count the limits first, first + width … beyond |azimuth|; rounded, since exact turntables stand on them."""
    return max(0, math.ceil((round(abs(azimuth), 4) - first) / width))
