"""Score a capture: match, compute evidence, run the model; then repair poses and score again."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard
from mtcm_nerfstudio.consistency.score import MODEL_REASONS, Scores, score_frames
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.decisions import Matrix
from mtcm_nerfstudio.evidence.frame_numbers import Evidence, compute_evidence
from mtcm_nerfstudio.evidence.match_capture import MatchedCapture, match_capture, match_features
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.progress import progress_bars
from mtcm_nerfstudio.tokens.tokens import RawFeatures, assemble_tokens
from mtcm_nerfstudio.verdicts.exclude_unusable import ExcludedFrames
from mtcm_nerfstudio.verdicts.repair import repair_poses

_DECIMALS = 10
"""Of a repaired pose, in the world's unit."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores and evidence of all frames of a capture."""

    scores: Scores
    """NaN for frames that were not read."""
    evidence: Evidence | None
    """About all frames, in their order."""
    matched: MatchedCapture | None
    claimed: Evidence | None = None
    """The evidence before any pose was repaired."""


def score_capture(
    model: ConsistencyTransformer,
    card: CheckpointCard,
    capture: Capture,
    excluded: ExcludedFrames,
    cache: Cache,
    with_evidence: bool = True,
    progress: bool = True,
) -> Scored:
    """Score a capture as it claims to be."""
    if not with_evidence or not excluded.readable.any():
        return Scored(_scores(model, card, excluded, excluded.raw, None), None, None)
    evidence, matched = evidence_of_capture(capture, excluded, cache, progress)
    return Scored(_scores(model, card, excluded, excluded.raw, evidence), evidence, matched)


def evidence_of_capture(
    capture: Capture, excluded: ExcludedFrames, cache: Cache, progress: bool = True
) -> tuple[Evidence, MatchedCapture]:
    """Match a capture's frames and return the evidence about them at their claimed poses."""
    c2w, embeddings = _in_own_frame(excluded.raw), excluded.raw.embeddings
    matched = match_capture(capture.frames, embeddings, c2w, excluded.readable, cache, progress_bars(progress))
    return compute_evidence(matched.table, embeddings, c2w, excluded.readable), matched


def repair_capture(
    model: ConsistencyTransformer,
    card: CheckpointCard,
    excluded: ExcludedFrames,
    scored: Scored,
    threshold: float,
    cache: Cache,
) -> tuple[Scored, dict[int, Matrix]]:
    """Give frames whose image agrees and whose pose does not the pose that their matches with the others ask for.

    A repaired pose stands if the transformer, shown the capture with it, finds the frame consistent. The frame keeps
    the inconsistency that it had as claimed; all others are scored beside the repaired ones.

    Returns:
        The scores and evidence after the repair, and the repaired frames' camera-to-world matrices.
    """
    scores, matched = scored.scores, scored.matched
    if matched is None:
        return scored, {}
    above_threshold = np.nan_to_num(scores.inconsistency) >= threshold
    posed = excluded.readable & excluded.raw.posed
    suspects = above_threshold & posed & (scores.reasons.argmax(axis=1) == MODEL_REASONS.index("pose"))
    if not suspects.any():
        return scored, {}
    found = repair_poses(matched, excluded.raw.c2w, suspects, posed & ~above_threshold)
    while found:
        c2w = excluded.raw.c2w.copy()
        c2w[list(found)] = np.stack(list(found.values()))
        raw = replace(excluded.raw, c2w=c2w)
        after = _scored_again(model, card, excluded, raw, matched, cache)
        refuted = [i for i in found if not after.scores.inconsistency[i] < threshold]
        if not refuted:
            return _as_claimed(after, scored, found), {i: _matrix(pose) for i, pose in found.items()}
        found = {i: pose for i, pose in found.items() if i not in refuted}
    return scored, {}


def _scored_again(
    model: ConsistencyTransformer,
    card: CheckpointCard,
    excluded: ExcludedFrames,
    raw: RawFeatures,
    matched: MatchedCapture,
    cache: Cache,
) -> Scored:
    """Score with other poses; frames that these put side by side are matched as well."""
    c2w = _in_own_frame(raw)
    track = progress_bars(shown=False)
    more = match_features(matched.features, raw.embeddings, c2w, excluded.readable, cache, track)
    evidence = compute_evidence(more.table, raw.embeddings, c2w, excluded.readable)
    return Scored(_scores(model, card, excluded, raw, evidence), evidence, more)


def _as_claimed(after: Scored, before: Scored, repaired: dict[int, np.ndarray]) -> Scored:
    """Put back what the transformer said of the repaired frames as they were claimed to be."""
    rows = list(repaired)
    inconsistency, modality, reasons = (
        getattr(after.scores, name).copy() for name in ("inconsistency", "modality", "reasons")
    )
    inconsistency[rows] = before.scores.inconsistency[rows]
    modality[rows], reasons[rows] = before.scores.modality[rows], before.scores.reasons[rows]
    scores = Scores(inconsistency, modality, reasons, after.scores.blurred, after.scores.states)
    return replace(after, scores=scores, claimed=before.evidence)


def _scores(
    model: ConsistencyTransformer,
    card: CheckpointCard,
    excluded: ExcludedFrames,
    raw: RawFeatures,
    evidence: Evidence | None,
) -> Scores:
    """Score the readable frames; NaN for the others."""
    rows = np.flatnonzero(excluded.readable)
    scores = score_frames(model, card, raw.subset(rows), None if evidence is None else evidence.subset(rows))

    def spread(values: Float[np.ndarray, "read ..."]) -> Float[np.ndarray, "frame ..."]:
        out = np.full((len(raw), *values.shape[1:]), np.nan)
        out[rows] = values
        return out

    return Scores(
        *(spread(getattr(scores, name)) for name in ("inconsistency", "modality", "reasons", "blurred", "states"))
    )


def _in_own_frame(raw: RawFeatures) -> Float[np.ndarray, "frame 4 4"]:
    """Return the poses in the capture's own frame of reference and unit."""
    return assemble_tokens(raw).canonical_frame.to_capture(raw.c2w.astype(np.float64))


def _matrix(pose: Float[np.ndarray, "4 4"]) -> Matrix:
    """Round to ten decimals: the last bits depend on how many threads added up, and the same input gives one file."""
    return tuple(tuple(float(value) for value in row) for row in pose.round(_DECIMALS))
