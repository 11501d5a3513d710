"""Training examples: corrupted variants of one capture, several a batch, every one a function of (seed, step) alone.

A variant is a stretch of a capture in some order, with known faults put into some frames, some modalities dropped and
some parts hidden. Its last frame is taken out of the input before anything is computed, the capture's frame of
reference included, and its pose is what the next-pose head has to predict.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from mtcm_nerfstudio.consistency.losses import IGNORED
from mtcm_nerfstudio.consistency.training.batch import Batch, Example, collate
from mtcm_nerfstudio.consistency.training.corrupt_sequence import (
    CorruptedSequence,
    FaultConfig,
    corrupt_sequence,
    draw_copy,
)
from mtcm_nerfstudio.consistency.training.training_capture import TrainingCapture
from mtcm_nerfstudio.evidence.frame_numbers import Evidence, compute_evidence
from mtcm_nerfstudio.tokens.tokens import (
    PARTS,
    POSE,
    TOKEN_DIM,
    FrameTokens,
    RawFeatures,
    assemble_tokens,
    pose7,
)

Purpose = Literal["training", "validation", "calibration", "forest"]
"""Each purpose has random numbers of its own."""

_EMBEDDING, _POSE, _TIME = (PARTS.index(name) for name in ("embedding", "pose", "timestamp"))
_HIDDEN_AS_ONE = (PARTS, PARTS, PARTS, ("embedding",), ("pose",), ("timestamp", "mask_area", "focal"))
"""What is hidden of a masked token: half of the time all of it, else one modality."""


@dataclass(frozen=True)
class DatasetConfig:
    """How variants are drawn."""

    mask_ratio: float = 0.3
    """Share of a masked variant's frames of which something is hidden, in [0, 1)."""
    masked_share: float = 0.5
    """Share of variants that are masked; the others are seen whole, as the filter sees a capture, in [0, 1]."""
    batch_tokens: int = 512
    """Frames in a batch, over all its variants."""
    variants: int = 12
    """Most variants in a batch."""
    longest: int = 128
    """Frames of the longest variant."""
    shortest: int = 6
    """Frames of the shortest variant (captures with fewer are taken whole)."""
    reversed_share: float = 0.15
    """Share of variants that run backwards, in [0, 1]."""
    shuffled_share: float = 0.1
    """Share of variants in no order and without times, as a heap of photos is, in [0, 1]."""
    mirrored_share: float = 0.5
    """Share of variants whose poses are those of the mirrored world (embeddings hardly tell left from right)."""
    drop_share: float = 0.3
    """Share of variants without times; without masks; without focal lengths."""
    without_poses: float = 0.12
    """Share of variants without any pose, as photos are before COLMAP, in [0, 1]."""
    without_evidence: float = 0.1
    """Share of variants without pair evidence, in [0, 1]."""
    faults: FaultConfig = field(default_factory=FaultConfig)

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in (
            "masked_share",
            "reversed_share",
            "shuffled_share",
            "mirrored_share",
            "drop_share",
            "without_poses",
            "without_evidence",
        ):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0.0 <= self.mask_ratio < 1.0:
            raise ValueError(f"mask_ratio must lie in [0, 1), got {self.mask_ratio}")
        if not 2 <= self.shortest <= self.longest:
            raise ValueError(f"shortest must lie in [2, longest = {self.longest}], got {self.shortest}")
        if self.variants < 1:
            raise ValueError(f"variants must be at least 1, got {self.variants}")
        if self.batch_tokens < self.longest:
            raise ValueError(f"batch_tokens must be at least longest = {self.longest}, got {self.batch_tokens}")


def make_batch(
    captures: Sequence[TrainingCapture], config: DatasetConfig, seed: int, step: int, purpose: Purpose = "training"
) -> Batch:
    """Draw one capture and a batch of its variants; the same arguments give the same batch.

    Args:
        captures: all that are trained together; larger ones are drawn more often, with the root of their length.
        config: how variants are drawn.
        seed: of the run.
        step: of the run.
        purpose: what the batch is for.
    """
    return collate(*draw_examples(captures, config, seed, step, purpose))


def draw_examples(
    captures: Sequence[TrainingCapture], config: DatasetConfig, seed: int, step: int, purpose: Purpose
) -> tuple[str, list[Example]]:
    """Return the name of the capture that was drawn, and its variants: what ``make_batch`` collates."""
    rng = np.random.default_rng([seed, step, get_args(Purpose).index(purpose)])
    chance = np.sqrt([len(capture.raw) for capture in captures])
    chosen = int(rng.choice(len(captures), p=chance / chance.sum()))
    capture = captures[chosen]
    if capture.drawn:
        reserved = max(1, len(capture.drawn) // 8)
        among = capture.drawn[:reserved] if purpose == "validation" else capture.drawn[reserved:] or capture.drawn
        return capture.name, list(among[int(rng.integers(len(among)))])
    return capture.name, variants_of(capture, captures, config, rng)


def variants_of(
    capture: TrainingCapture, captures: Sequence[TrainingCapture], config: DatasetConfig, rng: np.random.Generator
) -> list[Example]:
    """Draw a batch of variants of one capture; the others among ``captures`` lend foreign frames."""
    others = [other for other in captures if other is not capture]
    longest = min(config.longest, max(len(capture.raw) - 1, 1))
    length = int(rng.integers(min(config.shortest, longest), longest + 1))
    count = max(1, min(config.batch_tokens // length, config.variants))
    return [make_example(capture, others, length, config, rng) for _ in range(count)]


def make_example(
    capture: TrainingCapture,
    others: Sequence[TrainingCapture],
    length: int,
    config: DatasetConfig,
    rng: np.random.Generator,
) -> Example:
    """Draw one variant of at most ``length`` frames; ``others`` lend foreign frames."""
    places, ordered = draw_places(len(capture.raw), length, config, rng)
    copy, faulty = draw_copy(capture, config.faults, rng)
    capture = capture.with_copy(copy)
    stretch = with_dropped_parts(capture.subset(places[:-1]), config, rng, ordered)
    last = capture.raw.c2w[places[-1:]]
    if rng.random() < config.mirrored_share:
        stretch = replace(
            stretch,
            raw=replace(stretch.raw, c2w=mirrored(stretch.raw.c2w)),
            copies=tuple(replace(copy, table=copy.table.mirrored()) for copy in stretch.copies),
        )
        last = mirrored(last)
    corrupted = corrupt_sequence(stretch, others, config.faults, rng, ordered, faulty)
    tokens = assemble_tokens(corrupted.capture.raw)
    evidence = None if rng.random() < config.without_evidence else evidence_of(corrupted.capture, tokens)
    masked = draw_masks(len(tokens), config.mask_ratio, rng)
    if rng.random() >= config.masked_share:
        masked[:] = False
    return replace(_example(tokens, corrupted, masked, last, ordered), evidence=evidence)


def evidence_of(capture: TrainingCapture, tokens: FrameTokens) -> Evidence | None:
    """Return the evidence about a stretch of a capture, by the one copy that it has; None where it has none."""
    if not capture.copies:
        return None
    posed = capture.raw.posed & tokens.present[:, _POSE]
    c2w = np.where(posed[:, None, None], capture.raw.c2w, np.nan).astype(np.float64)
    readable = posed | ~posed.any()
    return compute_evidence(
        capture.copies[0].table, capture.raw.embeddings, tokens.canonical_frame.to_capture(c2w), readable
    )


def draw_places(
    total: int, length: int, config: DatasetConfig, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " place"], bool]:
    """Draw which frames a variant is made of, one more than it will have, and whether they are in order of time."""
    wanted = min(length + 1, total)
    # Pairs farther apart were never compared (see ``TRAINING_PAIRS``), and would count as unmatched.
    stride = int(rng.integers(1, max(1, min(2, (total - 1) // max(wanted - 1, 1))) + 1))
    span = (wanted - 1) * stride + 1
    start = int(rng.integers(0, total - span + 1))
    places = np.arange(start, start + span, stride)
    if stride == 1 and rng.random() < 0.3 and len(places) > 8:
        # Frames missing here and there, as after a first sorting out by hand.
        places = np.sort(rng.choice(places, size=int(len(places) * rng.uniform(0.6, 1.0)), replace=False))
    order = rng.random()
    if order < config.reversed_share:
        return places[::-1].copy(), True
    if order < config.reversed_share + config.shuffled_share:
        return rng.permutation(places), False
    return places, True


def with_dropped_parts(
    capture: TrainingCapture, config: DatasetConfig, rng: np.random.Generator, ordered: bool
) -> TrainingCapture:
    """Take away whole modalities, as captures come without them, and single entries here and there.

    Times of a stretch that runs backwards are turned round, so that they still grow.
    """
    raw = capture.raw
    times = -raw.timestamps if _decreasing(raw.timestamps) else raw.timestamps.copy()
    if not np.isfinite(times).any() and rng.random() < config.drop_share:
        times = np.arange(len(raw), dtype=np.float64)
    drop_time, drop_masks, drop_focals = rng.random(3) < config.drop_share
    drop_poses = rng.random() < config.without_poses
    gaps = rng.random((len(raw), 3)) < (0.05 if rng.random() < 0.2 else 0.0)
    return capture.with_raw(
        RawFeatures(
            embeddings=np.where(gaps[:, :1], np.nan, raw.embeddings),
            c2w=np.where((gaps[:, 1] | drop_poses)[:, None, None], np.nan, raw.c2w),
            timestamps=np.full_like(times, np.nan) if drop_time or not ordered else times,
            mask_areas=np.where(gaps[:, 2] | drop_masks, np.nan, raw.mask_areas),
            focals=np.full_like(raw.focals, np.nan) if drop_focals else raw.focals,
            file_paths=raw.file_paths,
            embedder=raw.embedder,
        )
    )


def draw_masks(frames: int, ratio: float, rng: np.random.Generator) -> Bool[np.ndarray, "frame 5"]:
    """Hide something of a ``ratio`` of the frames: whole tokens, or one of image, pose and scalars."""
    masked = np.zeros((frames, len(PARTS)), dtype=bool)
    for frame in rng.choice(frames, size=round(ratio * frames), replace=False):
        parts = _HIDDEN_AS_ONE[int(rng.integers(len(_HIDDEN_AS_ONE)))]
        masked[frame, [PARTS.index(part) for part in parts]] = True
    return masked


def mirrored(c2w: Float[np.ndarray, "frame 4 4"]) -> Float[np.ndarray, "frame 4 4"]:
    """Return the poses from which the mirrored world gives the mirrored images."""
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    return mirror @ c2w @ mirror


def _example(
    tokens: FrameTokens,
    corrupted: CorruptedSequence,
    masked: Bool[np.ndarray, "frame 5"],
    last: Float[np.ndarray, "one 4 4"],
    ordered: bool,
) -> Example:
    visible = tokens.present & ~masked
    # What else is wrong with a frame that is not trusted is not known, so not even a fault put into it is a label.
    judged = visible[:, [_EMBEDDING, _POSE, _TIME]] & corrupted.real.trusted[:, None]
    seen = (corrupted.replaced & judged)[:, :2].any(axis=1)
    last_known = ordered and bool(np.isfinite(last).all()) and bool(tokens.present[:, _POSE].any())
    last_pose = np.zeros(7)
    if last_known:
        last_pose = pose7(tokens.canonical_frame.to_capture(last.astype(np.float64)))[0]
    return Example(
        tokens=tokens.tokens,
        present=tokens.present,
        masked=masked,
        wanted=_tokens_without_faults(tokens, corrupted.real.raw),
        replaced=corrupted.replaced,
        judged=judged,
        reason=np.where(seen, corrupted.reason, IGNORED),
        last_pose=last_pose,
        last_pose_known=last_known,
    )


def _tokens_without_faults(tokens: FrameTokens, raw: RawFeatures) -> Float32[np.ndarray, "frame 394"]:
    """Put the real embeddings and poses in place of the spoiled ones, in the same frame of reference."""
    wanted = tokens.tokens.copy()
    imaged, posed = tokens.present[:, _EMBEDDING], tokens.present[:, _POSE] & raw.posed
    wanted[imaged, : POSE.start] = np.where(
        np.isfinite(raw.embeddings[imaged]), raw.embeddings[imaged], wanted[imaged, : POSE.start]
    )
    real = pose7(tokens.canonical_frame.to_capture(raw.c2w[posed].astype(np.float64)))
    turned = (real[:, 3:] * wanted[posed, POSE][:, 3:]).sum(axis=1) < 0
    real[turned, 3:] *= -1
    wanted[posed, POSE] = real
    assert wanted.shape[1] == TOKEN_DIM
    return wanted.astype(np.float32)


def _decreasing(times: Float[np.ndarray, " frame"]) -> bool:
    known = times[np.isfinite(times)]
    return len(known) > 1 and bool(known[0] > known[-1])
