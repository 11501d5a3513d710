"""Captures with known faults, as everything a method may look at: the same as if the faulted capture lay on disk, but
quicker. Poses are made wrong first, so that pairs are chosen, matched and weighed under the wrong ones.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from detection.images import ImageBank, Looks, SpoiledImage
from detection.models import ModelPoints, points_of_model
from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.faults import POSE_FAULTS, Fault, FaultKind, faulted_poses, plan_faults
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.evidence import features, matches
from mtcm_nerfstudio.tokens.evidence.assess import Evidence, assess
from mtcm_nerfstudio.tokens.evidence.collect import Matched, Seen, likeness_of, with_poses
from mtcm_nerfstudio.tokens.progress import Track, progress_bars
from mtcm_nerfstudio.tokens.tokenise import TokenisedCapture, tokens_of
from mtcm_nerfstudio.tokens.tokens import RawFeatures, assemble_tokens
from mtcm_nerfstudio.verdicts.rules import RuledOut, rule_out

CLEAN = "clean"
"""The kind of a trial without faults."""
FIRST_SEED = 7_000_000
"""Trials draw from here on, far from the small numbers that training runs are seeded with."""

_LIKENESS = f"benchmark_likeness:1:{features.VERSION}:{matches.VERSION}"


@dataclass(frozen=True)
class TrialKind:
    """What is put into the captures of one kind of trial."""

    name: str
    """See ``Case.kind``."""
    faults: tuple[FaultKind, ...]
    """The kinds of faults to draw from."""
    share: float
    """Of the frames that get a fault, in [0, 1]."""
    severity: float | None = None
    """Of all faults, in [0, 1]; None: drawn over the whole range for each."""


ONE_SIZE = (
    TrialKind("exposure ×0.45/×1.9", ("exposure",), 0.2, 0.81),
    TrialKind("occluder 36%", ("occluder",), 0.2, 0.85),
)
"""Kinds with a size that is often asked for: stored values times 0.45 or 1.9; 36% of the image covered."""


def mixed(share: float) -> str:
    """Return the kind of a trial with faults of all kinds in a share of the frames."""
    return f"mixed {share:.0%}"


@dataclass(frozen=True, eq=False)
class Subject:
    """A capture as it came: the frames with a readable image and a finite pose, in temporal order."""

    capture: Capture
    raw: RawFeatures
    looks: Looks
    seen: tuple[Seen, ...]
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
    """A kind of fault that is there alone, or ``mixed …``, or ``clean``."""
    share: float
    """Of the frames that were to be made faulty, in [0, 1]."""
    seed: int
    faults: tuple[Fault, ...]
    natural: Bool[np.ndarray, " frame"]
    """Frames that are faulty as they came."""
    true_c2w: Float[np.ndarray, "frame 4 4"]

    @property
    def truth(self) -> Bool[np.ndarray, " frame"]:
        """Which frames were made faulty."""
        faulty = np.zeros(len(self.natural), dtype=bool)
        faulty[[fault.frame for fault in self.faults]] = True
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
class Trial:
    """A capture with known faults, as all methods may look at it."""

    case: Case
    raw: RawFeatures
    looks: Looks
    ruled: RuledOut
    """What the filter's rules say of it."""
    matched: Matched
    evidence: Evidence
    evidence_seconds: float
    """For weighing the evidence, matches already there."""
    model: ModelPoints | None
    bank: ImageBank

    @property
    def capture(self) -> str:
        """The capture's name."""
        return self.case.capture

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.raw)


def subject_of(capture: Capture, natural_faults: Sequence[str], bank: ImageBank, track: Track) -> Subject:
    """Compute a capture's features as they are, without the frames that no method could judge.

    Args:
        capture: as it was read.
        natural_faults: ``file_path`` of the frames that are faulty as they came.
        bank: computes and keeps features.
        track: shows progress.
    """
    tokenised = tokens_of(capture, bank.embedder.name, bank.cache)
    usable = tokenised.raw.posed & np.array([status == "ok" for status in tokenised.image_status])
    frames = tuple(frame for frame, good in zip(capture.frames, usable, strict=True) if good)
    kept = replace(capture, frames=frames)
    return Subject(
        capture=kept,
        raw=tokenised.raw.subset(usable),
        looks=bank.looks(frames, track),
        seen=bank.seen(frames, track),
        natural=np.isin([frame.file_path for frame in frames], list(natural_faults)),
        model=points_of_model(kept),
    )


@dataclass(frozen=True, eq=False)
class PlannedTrial:
    """A trial whose faults are drawn and whose images are not yet made."""

    subject: Subject
    kind: str
    share: float
    seed: int
    faults: tuple[Fault, ...]
    others: tuple[Capture, ...]
    """The captures that lend foreign images."""

    @property
    def spoiled_images(self) -> list[SpoiledImage]:
        """The images that the faults spoil; a foreign one comes from a capture drawn among the others."""
        return [
            SpoiledImage(self.subject.capture.frames[fault.frame], fault, self._lender(fault))
            for fault in self.faults
            if fault.kind not in POSE_FAULTS
        ]

    def made(self, bank: ImageBank) -> Trial:
        """Put the faults into the capture's features and poses, and match it as the filter would."""
        subject, images = self.subject, self.spoiled_images
        rows, facts = [image.fault.frame for image in images], bank.spoiled(images)
        embeddings, seen = subject.raw.embeddings.copy(), list(subject.seen)
        sharpness, cleanvision = subject.looks.sharpness.copy(), subject.looks.cleanvision.copy()
        for i, one in zip(rows, facts, strict=True):
            embeddings[i], sharpness[i], cleanvision[i], seen[i] = (
                one.embedding, one.sharpness, one.cleanvision, one.seen,
            )  # fmt: skip
        c2w = faulted_poses(subject.raw.c2w, self.faults)
        raw = replace(subject.raw, embeddings=embeddings, c2w=c2w)
        ruled = _ruled(subject.capture, raw)
        claimed = assemble_tokens(ruled.raw).capture_frame.to_capture(ruled.raw.c2w.astype(np.float64))
        likeness = _likeness(seen, bank.cache)
        matched = with_poses(seen, likeness, claimed, ruled.readable, bank.cache, progress_bars(shown=False))
        start = time.perf_counter()
        evidence = assess(matched.bank, claimed, ruled.readable)
        return Trial(
            case=Case(subject.name, self.kind, self.share, self.seed, self.faults, subject.natural, subject.raw.c2w),
            raw=raw,
            looks=Looks(sharpness, cleanvision),
            ruled=ruled,
            matched=matched,
            evidence=evidence,
            evidence_seconds=time.perf_counter() - start,
            model=subject.model,
            bank=bank,
        )

    def _lender(self, fault: Fault) -> Capture | None:
        return self.others[int(fault.rng().integers(len(self.others)))] if fault.kind == "foreign" else None


def plan_trial(subject: Subject, kind: TrialKind, seed: int, captures: Sequence[Capture]) -> PlannedTrial:
    """Draw the faults of one trial; the same for the same capture, kind and seed.

    Args:
        subject: the capture.
        kind: what to put into it.
        seed: number of the trial.
        captures: those that lend foreign images; the subject's own is left out.
    """
    rng = np.random.default_rng([FIRST_SEED + seed, *f"{subject.name}:{kind.name}:{kind.share}".encode()])
    faults = plan_faults(len(subject.raw), kind.faults, kind.share, rng, subject.raw.c2w)
    if kind.severity is not None:
        faults = tuple(replace(fault, severity=kind.severity) for fault in faults)
    others = tuple(capture for capture in captures if capture.name != subject.name)
    return PlannedTrial(subject, kind.name, kind.share, seed, faults, others)


def _likeness(seen: Sequence[Seen], cache: Cache) -> Float[np.ndarray, "frame frame"]:
    """Return ``likeness_of(seen)``, from the cache where it was computed before."""
    key = hashlib.sha256("|".join(one.key for one in seen).encode()).hexdigest()
    known = cache.get(_LIKENESS, key)
    if known is None:
        known = likeness_of(seen)
        cache.put(_LIKENESS, key, known)
    return known


def _ruled(capture: Capture, raw: RawFeatures) -> RuledOut:
    return rule_out(TokenisedCapture(capture, raw, assemble_tokens(raw), ("ok",) * len(raw)))
