"""Corruptions that the benchmarks judge with: made in other ways than those in training, to keep the figures honest.

``mtcm_nerfstudio.capture.faults`` makes the corruptions that the checkpoint is trained with. Nothing here imports it
and nothing there imports this: what a method learned by heart about the training's blur kernels, exposure tables and
painted occluders does not help it here. Light is sRGB-decoded, cameras shake along curves or turn, apertures are
polygons, exposure passes through a camera's response and its sensor's noise, and occluders are made of photos that
scikit-image ships with. Sizes are shares of the image's longer side or of the capture's spread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias, get_args

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from PIL import Image
from scipy.spatial.transform import Rotation
from typing_extensions import assert_never

PoseKind = Literal["swap", "pose_10", "pose_3", "pose_1", "moved_run"]
ImageKind = Literal["motion_blur", "defocus", "exposure", "occluder", "foreign"]
Kind = Literal[PoseKind, ImageKind]
Reason = Literal["pose", "blur", "exposure", "occlusion", "foreign"]

POSE_KINDS: tuple[PoseKind, ...] = get_args(PoseKind)
KINDS: tuple[Kind, ...] = (
    "swap", "pose_10", "pose_3", "pose_1", "motion_blur", "defocus", "exposure", "occluder", "foreign",
)  # fmt: skip
"""The kinds of the figure; ``moved_run`` is reported alone."""
REASON_OF: Mapping[Kind, Reason] = {
    **dict.fromkeys(POSE_KINDS, "pose"),
    "motion_blur": "blur",
    "defocus": "blur",
    "exposure": "exposure",
    "occluder": "occlusion",
    "foreign": "foreign",
}
"""The reason that a verdict about the frame should give."""

_SALT = 0x6A756467
"""Part of every seed, so that no stream of random numbers is one that training uses."""
_TURN_AND_SHIFT: Mapping[Kind, tuple[float, float]] = {
    "pose_10": (10.0, 0.10),
    "pose_3": (3.0, 0.05),
    "pose_1": (1.0, 0.02),
}
"""Mean angle in degrees, and mean shift in spreads."""
_RUN_LENGTH = (4, 12)

Linear: TypeAlias = Float32[np.ndarray, "h w 3"]
"""Linear light; 1 is the brightest value that is stored."""
_USUAL_MEAN = 0.2
"""Linear light of an image exposed as usual, on average."""
Polygons: TypeAlias = list[Float[np.ndarray, "vertex 2"]]
"""Outlines as (x, y) in longer sides of the image, from its upper left corner."""


@dataclass(frozen=True)
class Corruption:
    """What is wrong with one frame."""

    frame: int
    """Index into the capture's frames."""
    kind: Kind
    seed: int
    """Decides everything else. The two frames of a swap share theirs, so do the frames of a moved run."""

    @property
    def reason(self) -> Reason:
        """The reason that a verdict about the frame should give."""
        return REASON_OF[self.kind]

    def rng(self) -> np.random.Generator:
        """Return the corruption's own stream of random numbers, from its start."""
        return np.random.default_rng([_SALT, self.seed])


# Which frames get which corruption


def plan_corruptions(
    n_frames: int, c2w: Float[np.ndarray, "n 4 4"], kinds: Sequence[Kind], share: float, rng: np.random.Generator
) -> tuple[Corruption, ...]:
    """Draw corruptions for a share of the frames, at most one a frame, the kinds as evenly as they divide.

    Args:
        n_frames: frames of the capture.
        c2w: their poses; rows of NaN stand for frames without one, which get no pose corruption.
        kinds: the kinds to draw from; ``moved_run`` only alone, which gives one run of 4 to 12 frames.
        share: of the frames to corrupt, in [0, 1].
        rng: decides everything.

    Returns:
        Corruptions in the order of their frames; fewer than asked for where too few frames have a pose.

    Raises:
        ValueError: the share lies outside [0, 1], no kind is given, ``moved_run`` is mixed with others, or there is no
            run of four frames with a pose.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    if not kinds:
        raise ValueError("no kind of corruption to draw from")
    posed = np.isfinite(c2w).all(axis=(1, 2))
    count = round(share * n_frames)
    if "moved_run" in kinds:
        if set(kinds) != {"moved_run"}:
            raise ValueError(f"moved_run is drawn alone, got {', '.join(kinds)}")
        return _plan_run(posed, count, rng)
    counts = _divide(count, kinds, rng)
    planned: dict[int, Corruption] = {}
    for _ in range(counts.pop("swap", 0) // 2):
        pair, seed = _draw_far_pair(c2w, posed, rng), int(rng.integers(2**31))
        posed[pair] = False
        planned.update({int(i): Corruption(int(i), "swap", seed) for i in pair})
    for kind in sorted(counts, key=lambda kind: kind not in POSE_KINDS):
        free = [i for i in range(n_frames) if i not in planned and (posed[i] or kind not in POSE_KINDS)]
        for i in rng.permutation(free)[: counts[kind]]:
            planned[int(i)] = Corruption(int(i), kind, int(rng.integers(2**31)))
    return tuple(planned[i] for i in sorted(planned))


def _divide(count: int, kinds: Sequence[Kind], rng: np.random.Generator) -> dict[Kind, int]:
    """Divide frames among kinds, the rest at random; swaps get an even number, rounded up as often as down."""
    unique = list(dict.fromkeys(kinds))
    order = [unique[i] for i in rng.permutation(len(unique))]
    counts: dict[Kind, int] = {kind: count // len(order) + (i < count % len(order)) for i, kind in enumerate(order)}
    others: list[Kind] = [kind for kind in order if kind != "swap"]
    if counts.get("swap", 0) % 2:
        up = bool(others) and count > 1 and rng.random() < 0.5
        counts["swap"] += 1 if up else -1
        if others:
            other = (max if up else min)(others, key=lambda kind: counts[kind])
            counts[other] += -1 if up else 1
    return counts


def _draw_far_pair(
    c2w: Float[np.ndarray, "n 4 4"], free: Bool[np.ndarray, " n"], rng: np.random.Generator
) -> Int[np.ndarray, " k"]:
    """Draw a free frame and one of the third of the free frames that see the least like it; none if none are left."""
    candidates = rng.permutation(np.flatnonzero(free))
    if len(candidates) < 2:
        return candidates[:0]
    first, others = candidates[0], candidates[1:]
    away = np.linalg.norm(c2w[others, :3, 3] - c2w[first, :3, 3], axis=1) / spread_of(c2w)
    turned = np.arccos(np.clip(c2w[others, :3, 2] @ c2w[first, :3, 2], -1.0, 1.0))
    farthest = np.argsort(away + 2.0 * turned)[-max(1, len(others) // 3) :]
    return np.array([first, others[rng.choice(farthest)]])


def _plan_run(posed: Bool[np.ndarray, " n"], count: int, rng: np.random.Generator) -> tuple[Corruption, ...]:
    """Draw one run of consecutive posed frames, as long as asked for within limits, else as long as there is one."""
    for length in range(int(np.clip(count, *_RUN_LENGTH)), _RUN_LENGTH[0] - 1, -1):
        starts = [i for i in range(len(posed) - length + 1) if posed[i : i + length].all()]
        if starts:
            start, seed = int(rng.choice(starts)), int(rng.integers(2**31))
            return tuple(Corruption(i, "moved_run", seed) for i in range(start, start + length))
    raise ValueError(f"a moved run needs {_RUN_LENGTH[0]} consecutive frames with a pose, the capture has none")


# Poses


def corrupt_poses(c2w: Float[np.ndarray, "n 4 4"], corruptions: Sequence[Corruption]) -> Float[np.ndarray, "n 4 4"]:
    """Return the poses with all pose corruptions applied; those of images change nothing here.

    Swapped frames exchange poses. ``pose_10``, ``pose_3`` and ``pose_1`` turn a camera about an axis of its own by
    10°, 3° or 1° and shift it by 10%, 5% or 2% of the spread, each size 25% more or less. A moved run turns by 8° to
    60° about one of its cameras and shifts by 0.15 to 1 spread.

    Raises:
        ValueError: a frame of a pose corruption has no pose, or a swap has not two frames.
    """
    out, spread = c2w.copy(), spread_of(c2w)
    groups: dict[tuple[Kind, int], list[Corruption]] = {}
    for one in corruptions:
        if one.kind in POSE_KINDS:
            groups.setdefault((one.kind, one.seed), []).append(one)
    for (kind, _), group in groups.items():
        frames, rng = np.array([one.frame for one in group]), group[0].rng()
        if not np.isfinite(c2w[frames]).all():
            raise ValueError(f"frames {frames.tolist()} get a {kind}, and not all of them have a pose")
        if kind == "swap":
            if len(frames) != 2:
                raise ValueError(f"a swap needs two frames, got {frames.tolist()}")
            out[frames] = c2w[frames[::-1]]
        elif kind == "moved_run":
            angle, shift = rng.uniform(8.0, 60.0), rng.uniform(0.15, 1.0) * spread
            out[frames] = _moved(c2w[frames], angle, shift, c2w[rng.choice(frames), :3, 3], rng)
        else:
            for i in frames:
                angle, shift = np.array(_TURN_AND_SHIFT[kind]) * rng.uniform(0.75, 1.25, 2)
                out[i] = _moved(c2w[i : i + 1], angle, shift * spread, c2w[i, :3, 3], rng)[0]
    return out


def spread_of(c2w: Float[np.ndarray, "n 4 4"]) -> float:
    """Return the median distance of the posed cameras from their median position, 1 where all stand on one point."""
    positions = c2w[np.isfinite(c2w).all(axis=(1, 2)), :3, 3]
    if not len(positions):
        return 1.0
    distances = np.linalg.norm(positions - np.median(positions, axis=0), axis=1)
    return float(np.median(distances)) or float(distances.mean()) or 1.0


def _moved(
    c2w: Float[np.ndarray, "n 4 4"],
    angle_degrees: float,
    shift: float,
    pivot: Float[np.ndarray, "3"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "n 4 4"]:
    """Turn poses together about a random axis through a point, then shift them in a random direction."""
    axis, direction = (vector / np.linalg.norm(vector) for vector in rng.standard_normal((2, 3)))
    rotation = Rotation.from_rotvec(np.radians(angle_degrees) * axis).as_matrix()
    out = c2w.copy()
    out[:, :3, :3] = rotation @ c2w[:, :3, :3]
    out[:, :3, 3] = (c2w[:, :3, 3] - pivot) @ rotation.T + pivot + shift * direction
    return out


# Images


def corrupt_image(image: Image.Image, corruption: Corruption, donor: Image.Image | None = None) -> Image.Image:
    """Return the RGB image with a corruption, in its own size.

    Args:
        image: any size.
        corruption: of an image, not of a pose.
        donor: a frame of another capture, which ``foreign`` shows instead.

    Raises:
        ValueError: the corruption is one of poses, or ``foreign`` has no donor.
    """
    rng, linear = corruption.rng(), _to_linear(image)
    longer = max(image.size)
    match corruption.kind:
        case "motion_blur":
            extent_px = _log_uniform(0.007, 0.04, rng) * longer
            blur = shake_blur if rng.random() < 0.65 else turn_blur
            return _to_image(blur(_restore_highlights(linear, rng), extent_px, rng), rng)
        case "defocus":
            kernel = aperture_kernel(_log_uniform(0.0035, 0.018, rng) * longer, rng)
            return _to_image(_filter(_restore_highlights(linear, rng), kernel), rng)
        case "exposure":
            stops = -rng.uniform(0.9, 3.0) if rng.random() < 0.5 else rng.uniform(0.8, 2.5)
            return _to_image(expose(linear, stops, rng), rng)
        case "occluder":
            return _to_image(occlude(linear, rng), rng)
        case "foreign":
            if donor is None:
                raise ValueError(f"frame {corruption.frame} shows another capture, and no donor is given")
            return replace_by(donor, linear, rng)
        case _:
            raise ValueError(f"a {corruption.kind} corrupts a pose, not an image")


def shake_blur(linear: Linear, extent_px: float, rng: np.random.Generator) -> Linear:
    """Blur by a hand's shake: the same curved path of uneven speed everywhere, its diameter ``extent_px``."""
    return _filter(linear, shake_kernel(extent_px, rng))


def shake_kernel(extent_px: float, rng: np.random.Generator) -> Float32[np.ndarray, "side side"]:
    """Return the point-spread function of a random camera shake; weights sum to 1, centred on the mean position.

    Heading and log speed are random walks, as in Boracchi and Foi, "Modeling the performance of image restoration
    from motion blur", TIP 2012; now and then the hand jerks back.
    """
    steps = 1000
    walk = rng.standard_normal((2, steps)).cumsum(axis=1) / np.sqrt(steps)
    heading = rng.uniform(0.0, 2 * np.pi) + rng.uniform(0.3, 1.8) * walk[0]
    if rng.random() < 0.3:
        heading[int(rng.uniform(0.3, 0.8) * steps) :] += rng.uniform(2.0, 3.6)
    speed = np.exp(rng.uniform(0.3, 1.2) * walk[1])
    path = np.cumsum(speed * np.stack([np.cos(heading), np.sin(heading)]), axis=1)
    hull = cv2.convexHull(path.T.astype(np.float32))[:, 0]
    diameter = np.linalg.norm(hull[:, None] - hull[None], axis=-1).max()
    x, y = (path - path.mean(axis=1, keepdims=True)) * extent_px / diameter
    reach, fine = int(np.ceil(extent_px)) + 1, 4
    side, half = 2 * reach + 1, reach + 0.5
    counts = np.histogram2d(y, x, bins=fine * side, range=[[-half, half], [-half, half]])[0].astype(np.float32)
    counts = cv2.GaussianBlur(counts, (0, 0), 0.4 * fine)
    kernel = cv2.resize(counts, (side, side), interpolation=cv2.INTER_AREA)
    return kernel / kernel.sum()


def turn_blur(linear: Linear, extent_px: float, rng: np.random.Generator) -> Linear:
    """Blur by a turn about a point in or near the image, with a little zoom: pixels move by ``extent_px`` on average.

    The mean over 2^k steps of the turn is made of k warps, each with half the turn of the one before. Uneven weights
    of the two halves are uneven speed.
    """
    height, width = linear.shape[:2]
    x, y = rng.uniform(-0.3, 1.3) * width, rng.uniform(-0.3, 1.3) * height
    mean_square = (width**2 + height**2) / 12 + (x - width / 2) ** 2 + (y - height / 2) ** 2
    angle = float(np.degrees(extent_px / np.sqrt(mean_square))) * rng.choice([-1, 1])
    log_zoom = np.radians(angle) * rng.normal(0.0, 0.4)
    out = _warp_about(linear, (x, y), -0.5 * angle, float(np.exp(-0.5 * log_zoom)))
    for i in range(1, 8):
        turned = _warp_about(out, (x, y), angle / 2**i, float(np.exp(log_zoom / 2**i)))
        weight = float(rng.uniform(0.3, 0.7))
        out = cv2.addWeighted(out, 1.0 - weight, turned, weight, 0.0)
    return out


def aperture_kernel(radius_px: float, rng: np.random.Generator) -> Float32[np.ndarray, "side side"]:
    """Return the image of a point out of focus: a polygon of 5 to 8 blades, its rim darker or brighter; sum 1."""
    blades, phase = int(rng.integers(5, 9)), rng.uniform(0.0, 2 * np.pi)
    reach, fine = int(np.ceil(radius_px)) + 1, 8
    corners = phase + 2 * np.pi * np.arange(blades) / blades
    middle = fine * (2 * reach + 1) / 2 - 0.5
    polygon = middle + fine * radius_px * np.stack([np.cos(corners), np.sin(corners)], axis=1)
    side = fine * (2 * reach + 1)
    shape = np.zeros((side, side), dtype=np.float32)
    cv2.fillPoly(shape, [np.round(16 * polygon).astype(np.int32)], (1.0,), shift=4)
    y, x = np.mgrid[:side, :side] - middle
    shape *= 1.0 + rng.uniform(-0.4, 0.6) * np.hypot(x, y).astype(np.float32) / (fine * radius_px)
    shape = cv2.GaussianBlur(shape, (0, 0), 0.4 * fine)
    kernel = cv2.resize(shape, (2 * reach + 1, 2 * reach + 1), interpolation=cv2.INTER_AREA)
    return kernel / kernel.sum()


def expose(linear: Linear, stops: float, rng: np.random.Generator) -> Linear:
    """Take the image again with 2^stops times the light, through a camera's response y = (1 + k) x / (k + x).

    Undo the response, multiply, add noise and flare, clip at the sensor's limit, apply the response again. Dark images
    show shot and read noise; bright ones lose their highlights and bloom.
    """
    k = rng.uniform(0.4, 2.5)
    light = k * linear / (1.0 + k - linear)
    if stops < 0:
        light = _restore_highlights(light, rng) * np.float32(2.0**stops)
        full_well, read = _log_uniform(1500.0, 12000.0, rng), rng.uniform(0.0004, 0.002)
        noise = cv2.GaussianBlur(rng.standard_normal(light.shape, dtype=np.float32), (0, 0), rng.uniform(0.4, 0.7))
        light = light + noise * np.sqrt(light / full_well + read**2)
    else:
        light = light * np.float32(2.0**stops)
        excess = np.clip(light - 1.0, 0.0, 3.0)
        light = light + rng.uniform(0.02, 0.12) * _blurred(excess, rng.uniform(0.01, 0.05) * max(light.shape))
    light = np.clip(light, 0.0, 1.0)
    return (1.0 + k) * light / (k + light)


def replace_by(donor: Image.Image, linear: Linear, rng: np.random.Generator) -> Image.Image:
    """Return a random crop of the donor in the image's size, half the time with the image's mean brightness."""
    height, width = linear.shape[:2]
    aspect = width / height * _log_uniform(0.93, 1.07, rng)
    scale = np.sqrt(rng.uniform(0.45, 1.0))
    crop_width = scale * min(donor.width, donor.height * aspect)
    crop_height = crop_width / aspect
    left, top = rng.uniform(0.0, donor.width - crop_width), rng.uniform(0.0, donor.height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    crop = donor.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, box=box)
    if rng.random() < 0.5:
        return crop
    light = _to_linear(crop)
    gain = float(np.clip(linear.mean() / max(float(light.mean()), 1e-4), 0.2, 5.0))
    return _to_image(gain * light, rng)


# Occluders


Material = Literal["photo", "wall", "cloth", "plain", "skin", "hair", "leaves"]


@dataclass(frozen=True)
class _Part:
    """One piece of an occluder."""

    outline: Callable[[float], Polygons]
    """Its outline for a size of the whole occluder; a larger one covers more."""
    material: Material


@dataclass(frozen=True)
class _Occluder:
    """Something between the camera and its subject."""

    parts: tuple[_Part, ...]
    """From back to front."""
    share: tuple[float, float]
    """The least and the most of the image that it covers."""
    softness: tuple[float, float]
    """Standard deviation of its blur, in longer sides: the nearer to the lens, the softer."""


def occlude(linear: Linear, rng: np.random.Generator) -> Linear:
    """Put a finger, a passer-by, poles or branches, or a panel in front of 8% to 45% of the image."""
    height, width = linear.shape[:2]
    aspect = np.array([width, height]) / max(width, height)
    make = (_finger, _passer_by, _poles, _branch, _panel)[int(rng.choice(5, p=(0.28, 0.25, 0.12, 0.1, 0.25)))]
    occluder = make(aspect, rng)
    size = _size_for_share(occluder, aspect, rng.uniform(*occluder.share))
    sigma = _log_uniform(*occluder.softness, rng) * max(width, height)
    cover, alpha = np.zeros_like(linear), np.zeros((height, width), dtype=np.float32)
    illumination = float(np.clip(linear.mean() / _USUAL_MEAN, 0.3, 1.3)) * _log_uniform(0.4, 1.2, rng)
    for part in occluder.parts:
        mask = _rasterise(part.outline(size), (width, height))
        x, y, w, h = cv2.boundingRect((mask > 0).astype(np.uint8))
        if w and h:
            box = np.s_[y : y + h, x : x + w]
            material = illumination * _material(part.material, (w, h), rng)
            cover[box] += mask[box][..., None] * (material - cover[box])
            alpha[box] += mask[box] * (1.0 - alpha[box])
    # Blurred together with its mask, an occluder's edge mixes with what is behind it, not with black.
    cover, alpha = (_blurred(each, sigma) for each in (cover, alpha))
    return cover + (1.0 - alpha[..., None]) * linear


def _size_for_share(occluder: _Occluder, aspect: Float[np.ndarray, "2"], share: float) -> float:
    """Return the size at which the occluder covers a share of the image, by bisection on a coarse raster."""
    width, height = (int(n) for n in np.round(192 * aspect))
    low, high = 0.0, 6.0
    for _ in range(14):
        middle = 0.5 * (low + high)
        polygons = [polygon for part in occluder.parts for polygon in part.outline(middle)]
        covered = float(_rasterise(polygons, (width, height)).mean())
        low, high = (middle, high) if covered < share else (low, middle)
    return high


def _finger(aspect: Float[np.ndarray, "2"], rng: np.random.Generator) -> _Occluder:
    """Return a finger over an edge or a corner, far out of focus."""
    turn = rng.uniform(0.0, 2 * np.pi)
    outward = np.array([np.cos(turn), np.sin(turn)])
    edge = aspect * np.clip(0.5 + 0.75 * outward, 0.0, 1.0)
    inward = 0.5 * aspect - edge + rng.normal(0.0, 0.12, 2)
    inward /= np.linalg.norm(inward)
    across = np.array([-inward[1], inward[0]])
    length, taper = rng.uniform(0.4, 1.6), rng.uniform(0.75, 0.95)
    angles = np.linspace(0.5 * np.pi, -0.5 * np.pi, 40)
    tip = np.cos(angles)[:, None] * inward * rng.uniform(0.9, 1.3) + np.sin(angles)[:, None] * across
    shape = np.concatenate([tip * taper + length * inward, [-across - 3.0 * inward, across - 3.0 * inward]])
    return _Occluder((_Part(lambda size: [edge + 0.3 * size * shape], "skin"),), (0.08, 0.30), (0.008, 0.035))


def _passer_by(aspect: Float[np.ndarray, "2"], rng: np.random.Generator) -> _Occluder:
    """Return a person from behind or the side who reaches the lower edge, cut at the hips or lower."""
    x, cut, lean = aspect[0] * rng.uniform(0.12, 0.88), rng.uniform(0.42, 0.85), rng.normal(0.0, 0.05)
    build, swing, stride = rng.uniform(0.85, 1.3), rng.uniform(0.0, 0.05), rng.uniform(0.0, 0.08)

    def placed(outline: list[tuple[float, float]]) -> Callable[[float], Polygons]:
        points = _rounded(np.array(outline) * [build, 1.0])
        points[:, 0] += lean * (0.6 - points[:, 1])
        return lambda size: [np.array([x, aspect[1]]) + size * (points - [0.0, cut])]

    turns = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
    head = [(0.045 * np.cos(t) / build, 0.08 + 0.068 * np.sin(t)) for t in turns]
    neck = [(-0.028, 0.10), (0.028, 0.10), (0.04, 0.175), (-0.04, 0.175)]
    torso = [
        (-0.035, 0.150), (0.035, 0.150), (0.105, 0.175), (0.135, 0.235), (0.150 + swing, 0.40), (0.145 + swing, 0.52),
        (0.105 + swing, 0.52), (0.105, 0.40), (0.112, 0.56), (-0.112, 0.56), (-0.105, 0.40), (-0.105 - swing, 0.52),
        (-0.145 - swing, 0.52), (-0.150 - swing, 0.40), (-0.135, 0.235), (-0.105, 0.175),
    ]  # fmt: skip
    legs = [
        (-0.108, 0.52), (0.108, 0.52), (0.10 + stride, 0.78), (0.085 + stride, 1.1), (0.015 + stride, 1.1),
        (0.0, 0.62), (-0.015 - stride, 1.1), (-0.085 - stride, 1.1), (-0.10 - stride, 0.78),
    ]  # fmt: skip
    parts = (
        _Part(placed(neck), "skin"),
        _Part(placed(head), "hair"),
        _Part(placed(legs), "cloth"),
        _Part(placed(torso), "cloth" if rng.random() < 0.75 else "photo"),
    )
    return _Occluder(parts, (0.14, 0.45), (0.001, 0.006))


def _poles(aspect: Float[np.ndarray, "2"], rng: np.random.Generator) -> _Occluder:
    """Return one to three poles or rails across the whole image."""
    steep = rng.random() < 0.75
    count = int(rng.integers(1, 4))
    places = (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count
    widths, tilt = rng.uniform(0.6, 1.4, count) / count, rng.normal(0.0, 0.15)

    def outline(size: float) -> Polygons:
        along, sides = np.array([-1.0, 1.0, 2.0]), 0.08 * size * widths
        quads = [np.array([(-s, along[0]), (s, along[0]), (s, along[2]), (-s, along[2])]) for s in sides]
        for quad, place in zip(quads, places, strict=True):
            quad[:, 0] += place * (aspect[0] if steep else aspect[1]) + tilt * (quad[:, 1] - 0.5)
        return [quad if steep else quad[:, ::-1] for quad in quads]

    return _Occluder((_Part(outline, "plain" if rng.random() < 0.7 else "wall"),), (0.08, 0.18), (0.002, 0.015))


def _branch(aspect: Float[np.ndarray, "2"], rng: np.random.Generator) -> _Occluder:
    """Return a branch with leaves that hangs in from the upper or a side edge."""
    root = aspect * [rng.uniform(0.0, 1.0), -0.05] if rng.random() < 0.6 else aspect * [-0.05, rng.uniform(0.0, 0.6)]
    twigs: list[tuple[np.ndarray, np.ndarray, float]] = []
    ends = [(root, np.arctan2(*(aspect * [0.5, 0.6] - root)[::-1]), rng.uniform(0.5, 0.8), 1.0)]
    for _ in range(4):
        grown = []
        for start, heading, length, thickness in ends:
            end = start + length * rng.uniform(0.6, 1.1) * np.array([np.cos(heading), np.sin(heading)])
            twigs.append((start, end, thickness))
            for side in (-1.0, 1.0):
                fork = start + rng.uniform(0.4, 1.0) * (end - start)
                grown.append((fork, heading + side * rng.uniform(0.2, 0.8), 0.62 * length, 0.6 * thickness))
        ends = grown
    anchors = [(start + rng.uniform() * (end - start), rng.uniform(0, np.pi)) for start, end, _ in twigs[1:] * 10]

    def wood(size: float) -> Polygons:
        return [_segment(start, end, 0.02 * size * thickness) for start, end, thickness in twigs]

    def leaves(size: float) -> Polygons:
        return [_ellipse(anchor, 0.035 * size, 0.014 * size, angle) for anchor, angle in anchors]

    return _Occluder((_Part(wood, "hair"), _Part(leaves, "leaves")), (0.08, 0.22), (0.002, 0.012))


def _panel(aspect: Float[np.ndarray, "2"], rng: np.random.Generator) -> _Occluder:
    """Return a large sign, book or wall in perspective, often cut by the image's edge, with or without a margin."""
    middle = aspect * (0.5 + rng.choice([-1, 1], 2) * rng.uniform(0.1, 0.5, 2))
    shape = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) * [rng.uniform(0.7, 1.6), 1.0]
    shape *= 1.0 + rng.normal(0.0, 0.08, (4, 1))
    turn = rng.normal(0.0, 0.2)
    shape = shape @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    inner = rng.uniform(0.8, 0.95)
    face = _Part(lambda size: [middle + inner * size * shape], "photo" if rng.random() < 0.6 else "wall")
    frame = _Part(lambda size: [middle + size * shape], "plain")
    return _Occluder((frame, face), (0.15, 0.45), (0.0006, 0.012))


def _rounded(polygon: Float[np.ndarray, "vertex 2"]) -> Float[np.ndarray, "more 2"]:
    """Cut the corners of a polygon twice (Chaikin's algorithm)."""
    for _ in range(2):
        following = np.roll(polygon, -1, axis=0)
        polygon = np.stack([0.75 * polygon + 0.25 * following, 0.25 * polygon + 0.75 * following], 1).reshape(-1, 2)
    return polygon


def _segment(start: np.ndarray, end: np.ndarray, half_width: float) -> Float[np.ndarray, "4 2"]:
    """Return a strip from one point to another that narrows by a third."""
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
    across = half_width * np.array([-along[1], along[0]])
    return np.array([start + across, end + 0.67 * across, end - 0.67 * across, start - across])


def _ellipse(middle: np.ndarray, a: float, b: float, angle: float) -> Float[np.ndarray, "16 2"]:
    """Return an ellipse with half axes a and b, a turned by an angle from x."""
    turns = np.linspace(0.0, 2 * np.pi, 16, endpoint=False)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    return middle + a * np.cos(turns)[:, None] * along + b * np.sin(turns)[:, None] * across


def _rasterise(polygons: Polygons, size: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    """Return the union of polygons as a mask in [0, 1] of a size (width, height), with smooth edges."""
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    for polygon in polygons:
        corners = np.round(16 * (polygon * max(size) - 0.5)).astype(np.int32)
        cv2.fillPoly(mask, [corners], (255,), lineType=cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) / 255.0


_SKINS = ((0.62, 0.36, 0.25), (0.50, 0.27, 0.17), (0.30, 0.15, 0.09), (0.70, 0.45, 0.35))
"""Linear RGB."""


def _material(material: Material, size: tuple[int, int], rng: np.random.Generator) -> Linear:
    """Return a texture of a size (width, height): a photo, or a photo's shading in a colour of the material."""
    match material:
        case "photo":
            return _photo_texture(_photos()[str(rng.choice(["coffee", "chelsea", "rocket"]))], size, rng)
        case "wall":
            tint = np.array([1.0, 0.9, 0.8], dtype=np.float32) ** rng.uniform(-0.5, 2.5)
            return _photo_texture(_photos()[str(rng.choice(["brick", "gravel"]))], size, rng) * tint
        case "leaves":
            return _photo_texture(_photos()["grass"], size, rng) * np.array([0.6, 0.9, 0.3], dtype=np.float32)
        case "cloth":
            return _coloured(
                "grass", rng.uniform(0.02, 0.5) * rng.uniform(0.6, 1.0, 3), rng.uniform(0.05, 0.35), size, rng
            )
        case "plain":
            return _coloured("gravel", rng.uniform(0.05, 0.7) * rng.uniform(0.85, 1.0, 3), 0.15, size, rng)
        case "skin":
            return _coloured("chelsea", np.array(_SKINS[rng.integers(len(_SKINS))]), 0.15, size, rng)
        case "hair":
            return _coloured("grass", rng.uniform(0.01, 0.1) * np.array([1.2, 0.9, 0.7]), 0.5, size, rng)
        case _:
            assert_never(material)


def _coloured(
    name: str, colour: Float[np.ndarray, "3"], contrast: float, size: tuple[int, int], rng: np.random.Generator
) -> Linear:
    """Return a colour with two photos' grain and shading at a share of their contrast, lit from one side."""
    grain = _photo_texture(_photos()[name][..., 1], size, rng, fineness=4.0)
    folds = _photo_texture(_photos()["chelsea"][..., 1], size, rng)
    x, y = np.linspace(-0.5, 0.5, size[0], dtype=np.float32), np.linspace(-0.5, 0.5, size[1], dtype=np.float32)
    slope = rng.normal(0.0, 0.4, 2).astype(np.float32)
    shading = np.exp(slope[0] * x[None] + slope[1] * y[:, None])
    for detail in (grain, folds):
        shading *= 1.0 + np.float32(contrast) * (detail / max(float(detail.mean()), 1e-3) - 1.0)
    return shading[..., None] * colour.astype(np.float32)


def _photo_texture(
    photo: UInt8[np.ndarray, "h w *c"], size: tuple[int, int], rng: np.random.Generator, fineness: float = 1.0
) -> Float32[np.ndarray, "h w *c"]:
    """Return a photo's linear light, turned, resized and shifted at random, mirrored where the photo ends."""
    scale = max(size) / photo.shape[1] * rng.uniform(0.6, 1.5) / fineness
    how = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
    resized = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=how)
    matrix = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), rng.normal(0.0, 15.0), 1.0)
    matrix[:, 2] += rng.uniform(0.0, 1.0, 2) * resized.shape[1::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(resized, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return _LINEAR_OF_SRGB[turned.astype(np.uint8)]


@cache
def _photos() -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """Return the photos that occluders are made of, as RGB; all of them lie in scikit-image's wheel."""
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError("occluders are made of scikit-image's photos: pip install scikit-image") from error
    photos = {"coffee": data.coffee(), "chelsea": data.chelsea(), "rocket": data.rocket(), "brick": data.brick(),
              "grass": data.grass(), "gravel": data.gravel()}  # fmt: skip
    return {name: np.asarray(Image.fromarray(photo).convert("RGB")) for name, photo in photos.items()}


# Light


def _srgb_decoded(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _srgb_encoded(light: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Undo ``_srgb_decoded``."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


_LINEAR_OF_SRGB = _srgb_decoded(np.arange(256) / 255.0).astype(np.float32)
_SRGB_OF_LINEAR = (255.0 * _srgb_encoded(np.arange(65536) / 65535.0)).astype(np.float32)


def _to_linear(image: Image.Image) -> Linear:
    return _LINEAR_OF_SRGB[np.asarray(image.convert("RGB"))]


def _to_image(linear: Linear, rng: np.random.Generator) -> Image.Image:
    """Clip and store light, with the rounding of a camera's last bit: noise of at most one level."""
    stored = _SRGB_OF_LINEAR[np.round(65535.0 * np.clip(linear, 0.0, 1.0)).astype(np.uint16)]
    stored += rng.uniform(0.0, 1.0) * rng.standard_normal(stored.shape, dtype=np.float32)
    return Image.fromarray(np.clip(np.round(stored), 0, 255).astype(np.uint8))


def _restore_highlights(linear: Linear, rng: np.random.Generator) -> Linear:
    """Return light in which clipped pixels are up to 2.5 times as bright as stored, as lamps and sky really are."""
    clipped = np.clip((linear.min(axis=2, keepdims=True) - 0.85) / 0.15, 0.0, 1.0)
    return linear * (1.0 + np.float32(rng.uniform(0.0, 1.5)) * clipped)


def _filter(linear: Linear, kernel: Float32[np.ndarray, "side side"]) -> Linear:
    return cv2.filter2D(linear, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def _blurred(light: Float32[np.ndarray, "h w *c"], sigma_px: float) -> Float32[np.ndarray, "h w *c"]:
    """Blur by a Gaussian; a wide one at a resolution at which it is two to four pixels wide."""
    if sigma_px < 4.0:
        return cv2.GaussianBlur(light, (0, 0), max(sigma_px, 0.3))
    size = (light.shape[1], light.shape[0])
    coarse = (max(1, round(2.0 * size[0] / sigma_px)), max(1, round(2.0 * size[1] / sigma_px)))
    small = cv2.GaussianBlur(cv2.resize(light, coarse, interpolation=cv2.INTER_AREA), (0, 0), 2.0)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def _warp_about(linear: Linear, centre: tuple[float, float], angle_degrees: float, zoom: float) -> Linear:
    """Turn and zoom an image about a point, given as x and y in pixels."""
    matrix = cv2.getRotationMatrix2D(centre, angle_degrees, zoom)
    size = (linear.shape[1], linear.shape[0])
    return cv2.warpAffine(linear, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
