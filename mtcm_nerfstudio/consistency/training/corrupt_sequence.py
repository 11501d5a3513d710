"""Known faults in features: what ``capture.corruptions`` does to a capture on disk, done to its numbers at every step.

Poses are made wrong before tokens are assembled, so the frame of reference is found among the wrong ones, as it will
be in use. Faulty images come with a corrupted copy of the capture (``corrupted_captures``). A capture that has no
copies, only embeddings, gets foreign frames by their embedding. Frames that are faulty as they came are so in every
copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from mtcm_nerfstudio.capture.corruptions import (
    FAULT_KINDS,
    POSE_FAULTS,
    REASON_OF,
    Fault,
    FaultKind,
    faulted_poses,
    plan_faults,
)
from mtcm_nerfstudio.consistency.losses import IGNORED
from mtcm_nerfstudio.consistency.training.training_capture import TrainingCapture
from mtcm_nerfstudio.consistency.transformer_model import MODALITIES, REASONS

IMAGE, POSE, TIME = range(len(MODALITIES))


@dataclass(frozen=True)
class FaultConfig:
    """How often which faults are put into a variant."""

    clean_share: float = 0.2
    """Share of variants without any fault: a clean capture must come through whole."""
    spoiled_share: float = 0.75
    """Share of the faulty variants in which images are faulty, in [0, 1]."""
    largest_share: float = 0.35
    """Largest share of a variant's frames that get a fault, in [0, 1]."""
    kinds: tuple[FaultKind, ...] = FAULT_KINDS
    """Kinds to draw from."""
    pose_share: float = 0.6
    """Share of the faulty variants in which poses are wrong, whatever images are, in [0, 1]."""
    cluster_share: float = 0.3
    """Share of the variants with wrong poses in which one cluster is all that is wrong with them, which takes longest
    to learn, in [0, 1]."""
    moved_in_time: float = 0.02
    """Share of the frames that change places in time with another one, in variants that have an order."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("clean_share", "spoiled_share", "largest_share", "pose_share", "cluster_share", "moved_in_time"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not self.kinds:
            raise ValueError(f"kinds must name at least one of {', '.join(FAULT_KINDS)}")


@dataclass(frozen=True, eq=False)
class CorruptedSequence:
    """A sequence of frames with known corruptions, and the same frames without them."""

    capture: TrainingCapture
    """With the faults."""
    real: TrainingCapture
    """The same frames in the same order, without them."""
    replaced: Bool[np.ndarray, "frame 3"]
    """Whether image, pose and time are wrong."""
    reason: Int[np.ndarray, " frame"]
    """Index into ``REASONS``, ``IGNORED`` where image and pose are right."""


def draw_copy(capture: TrainingCapture, config: FaultConfig, rng: np.random.Generator) -> tuple[int, bool]:
    """Draw the copy that a variant is taken from, and whether faults are to be put into it at all."""
    if rng.random() < config.clean_share:
        return 0, False
    wanted = [number for number, copy in enumerate(capture.copies) if _is_wanted(copy.faults, config.kinds)]
    if not wanted or rng.random() >= config.spoiled_share:
        return 0, True
    return int(rng.choice(wanted)), True


def corrupt_sequence(
    capture: TrainingCapture,
    others: Sequence[TrainingCapture],
    config: FaultConfig,
    rng: np.random.Generator,
    ordered: bool = True,
    faulty: bool = True,
) -> CorruptedSequence:
    """Put faults into a stretch of a capture.

    Args:
        capture: the stretch, in the order in which the network will see it, with one copy only (or none).
        others: captures that lend foreign frames where there are no copies; without any there are no foreign frames.
        config: how many faults of which kind.
        rng: decides everything.
        ordered: whether the order means anything, so that frames can be out of it.
        faulty: whether there are to be any faults.
    """
    n = len(capture.raw)
    moved = np.zeros(n, dtype=bool)
    if faulty and ordered and n >= 4:
        capture, moved = move_in_time(capture, config.moved_in_time, rng)
    replaced, reason = natural_faults(capture)
    replaced[:, TIME] = moved
    if not faulty:
        return CorruptedSequence(capture, capture, replaced, reason)
    embeddings = capture.raw.embeddings.copy()
    in_copy = capture.copies[0].faults if capture.copies else ()
    if capture.copies:
        embeddings = np.where(np.isfinite(embeddings), capture.copies[0].embeddings, np.nan)
    faults = (*draw_faults(capture, bool(others), config, rng, bool(in_copy)), *in_copy)
    foreign = [fault.frame for fault in faults if fault.kind == "foreign" and not in_copy]
    if foreign:
        embeddings[foreign] = foreign_embeddings(others, len(foreign), rng)
    for fault in faults:
        replaced[fault.frame, POSE if fault.reason == "pose" else IMAGE] = True
        reason[fault.frame] = REASONS.index(REASON_OF[fault.kind])
    c2w = faulted_poses(capture.raw.c2w, faults)
    corrupted = capture.with_raw(replace(capture.raw, embeddings=embeddings, c2w=c2w))
    return CorruptedSequence(corrupted, capture, replaced, reason)


def natural_faults(capture: TrainingCapture) -> tuple[Bool[np.ndarray, "frame 3"], Int[np.ndarray, " frame"]]:
    """Return what is wrong with frames as they came: image, pose and time, and the index of the reason."""
    n = len(capture.raw)
    replaced, reason = np.zeros((n, len(MODALITIES)), dtype=bool), np.full(n, IGNORED)
    for i, name in enumerate(capture.natural):
        if name is not None:
            replaced[i, POSE if name == "pose" else IMAGE] = True
            reason[i] = REASONS.index(name)
    return replaced, reason


def draw_faults(
    capture: TrainingCapture, has_others: bool, config: FaultConfig, rng: np.random.Generator, corrupted: bool
) -> tuple[Fault, ...]:
    """Draw a few kinds of those that are not in the capture's copy, and faults of these for a share of the frames."""
    possible = possible_kinds(capture, has_others, config.kinds)
    if not possible or (corrupted and rng.random() >= config.pose_share):
        return ()
    if "cluster" in possible and rng.random() < config.cluster_share:
        possible = ("cluster",)
    count = int(rng.integers(1, len(possible) + 1))
    kinds = [possible[i] for i in sorted(rng.choice(len(possible), size=count, replace=False))]
    n = len(capture.raw)
    share = float(rng.uniform(0.0, config.largest_share))
    share = max(share, min(2.0 / n, config.largest_share))
    faults = plan_faults(n, kinds, share, rng, capture.raw.c2w)
    known = np.isfinite(capture.raw.embeddings).all(axis=1)
    return tuple(fault for fault in faults if fault.reason == "pose" or known[fault.frame])


def possible_kinds(capture: TrainingCapture, has_others: bool, kinds: Sequence[FaultKind]) -> tuple[FaultKind, ...]:
    """Return the kinds that can be drawn at every step: poses, and foreign embeddings where there are no copies."""
    of_poses = kinds if int(capture.raw.posed.sum()) >= 4 else ()
    possible: list[FaultKind] = [kind for kind in POSE_FAULTS if kind in of_poses]
    if "foreign" in kinds and has_others and not capture.copies:
        possible.append("foreign")
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


def _is_wanted(faults: Sequence[Fault], kinds: Sequence[FaultKind]) -> bool:
    return bool(faults) and all(fault.kind in kinds for fault in faults)


def _known_embeddings(capture: TrainingCapture) -> Float[np.ndarray, "known 384"]:
    known = capture.raw.embeddings[np.isfinite(capture.raw.embeddings).all(axis=1)]
    if not len(known):
        raise ValueError(f"{capture.name}: not one frame has an embedding")
    return known
