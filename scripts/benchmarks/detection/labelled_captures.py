"""Captures with known corruptions, as everything a method may look at: as if the corrupted capture lay on disk, but
quicker. Poses are corrupted first, so that pairs are selected and held against the wrong ones.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.corruptions import POSE_KINDS, Corruption, Kind, PoseKind, corrupt_poses, plan_corruptions
from benchmarks.detection.captures import BenchmarkCapture
from benchmarks.detection.images import CorruptedImage, ImageBank, Looks
from benchmarks.detection.models import ModelPoints, points_of_model
from mtcm_nerfstudio.capture.capture import Capture, Frame
from mtcm_nerfstudio.evidence.frame_numbers import Evidence, compute_evidence
from mtcm_nerfstudio.evidence.match_capture import FrameFeatures, MatchedCapture, match_features
from mtcm_nerfstudio.tokens.progress import Track, progress_bars
from mtcm_nerfstudio.tokens.tokenise import TokenisedCapture, tokens_of
from mtcm_nerfstudio.tokens.tokens import RawFeatures, assemble_tokens
from mtcm_nerfstudio.verdicts.exclude_unusable import ExcludedFrames, exclude_unusable_frames

CLEAN = "clean"
"""The kind of a trial without faults."""
MOVED_RUN: PoseKind = "moved_run"
"""The kind of corruption that is measured in trials of its own."""
FIRST_SEED = 7_000_000
"""Trials draw from here on, far from the small numbers that training runs are seeded with."""


@dataclass(frozen=True)
class CorruptionSetting:
    """What is put into the captures of one kind of trial."""

    name: str
    """See ``Case.kind``."""
    faults: tuple[Kind, ...]
    """The kinds of faults to draw from."""
    share: float
    """Of the frames that get a fault, in [0, 1]."""
    seeds: int = 1
    """Trials of each capture."""


def mixed(share: float) -> str:
    """Return the kind of a trial with faults of all kinds in a share of the frames."""
    return f"mixed {share:.0%}"


@dataclass(frozen=True, eq=False)
class Subject:
    """A capture as it came: the frames with a readable image and a finite pose, in temporal order."""

    capture: Capture
    group: str
    """See ``BenchmarkCapture.group``."""
    raw: RawFeatures
    looks: Looks
    features: tuple[FrameFeatures, ...]
    natural: Bool[np.ndarray, " frame"]
    """Frames that are faulty as they came."""
    model: ModelPoints | None
    """The COLMAP model that lies beside the capture, where there is one."""

    @property
    def name(self) -> str:
        """The capture's name."""
        return self.capture.name


@dataclass(frozen=True, eq=False)
class Case:
    """What was done to a capture, and so what is true of its frames."""

    capture: str
    kind: str
    """A kind of corruption that is there alone, or ``mixed …``, or ``clean``."""
    share: float
    """Of the frames that were to be made faulty, in [0, 1]."""
    seed: int
    faults: tuple[Corruption, ...]
    natural: Bool[np.ndarray, " frame"]
    """Frames that are faulty as they came."""
    true_c2w: Float[np.ndarray, "frame 4 4"]

    @property
    def truth(self) -> Bool[np.ndarray, " frame"]:
        """Which frames were made faulty."""
        return self.corrupted()

    def corrupted(self, kind: Kind | None = None) -> Bool[np.ndarray, " frame"]:
        """Tell which frames have a corruption of one kind, or of any."""
        faulty = np.zeros(len(self.natural), dtype=bool)
        faulty[[fault.frame for fault in self.faults if kind in (None, fault.kind)]] = True
        return faulty

    @property
    def good(self) -> Bool[np.ndarray, " frame"]:
        """Which frames nothing is wrong with. Those that are faulty as they came are neither good nor faulty."""
        return ~self.truth & ~self.natural

    @property
    def counts(self) -> Bool[np.ndarray, " frame"]:
        """Which frames figures are computed over."""
        return self.truth | self.good


@dataclass(frozen=True, eq=False)
class LabelledCapture:
    """A capture with known faults, as all methods may look at it."""

    case: Case
    raw: RawFeatures
    looks: Looks
    excluded: ExcludedFrames
    """What the filter's rules say of it."""
    matched: MatchedCapture
    evidence: Evidence
    evidence_seconds: float
    """For weighing the evidence, matches already there."""
    model: ModelPoints | None
    bank: ImageBank

    @property
    def capture(self) -> str:
        """The capture's name."""
        return self.case.capture

    @property
    def excluded_frames(self) -> Bool[np.ndarray, " frame"]:
        """Which frames a rule takes out, whatever a model says of them."""
        return np.array([reason is not None for reason in self.excluded.reasons])

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.raw)


def subject_of(source: BenchmarkCapture, bank: ImageBank, track: Track) -> Subject:
    """Compute a capture's features as they are, without the frames that no method could judge.

    Args:
        source: the capture.
        bank: computes and keeps features.
        track: shows progress.
    """
    capture = source.capture
    tokenised = tokens_of(capture, bank.embedder.name, bank.cache)
    usable = tokenised.raw.posed & np.array([status == "ok" for status in tokenised.image_status])
    frames = tuple(frame for frame, good in zip(capture.frames, usable, strict=True) if good)
    kept = replace(capture, frames=frames)
    return Subject(
        capture=kept,
        group=source.group,
        raw=tokenised.raw.subset(usable),
        looks=bank.looks(frames, track),
        features=bank.features(frames, track),
        natural=np.isin([frame.file_path for frame in frames], list(source.natural_faults)),
        model=points_of_model(kept),
    )


@dataclass(frozen=True, eq=False)
class PlannedCapture:
    """A trial whose faults are drawn and whose images are not yet made."""

    subject: Subject
    kind: str
    share: float
    seed: int
    faults: tuple[Corruption, ...]
    others: tuple[Capture, ...]
    """The captures that lend foreign images."""

    @property
    def corrupted_images(self) -> list[CorruptedImage]:
        """The images that are corrupted; a foreign one is a frame of a capture drawn among the others."""
        return [
            CorruptedImage(self.subject.capture.frames[fault.frame], fault, self._donor(fault))
            for fault in self.faults
            if fault.kind not in POSE_KINDS
        ]

    def made(self, bank: ImageBank) -> LabelledCapture:
        """Put the faults into the capture's features and poses, and match it as the filter would."""
        subject, images = self.subject, self.corrupted_images
        rows, facts = [image.corruption.frame for image in images], bank.corrupted(images)
        embeddings, features = subject.raw.embeddings.copy(), list(subject.features)
        sharpness, cleanvision = subject.looks.sharpness.copy(), subject.looks.cleanvision.copy()
        for i, one in zip(rows, facts, strict=True):
            embeddings[i], sharpness[i], cleanvision[i], features[i] = (
                one.embedding, one.sharpness, one.cleanvision, one.features,
            )  # fmt: skip
        c2w = corrupt_poses(subject.raw.c2w, self.faults)
        raw = replace(subject.raw, embeddings=embeddings, c2w=c2w)
        excluded = _excluded_frames(subject.capture, raw)
        claimed = assemble_tokens(excluded.raw).canonical_frame.to_capture(excluded.raw.c2w.astype(np.float64))
        track = progress_bars(shown=False)
        matched = match_features(features, embeddings, claimed, excluded.readable, bank.cache, track)
        start = time.perf_counter()
        evidence = compute_evidence(matched.table, embeddings, claimed, excluded.readable)
        return LabelledCapture(
            case=Case(subject.name, self.kind, self.share, self.seed, self.faults, subject.natural, subject.raw.c2w),
            raw=raw,
            looks=Looks(sharpness, cleanvision),
            excluded=excluded,
            matched=matched,
            evidence=evidence,
            evidence_seconds=time.perf_counter() - start,
            model=subject.model,
            bank=bank,
        )

    def _donor(self, fault: Corruption) -> Frame | None:
        if fault.kind != "foreign":
            return None
        rng = np.random.default_rng([fault.seed, 1])
        other = self.others[int(rng.integers(len(self.others)))]
        return other.frames[int(rng.integers(len(other.frames)))]


def plan_capture(
    subject: Subject, kind: CorruptionSetting, seed: int, captures: Sequence[BenchmarkCapture]
) -> PlannedCapture:
    """Draw the faults of one trial; the same for the same capture, kind and seed.

    Args:
        subject: the capture.
        kind: what to put into it.
        seed: number of the trial.
        captures: those that lend foreign images; the subject's own group is left out.
    """
    rng = np.random.default_rng([FIRST_SEED + seed, *f"{subject.name}:{kind.name}:{kind.share}".encode()])
    faults = plan_corruptions(len(subject.raw), subject.raw.c2w, kind.faults, kind.share, rng) if kind.share else ()
    others = tuple(one.capture for one in captures if one.group != subject.group)
    return PlannedCapture(subject, kind.name, kind.share, seed, faults, others)


def _excluded_frames(capture: Capture, raw: RawFeatures) -> ExcludedFrames:
    return exclude_unusable_frames(TokenisedCapture(capture, raw, assemble_tokens(raw), ("ok",) * len(raw)))
