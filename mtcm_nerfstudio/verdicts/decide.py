"""Decide on every frame: drop, keep, repair or keep by a limit, with the reason."""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from mtcm_nerfstudio.consistency.score import MODEL_REASONS, ModelReason, Scores
from mtcm_nerfstudio.decisions import UNUSABLE, DecidedBy, ModalityScores, Reason
from mtcm_nerfstudio.evidence.frame_numbers import Evidence
from mtcm_nerfstudio.tokens.tokens import PARTS, FrameTokens
from mtcm_nerfstudio.verdicts.exclude_unusable import ExcludedFrames
from mtcm_nerfstudio.verdicts.nearest_neighbours import compare_neighbours
from mtcm_nerfstudio.verdicts.score_capture import Scored
from mtcm_nerfstudio.verdicts.verdict_evidence import VerdictEvidence

NEAR_CERTAINTY = 0.98
"""Inconsistency at which even a frame goes that alone sees a part of the subject."""


CERTAIN_IN_SPITE = 0.9
"""Inconsistency from which on a frame goes though the evidence contradicts the reason."""
_SHARP = 0.05
"""Probability of blur below which a frame is sharp."""
_DETAIL_LOST = 0.05
"""Share of an image, above its partners', that is black or white where detail is lost."""
_NO_DETAIL = 0.5
"""The same share whatever its partners show, which may be as black."""


@dataclass(frozen=True)
class GuardRails:
    """Limits on what the model may drop, whatever it thinks of the frames."""

    min_frames: int = 8
    """Never leave fewer frames than this (when the capture has as many)."""
    max_drop_share: float = 0.5
    """Never drop more than this share of the frames that can be trained on."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.min_frames < 0:
            raise ValueError(f"--min-frames must not be negative, got {self.min_frames}")
        if not 0.0 <= self.max_drop_share <= 1.0:
            raise ValueError(f"--max-drop-share must lie in [0, 1], got {self.max_drop_share}")

    def most_to_drop(self, usable: int) -> int:
        """Return how many of ``usable`` frames the model may drop."""
        return max(0, min(math.floor(self.max_drop_share * usable), usable - self.min_frames))


@dataclass(frozen=True)
class VerdictSettings:
    """How scores become verdicts."""

    threshold: float
    """Frames whose inconsistency is at or above this go."""
    guard_rails: GuardRails = field(default_factory=GuardRails)
    keep_exposure: bool = False
    """Whether frames that are only too dark or too bright stay."""
    repaired: frozenset[int] = frozenset()
    """Frames that have been given another pose, and stay."""
    irreplaceable: frozenset[int] = frozenset()
    """Frames that alone see a part of the subject: they go only at near certainty."""
    min_sharpness: float = 0.0
    """Frames less sharp than this share of the sharpest views of the same points go, whatever else; 0: none."""


@dataclass(frozen=True)
class Verdict:
    """Verdict on a frame with reason and evidence."""

    inconsistency: float
    kept: bool
    reason: Reason | None
    decided_by: DecidedBy
    modality: ModalityScores
    evidence: dict[str, float]
    most_at_odds_with: int | None
    """Index of another frame of the capture."""
    spared: bool
    """Whether a guard-rail kept a frame that the model would have dropped."""

    @property
    def shows_its_place(self) -> bool:
        """Whether the frame shows what is to be seen from its pose: many matches that obey the pose prove it."""
        if self.reason in UNUSABLE or self.reason == "pose":
            return False
        proven = self.evidence.get("most_verified_matches", 0.0) >= _PROVING_MATCHES
        return self.reason != "foreign" or (proven and self.evidence.get("matches_that_obey_pose", 0.0) >= 0.5)


_PROVING_MATCHES = 30
"""Verified matches with one other frame that show that a frame is of this place."""


def decide(
    excluded: ExcludedFrames, tokens: FrameTokens, scored: Scored, settings: VerdictSettings
) -> tuple[Verdict, ...]:
    """Judge every frame of a capture.

    Args:
        excluded: what the rules say of all frames.
        tokens: tokens of all frames, poses that are absurdly far out taken for absent.
        scored: the transformer's word on all frames, and the evidence.
        settings: how scores become verdicts.
    """
    judged = np.array([reason is None for reason in excluded.reasons])
    scores = scored.scores
    neighbour_differences = compare_neighbours(tokens)
    now, claimed = (VerdictEvidence(neighbour_differences, evidence) for evidence in (scored.evidence, scored.claimed))
    soft, blank = judged & _is_soft(now, settings.min_sharpness), judged & _is_blank(scored.evidence)
    above_threshold = judged & (np.nan_to_num(scores.inconsistency) >= settings.threshold)
    exempt = np.isin(np.arange(len(judged)), list(settings.repaired))
    irreplaceable = np.isin(np.arange(len(judged)), list(settings.irreplaceable))
    contradicted = is_contradicted(scores.reasons, scores.blurred, scored.claimed or scored.evidence)
    above_threshold &= ~(contradicted & (scores.inconsistency < CERTAIN_IN_SPITE))
    kept_for_coverage = irreplaceable & (np.nan_to_num(scores.inconsistency) < max(NEAR_CERTAINTY, settings.threshold))
    if settings.keep_exposure:
        exempt |= np.nan_to_num(scores.reasons).argmax(axis=1) == MODEL_REASONS.index("exposure")
    most = settings.guard_rails.most_to_drop(int(judged.sum()))
    dropped = _worst(scores.inconsistency, above_threshold & ~exempt & ~kept_for_coverage, most) | soft | blank
    verdicts = []
    for i, reason in enumerate(excluded.reasons):
        if reason is not None:
            verdicts.append(_excluded_verdict(reason, tokens.present[i], scores, i))
            continue
        repaired = i in settings.repaired
        by_rule: ModelReason | None = "exposure" if blank[i] else "blur" if soft[i] and not above_threshold[i] else None
        flags = _FrameFlags(bool(above_threshold[i]), bool(dropped[i]), bool(exempt[i]), repaired, by_rule)
        verdicts.append(_decide_frame(i, flags, tokens, scores, claimed if repaired else now))
    return tuple(verdicts)


def is_contradicted(
    reasons: Float[np.ndarray, "frame 5"], blurred: Float[np.ndarray, " frame"], evidence: Evidence | None
) -> Bool[np.ndarray, " frame"]:
    """Return which frames have a reason that the evidence contradicts; below ``CERTAIN_IN_SPITE`` they stay.

    An exposure that loses no detail: automatic exposure changes by a stop and more along a path; a NeRF loses little by
    it, and all of a dropped frame. A blur where edges are as sharp as elsewhere.

    Args:
        reasons: probability of each of ``MODEL_REASONS``.
        blurred: probability of blur alone, 0 where it cannot be measured.
        evidence: about the same frames; without it nothing is contradicted.
    """
    reason = np.nan_to_num(reasons).argmax(axis=1)
    if evidence is None:
        return np.zeros(len(reason), dtype=bool)
    shares = [evidence.number(name) for name in ("dark share", "bright share")]
    above = [evidence.number(f"{name} above partners") for name in ("dark share", "bright share")]
    detail_is_there = (np.maximum(*above) < _DETAIL_LOST) & (np.maximum(*shares) < _NO_DETAIL)
    is_sharp = (np.nan_to_num(blurred) > 0) & (np.nan_to_num(blurred) < _SHARP)
    of_exposure, of_blur = (reason == MODEL_REASONS.index(name) for name in ("exposure", "blur"))
    return (of_exposure & detail_is_there) | (of_blur & is_sharp)


def _is_blank(evidence: Evidence | None) -> Bool[np.ndarray, " frame"] | bool:
    """Tell which images show nothing: nearly all black or white, and without a keypoint."""
    if evidence is None:
        return False
    clipped = np.maximum(evidence.number("dark share"), evidence.number("bright share"))
    return (evidence.number("log10 keypoints") == 0) & (clipped >= _BLANK)


_BLANK = 0.95
"""Share of an image's pixels that are black, or white, from which on it may show nothing."""


def _is_soft(verdict_evidence: VerdictEvidence, least: float) -> Bool[np.ndarray, " frame"] | bool:
    """Tell which frames are less sharp than is asked for."""
    if not least or "relative_sharpness" not in verdict_evidence.image_quality:
        return False
    return np.nan_to_num(verdict_evidence.image_quality["relative_sharpness"], nan=1.0) < least


def _worst(
    inconsistency: Float[np.ndarray, " frame"], above_threshold: Bool[np.ndarray, " frame"], most: int
) -> Bool[np.ndarray, " frame"]:
    """Return the ``most`` worst of the guilty frames; of equal ones, the earlier."""
    order: Int[np.ndarray, " frame"] = np.argsort(np.where(above_threshold, -inconsistency, np.inf), kind="stable")
    worst = np.zeros(len(above_threshold), dtype=bool)
    worst[order[: min(most, int(above_threshold.sum()))]] = True
    return worst


def _excluded_verdict(reason: Reason, present: Bool[np.ndarray, "5"], scores: Scores, i: int) -> Verdict:
    modality = _modality(present, scores, i)
    if reason == "pose":
        modality = ModalityScores(modality.image, 1.0, modality.time)
    return Verdict(1.0, False, reason, "rule", modality, {}, None, False)


@dataclass(frozen=True)
class _FrameFlags:
    """What is known about one frame when its verdict is written."""

    above_threshold: bool
    dropped: bool
    exempt: bool
    repaired: bool
    by_rule: ModelReason | None
    """Why it goes whatever the model says: it is less sharp than the user asks for, or shows nothing."""


def _decide_frame(
    i: int, flags: _FrameFlags, tokens: FrameTokens, scores: Scores, verdict_evidence: VerdictEvidence
) -> Verdict:
    likeliest = flags.by_rule or MODEL_REASONS[int(np.argmax(scores.reasons[i]))]
    reason: Reason | None = likeliest if flags.dropped else "pose" if flags.repaired else None
    return Verdict(
        inconsistency=float(scores.inconsistency[i]),
        kept=not flags.dropped,
        reason=reason,
        decided_by="rule" if flags.by_rule else "model",
        modality=_modality(tokens.present[i], scores, i),
        evidence=verdict_evidence.numbers(i),
        most_at_odds_with=verdict_evidence.most_contradicting(i, "pose" if flags.repaired else likeliest)
        if flags.above_threshold
        else None,
        spared=flags.above_threshold and not flags.dropped and not flags.exempt,
    )


def _modality(present: Bool[np.ndarray, "5"], scores: Scores, i: int) -> ModalityScores:
    """Return the modalities' scores, None for those that the frame lacks or that were not read."""
    values = [
        float(scores.modality[i, k]) if present[PARTS.index(part)] and np.isfinite(scores.modality[i, k]) else None
        for k, part in enumerate(("embedding", "pose", "timestamp"))
    ]
    return ModalityScores(*values)
