"""From scores to verdicts: which frames go, why, and which guard-rail held one back."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mtcm_nerfstudio.decisions import DecidedBy, ModalityScores, Reason
from mtcm_nerfstudio.tokens.tokens import PARTS, FrameTokens
from mtcm_nerfstudio.verdicts.neighbours import Neighbourhood, compare_neighbours
from mtcm_nerfstudio.verdicts.rules import RuledOut
from mtcm_nerfstudio.verdicts.score import MODEL_REASONS, Scores


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
class Verdict:
    """What is to be done with one frame, and the grounds."""

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


def judge(
    ruled: RuledOut, tokens: FrameTokens, scores: Scores, threshold: float, guard_rails: GuardRails
) -> tuple[Verdict, ...]:
    """Judge every frame of a capture.

    Args:
        ruled: what the rules say of all frames.
        tokens: tokens of all frames, poses that are absurdly far out taken for absent.
        scores: the transformer's word on all frames (NaN for those that it did not read).
        threshold: frames whose inconsistency is at or above this go.
        guard_rails: how many may go at most.
    """
    judged = np.array([reason is None for reason in ruled.reasons])
    guilty = judged & (np.nan_to_num(scores.inconsistency) >= threshold)
    dropped = _worst(scores.inconsistency, guilty, guard_rails.most_to_drop(int(judged.sum())))
    neighbourhood = compare_neighbours(tokens)
    return tuple(
        _ruled(reason, tokens.present[i], scores, i)
        if reason is not None
        else _scored(i, bool(dropped[i]), bool(guilty[i]), tokens.present[i], scores, neighbourhood)
        for i, reason in enumerate(ruled.reasons)
    )


def _worst(
    inconsistency: Float[np.ndarray, " frame"], guilty: Bool[np.ndarray, " frame"], most: int
) -> Bool[np.ndarray, " frame"]:
    """Return the ``most`` worst of the guilty frames; of equal ones, the earlier."""
    order: Int[np.ndarray, " frame"] = np.argsort(np.where(guilty, -inconsistency, np.inf), kind="stable")
    worst = np.zeros(len(guilty), dtype=bool)
    worst[order[: min(most, int(guilty.sum()))]] = True
    return worst


def _ruled(reason: Reason, present: Bool[np.ndarray, "5"], scores: Scores, i: int) -> Verdict:
    modality = _modality(present, scores, i)
    if reason == "pose":
        modality = ModalityScores(modality.image, 1.0, modality.time)
    return Verdict(1.0, False, reason, "rule", modality, {}, None, False)


def _scored(
    i: int,
    dropped: bool,
    guilty: bool,
    present: Bool[np.ndarray, "5"],
    scores: Scores,
    neighbourhood: Neighbourhood,
) -> Verdict:
    likeliest: Reason = MODEL_REASONS[int(np.argmax(scores.reasons[i]))]
    odd = neighbourhood.odd_pose[i] if likeliest == "pose" else neighbourhood.odd_image[i]
    return Verdict(
        inconsistency=float(scores.inconsistency[i]),
        kept=not dropped,
        reason=likeliest if dropped else None,
        decided_by="model",
        modality=_modality(present, scores, i),
        evidence=_evidence(neighbourhood, i),
        most_at_odds_with=int(odd) if guilty and odd >= 0 else None,
        spared=guilty and not dropped,
    )


def _modality(present: Bool[np.ndarray, "5"], scores: Scores, i: int) -> ModalityScores:
    """Return the modalities' scores, None for those that the frame lacks or that were not read."""
    values = [
        float(scores.modality[i, k]) if present[PARTS.index(part)] and np.isfinite(scores.modality[i, k]) else None
        for k, part in enumerate(("embedding", "pose", "timestamp"))
    ]
    return ModalityScores(*values)


def _evidence(neighbourhood: Neighbourhood, i: int) -> dict[str, float]:
    found = {
        "image_difference_from_pose_neighbours": float(neighbourhood.image_difference[i]),
        "pose_distance_from_lookalikes": float(neighbourhood.pose_difference[i]),
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}
