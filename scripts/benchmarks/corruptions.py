"""Corruptions that the benchmarks judge with: made in other ways than those in training, to keep the figures honest.

``mtcm_nerfstudio.capture.corruptions`` makes the corruptions that the checkpoint is trained with. Nothing here imports
it and nothing there imports this: what a method learned by heart about the training's blur kernels, exposure tables and
painted occluders does not help it here. Light is sRGB-decoded, cameras shake along curves or turn, apertures are
polygons, exposure passes through a camera's response and its sensor's noise, and occluders are made of photos that
scikit-image ships with. Sizes are shares of the image's longer side or of the capture's spread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks.linear_light import (
    Linear,
    blurred,
    filtered,
    log_uniform,
    restore_highlights,
    to_image,
    to_linear,
    warp_about,
)
from benchmarks.occluders import occlude

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
    rng, linear = corruption.rng(), to_linear(image)
    longer = max(image.size)
    match corruption.kind:
        case "motion_blur":
            extent_px = log_uniform(0.007, 0.04, rng) * longer
            blur = shake_blur if rng.random() < 0.65 else turn_blur
            return to_image(blur(restore_highlights(linear, rng), extent_px, rng), rng)
        case "defocus":
            kernel = aperture_kernel(log_uniform(0.0035, 0.018, rng) * longer, rng)
            return to_image(filtered(restore_highlights(linear, rng), kernel), rng)
        case "exposure":
            stops = -rng.uniform(0.9, 3.0) if rng.random() < 0.5 else rng.uniform(0.8, 2.5)
            return to_image(expose(linear, stops, rng), rng)
        case "occluder":
            return to_image(occlude(linear, rng), rng)
        case "foreign":
            if donor is None:
                raise ValueError(f"frame {corruption.frame} shows another capture, and no donor is given")
            return replace_by(donor, linear, rng)
        case _:
            raise ValueError(f"a {corruption.kind} corrupts a pose, not an image")


def shake_blur(linear: Linear, extent_px: float, rng: np.random.Generator) -> Linear:
    """Blur by a hand's shake: the same curved path of uneven speed everywhere, its diameter ``extent_px``."""
    return filtered(linear, shake_kernel(extent_px, rng))


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
    out = warp_about(linear, (x, y), -0.5 * angle, float(np.exp(-0.5 * log_zoom)))
    for i in range(1, 8):
        turned = warp_about(out, (x, y), angle / 2**i, float(np.exp(log_zoom / 2**i)))
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
        light = restore_highlights(light, rng) * np.float32(2.0**stops)
        full_well, read = log_uniform(1500.0, 12000.0, rng), rng.uniform(0.0004, 0.002)
        noise = cv2.GaussianBlur(rng.standard_normal(light.shape, dtype=np.float32), (0, 0), rng.uniform(0.4, 0.7))
        light = light + noise * np.sqrt(light / full_well + read**2)
    else:
        light = light * np.float32(2.0**stops)
        excess = np.clip(light - 1.0, 0.0, 3.0)
        light = light + rng.uniform(0.02, 0.12) * blurred(excess, rng.uniform(0.01, 0.05) * max(light.shape))
    light = np.clip(light, 0.0, 1.0)
    return (1.0 + k) * light / (k + light)


def replace_by(donor: Image.Image, linear: Linear, rng: np.random.Generator) -> Image.Image:
    """Return a random crop of the donor in the image's size, half the time with the image's mean brightness."""
    height, width = linear.shape[:2]
    aspect = width / height * log_uniform(0.93, 1.07, rng)
    scale = np.sqrt(rng.uniform(0.45, 1.0))
    crop_width = scale * min(donor.width, donor.height * aspect)
    crop_height = crop_width / aspect
    left, top = rng.uniform(0.0, donor.width - crop_width), rng.uniform(0.0, donor.height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    crop = donor.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, box=box)
    if rng.random() < 0.5:
        return crop
    light = to_linear(crop)
    gain = float(np.clip(linear.mean() / max(float(light.mean()), 1e-4), 0.2, 5.0))
    return to_image(gain * light, rng)
