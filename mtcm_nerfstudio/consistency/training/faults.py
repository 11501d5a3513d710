"""Known faults in features: what ``capture.faults`` does to a capture on disk, done to its numbers, at every step anew.

Poses are made wrong before tokens are assembled, so the frame of reference is found among the wrong ones, as it will
be in use. A spoiled image is the embedding that was computed of it beforehand; a foreign one is a frame of another
capture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from mtcm_nerfstudio.capture.faults import (
    FAULT_KINDS,
    IMAGE_FAULTS,
    REASON_OF,
    Fault,
    FaultKind,
    faulted_poses,
    plan_faults,
)
from mtcm_nerfstudio.consistency.losses import IGNORED
from mtcm_nerfstudio.consistency.training.capture import SEVERITIES, TrainingCapture
from mtcm_nerfstudio.consistency.transformer_model import MODALITIES, REASONS

IMAGE, POSE, TIME = range(len(MODALITIES))


@dataclass(frozen=True)
class FaultConfig:
    """How often which faults are put into a variant."""

    clean_share: float = 0.25
    """Share of variants without any fault: a clean capture must come through whole."""
    largest_share: float = 0.35
    """Largest share of a variant's frames that get a fault, in [0, 1]."""
    kinds: tuple[FaultKind, ...] = FAULT_KINDS
    """Kinds to draw from."""
    pose_share: float = 0.4
    """Share of the faulty variants whose faults are all of poses, which take longest to learn, in [0, 1]."""
    moved_in_time: float = 0.02
    """Share of the frames that change places in time with another one, in variants that have an order."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("clean_share", "largest_share", "pose_share", "moved_in_time"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not self.kinds:
            raise ValueError(f"kinds must name at least one of {', '.join(FAULT_KINDS)}")


@dataclass(frozen=True, eq=False)
class Spoiled:
    """A stretch of a capture with known faults."""

    capture: TrainingCapture
    """With the faults."""
    real: TrainingCapture
    """The same frames in the same order, without them."""
    replaced: Bool[np.ndarray, "frame 3"]
    """Whether image, pose and time are wrong."""
    reason: Int[np.ndarray, " frame"]
    """Index into ``REASONS``, ``IGNORED`` where image and pose are right."""


def spoil(
    capture: TrainingCapture,
    others: Sequence[TrainingCapture],
    config: FaultConfig,
    rng: np.random.Generator,
    ordered: bool = True,
) -> Spoiled:
    """Put faults into a stretch of a capture.

    Args:
        capture: the stretch, in the order in which the network will see it.
        others: captures that lend foreign frames; without any there are no foreign frames.
        config: how many faults of which kind.
        rng: decides everything.
        ordered: whether the order means anything, so that frames can be out of it.
    """
    n = len(capture.raw)
    replaced, reason = np.zeros((n, len(MODALITIES)), dtype=bool), np.full(n, IGNORED)
    if rng.random() < config.clean_share:
        return Spoiled(capture, capture, replaced, reason)
    if ordered and n >= 4:
        capture, replaced[:, TIME] = move_in_time(capture, config.moved_in_time, rng)
    faults = draw_faults(capture, bool(others), config, rng)
    embeddings = capture.raw.embeddings.copy()
    foreign = [fault for fault in faults if fault.kind == "foreign"]
    if foreign:
        embeddings[[fault.frame for fault in foreign]] = foreign_embeddings(others, len(foreign), rng)
    for fault in faults:
        for kind in IMAGE_FAULTS:
            if fault.kind == kind:
                embeddings[fault.frame] = capture.variants[kind][_nearest_severity(fault.severity), fault.frame]
        replaced[fault.frame, POSE if fault.reason == "pose" else IMAGE] = True
        reason[fault.frame] = REASONS.index(REASON_OF[fault.kind])
    c2w = faulted_poses(capture.raw.c2w, faults)
    spoiled = capture.with_raw(replace(capture.raw, embeddings=embeddings, c2w=c2w))
    return Spoiled(spoiled, capture, replaced, reason)


def draw_faults(
    capture: TrainingCapture, has_others: bool, config: FaultConfig, rng: np.random.Generator
) -> tuple[Fault, ...]:
    """Draw a few kinds, and faults of these for a share of the frames that have what the fault would spoil."""
    possible = possible_kinds(capture, has_others, config.kinds)
    of_poses = tuple(kind for kind in possible if REASON_OF[kind] == "pose")
    if of_poses and rng.random() < config.pose_share:
        possible = of_poses
    if not possible:
        return ()
    count = int(rng.integers(1, len(possible) + 1))
    kinds = [possible[i] for i in sorted(rng.choice(len(possible), size=count, replace=False))]
    share = float(rng.uniform(0.0, config.largest_share))
    n = len(capture.raw)
    share = max(share, min(2.0 / n, config.largest_share))
    faults = plan_faults(n, kinds, share, rng, capture.raw.c2w)
    return tuple(fault for fault in faults if _can_be_spoiled(capture, fault))


def possible_kinds(capture: TrainingCapture, has_others: bool, kinds: Sequence[FaultKind]) -> tuple[FaultKind, ...]:
    """Return the kinds for which the capture has poses, spoiled images, or others to take a foreign frame from."""
    posed = int(capture.raw.posed.sum())
    possible = []
    for kind in kinds:
        if kind == "foreign":
            fits = has_others
        elif REASON_OF[kind] == "pose":
            fits = posed >= 4
        else:
            fits = kind in capture.variants
        if fits:
            possible.append(kind)
    return tuple(possible)


def foreign_embeddings(
    others: Sequence[TrainingCapture], count: int, rng: np.random.Generator
) -> Float[np.ndarray, "frame 384"]:
    """Take frames of another capture: half of the time neighbours of one, that agree among themselves."""
    if rng.random() < 0.5:
        known = _known_embeddings(others[int(rng.integers(len(others)))])
        start = int(rng.integers(len(known)))
        return known[(start + np.arange(count)) % len(known)]
    rows = []
    for _ in range(count):
        known = _known_embeddings(others[int(rng.integers(len(others)))])
        rows.append(known[int(rng.integers(len(known)))])
    return np.stack(rows)


def move_in_time(
    capture: TrainingCapture, share: float, rng: np.random.Generator
) -> tuple[TrainingCapture, Bool[np.ndarray, " frame"]]:
    """Let pairs of frames change places in the order of time, the times themselves staying where they are."""
    n = len(capture.raw)
    moved = np.zeros(n, dtype=bool)
    order = np.arange(n)
    for _ in range(rng.binomial(n, 0.5 * share)):
        a, b = rng.choice(n, size=2, replace=False)
        if abs(a - b) > 2 and not moved[a] and not moved[b]:
            order[[a, b]] = order[[b, a]]
            moved[[a, b]] = True
    shuffled = capture.subset(order)
    return shuffled.with_raw(replace(shuffled.raw, timestamps=capture.raw.timestamps)), moved


def _can_be_spoiled(capture: TrainingCapture, fault: Fault) -> bool:
    if fault.reason == "pose":
        return True
    there = bool(np.isfinite(capture.raw.embeddings[fault.frame]).all())
    if not there or fault.kind == "foreign":
        return there
    for kind in IMAGE_FAULTS:
        if fault.kind == kind:
            return bool(np.isfinite(capture.variants[kind][:, fault.frame]).all())
    return False


def _known_embeddings(capture: TrainingCapture) -> Float[np.ndarray, "known 384"]:
    known = capture.raw.embeddings[np.isfinite(capture.raw.embeddings).all(axis=1)]
    if not len(known):
        raise ValueError(f"{capture.name}: not one frame has an embedding")
    return known


def _nearest_severity(severity: float) -> int:
    return int(np.argmin(np.abs(np.array(SEVERITIES) - severity)))
