"""Filter a capture: tokens and evidence, verdicts, repair, selection, decisions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.colmap_model import sparse_points
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, load_checkpoint
from mtcm_nerfstudio.consistency.infill_poses import infill_poses
from mtcm_nerfstudio.decisions import UNUSABLE, Decisions, FrameDecision, Matrix
from mtcm_nerfstudio.filter_settings import FilterSettings, capture_digest, settings_record
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders.base import EmbedderName
from mtcm_nerfstudio.tokens.tokenise import tokens_of
from mtcm_nerfstudio.tokens.tokens import RawFeatures, assemble_tokens
from mtcm_nerfstudio.verdicts.decide import Verdict, VerdictSettings, decide
from mtcm_nerfstudio.verdicts.exclude_unusable import exclude_unusable_frames
from mtcm_nerfstudio.verdicts.score_capture import repair_capture, score_capture
from mtcm_nerfstudio.views.coverage import coverage_gaps
from mtcm_nerfstudio.views.labels.face_detection import face_directions
from mtcm_nerfstudio.views.labels.zero_shot import classify_images
from mtcm_nerfstudio.views.select_views import CandidateFrames, ViewSelection, select_views


@dataclass(frozen=True, eq=False)
class Filtered:
    """What one pass of the filter gives."""

    decisions: Decisions
    states: Float[np.ndarray, "frame 256"]


def filter_capture(
    capture: Capture,
    settings: FilterSettings,
    cache: Cache,
    progress: bool = True,
    manual_decisions: Mapping[str, bool] | None = None,
) -> Filtered:
    """Filter a capture, from its files to decisions, without writing anything but the cache.

    Args:
        capture: as it was read.
        settings: how to filter.
        cache: where embeddings and matches are kept.
        progress: show progress bars on standard error.
        manual_decisions: frames that a person keeps (True) or drops, by name. They count where views are
            selected; their verdict in the returned decisions is still the model's.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint was trained on another embedding, or on another version of it, an embedding file is
            damaged, or the selection settings cannot be met.
    """
    claimed = capture
    capture, given = with_given_poses(claimed, settings.poses)
    model, card = load_checkpoint(settings.checkpoint)
    threshold = card.threshold if settings.threshold is None else settings.threshold
    tokenised = tokens_of(capture, embedder_for(settings, card), cache, progress)
    card.require_embedder(tokenised.raw.embedder, tokenised.embedder_version)
    excluded = exclude_unusable_frames(tokenised)
    scored = score_capture(model, card, capture, excluded, cache, settings.evidence, progress)
    repaired: dict[int, Matrix] = {}
    if settings.repair:
        scored, repaired = repair_capture(model, card, excluded, scored, threshold, cache)
    rules = VerdictSettings(
        threshold,
        settings.guard_rails,
        settings.keep_exposure,
        frozenset(repaired),
        min_sharpness=settings.min_sharpness,
    )
    tokens = assemble_tokens(excluded.raw)
    verdicts = decide(excluded, tokens, scored, rules)
    irreplaceable = _alone_in_a_part(_at(excluded.raw, repaired), verdicts)
    if irreplaceable:
        verdicts = decide(excluded, tokens, scored, replace(rules, irreplaceable=irreplaceable))
    raw = _at(tokenised.raw, repaired)
    view_selection = select_views(
        _known(raw, verdicts, scored.scores.states, frozenset(repaired), manual_decisions or {}),
        settings.selection_settings,
        sparse_points(capture) if settings.suggest else None,
        lambda some: infill_poses(model, raw.subset(some), card.window),
        lambda some: face_directions([capture.frames[i] for i in some], cache),
    )
    words = classify_images(capture.frames, settings.words, cache, progress) if settings.words else (None,) * len(raw)
    decisions = Decisions(
        capture_digest=capture_digest(claimed, cache),
        settings=settings_record(settings, card, given),
        checkpoint=f"{card.name} {card.digest[:16]}",
        embedder=tokenised.raw.embedder,
        threshold=threshold,
        frames=_frame_decisions(raw.file_paths, verdicts, given, repaired, view_selection, words),
        suggested=view_selection.suggested,
        front=view_selection.front,
    )
    return Filtered(decisions, scored.scores.states)


_GAP = 2.5
"""Times the usual spacing from which on dropped frames leave a part of the subject unseen."""


def _alone_in_a_part(raw: RawFeatures, verdicts: tuple[Verdict, ...]) -> frozenset[int]:
    """Return the dropped frames inside a coverage gap."""
    kept = np.array([verdict.kept for verdict in verdicts], dtype=bool)
    trusted = np.array([verdict.shows_its_place for verdict in verdicts], dtype=bool)
    # A frame that has nothing in common with any other shows nothing that is known to be the subject.
    by_model = {
        i
        for i, verdict in enumerate(verdicts)
        if not verdict.kept and verdict.decided_by == "model" and verdict.evidence.get("most_verified_matches", 0.0) > 0
    }
    gaps = coverage_gaps(raw.c2w.astype(np.float64), kept, trusted, _GAP)
    return frozenset(i for gap in gaps for i in range(gap.first, gap.last + 1) if i in by_model)


def _at(raw: RawFeatures, repaired: Mapping[int, Matrix]) -> RawFeatures:
    """Return features with repaired poses in place."""
    c2w = raw.c2w.copy()
    for i, pose in repaired.items():
        c2w[i] = np.array(pose)
    return replace(raw, c2w=c2w)


def _known(
    raw: RawFeatures,
    verdicts: tuple[Verdict, ...],
    states: Float[np.ndarray, "frame 256"],
    repaired: frozenset[int],
    manual_decisions: Mapping[str, bool],
) -> CandidateFrames:
    usable = np.array([verdict.reason not in UNUSABLE for verdict in verdicts], dtype=bool)
    kept = np.array(
        [manual_decisions.get(name, verdict.kept) for name, verdict in zip(raw.file_paths, verdicts, strict=True)]
    )
    fixed = np.array([manual_decisions.get(name, False) for name in raw.file_paths], dtype=bool)
    return CandidateFrames(
        names=raw.file_paths,
        c2w=raw.c2w.astype(np.float64),
        kept=kept.astype(bool) & usable,
        fixed=fixed & usable,
        states=states,
        embeddings=raw.embeddings,
        # A repaired frame's inconsistency is that of the pose it had.
        inconsistency=np.array(
            [0.0 if i in repaired else verdict.inconsistency for i, verdict in enumerate(verdicts)], dtype=np.float64
        ),
        evidence=tuple(verdict.evidence for verdict in verdicts),
    )


def with_given_poses(capture: Capture, path: Path | None) -> tuple[Capture, dict[int, Matrix]]:
    """Return a capture at the poses that a file of decisions has for it, and these poses by the frames' numbers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    if path is None:
        return capture, {}
    pose_of = {frame.file_path: frame.repaired_transform_matrix for frame in decisions_file.read(path).repaired}
    given = {i: pose for i, frame in enumerate(capture.frames) if (pose := pose_of.get(frame.file_path)) is not None}
    frames = [replace(f, c2w=np.array(given[i])) if i in given else f for i, f in enumerate(capture.frames)]
    return replace(capture, frames=tuple(frames)), given


def embedder_for(settings: FilterSettings, card: CheckpointCard) -> EmbedderName:
    """Return the checkpoint's embedder, or raise ValueError where the settings insist on another."""
    if settings.embedder is not None:
        card.require_embedder(settings.embedder)
    return card.embedder


def _frame_decisions(
    names: tuple[str, ...],
    verdicts: tuple[Verdict, ...],
    given: Mapping[int, Matrix],
    repaired: Mapping[int, Matrix],
    view_selection: ViewSelection,
    words: tuple[str | None, ...],
) -> tuple[FrameDecision, ...]:
    decided = (
        FrameDecision(
            file_path=name,
            inconsistency=verdict.inconsistency,
            kept=verdict.kept,
            reason=verdict.reason or ("pose" if i in given else None),
            decided_by=verdict.decided_by,
            label=view_selection.pose_labels[i],
            words=words[i],
            modality=verdict.modality,
            evidence=verdict.evidence,
            most_at_odds_with=None if verdict.most_at_odds_with is None else names[verdict.most_at_odds_with],
            repaired_transform_matrix=repaired.get(i, given.get(i)),
            spared=verdict.spared,
        )
        for i, (name, verdict) in enumerate(zip(names, verdicts, strict=True))
    )
    return tuple(_apply_view_selection(frame, view_selection, i) for i, frame in enumerate(decided))


def _apply_view_selection(frame: FrameDecision, view_selection: ViewSelection, i: int) -> FrameDecision:
    """Drop a consistent frame that the selection leaves out: by label (manual) or as redundant."""
    if not frame.kept or not (view_selection.unwanted[i] or view_selection.redundant[i]):
        return frame
    reason = "manual" if view_selection.unwanted[i] else "redundant"
    return replace(frame, kept=False, reason=reason, decided_by="rule", spared=False)
