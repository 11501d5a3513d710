"""Label the frames, select views under a budget, and suggest missing poses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mtcm_nerfstudio.decisions import SuggestedView
from mtcm_nerfstudio.views.facility_location import best_of_duplicates, facility_location, view_points, view_quality
from mtcm_nerfstudio.views.labels.front import Faces, front_by_face
from mtcm_nerfstudio.views.labels.pose_labels import pose_labels
from mtcm_nerfstudio.views.suggestion.suggest_views import suggest


@dataclass(frozen=True)
class SelectionSettings:
    """Selection settings: budget, wanted labels, front, number of suggestions."""

    max_frames: int | None = None
    coverage: float | None = None
    keep_labels: tuple[str, ...] = ()
    front: str | None = None
    suggest: int = 0
    min_frames: int = 1
    """Fewer than these are not left, where the capture has as many (by label alone, fewer may be)."""


@dataclass(frozen=True, eq=False)
class CandidateFrames:
    """What is known of all frames of a capture, in temporal order, once it is clear which are consistent."""

    names: tuple[str, ...]
    c2w: Float[np.ndarray, "n 4 4"]
    """Repaired where they were; NaN where there is none."""
    kept: Bool[np.ndarray, " n"]
    """Consistent, or kept by a person."""
    fixed: Bool[np.ndarray, " n"]
    """Kept by a person, whatever else."""
    states: Float[np.ndarray, "n 256"]
    embeddings: Float[np.ndarray, "n 384"]
    inconsistency: Float[np.ndarray, " n"]
    evidence: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, eq=False)
class ViewSelection:
    """What the views come to."""

    pose_labels: tuple[str | None, ...]
    unwanted: Bool[np.ndarray, " n"]
    """Consistent frames without any of the labels that are wanted."""
    redundant: Bool[np.ndarray, " n"]
    """Consistent frames that others stand for."""
    suggested: tuple[SuggestedView, ...]
    front: str | None
    """Name of the frame that sees the front; None where nothing tells."""


def select_views(
    frames: CandidateFrames,
    selection_settings: SelectionSettings,
    points: Float[np.ndarray, "p 3"] | None = None,
    infill: Callable[[Bool[np.ndarray, " n"]], Float[np.ndarray, "m 4 4"]] | None = None,
    faces: Faces | None = None,
) -> ViewSelection:
    """Label every frame, thin out the consistent ones as far as is wished, and suggest what is missing.

    Args:
        frames: the frames.
        selection_settings: what is wanted.
        points: of the scene.
        infill: returns poses that the transformer imagines between given frames.
        faces: finds faces, which tell the front where the user does not.

    Raises:
        ValueError: the frame that is to be the front is not there or has no pose, or no frame has a wanted label.
    """
    posed = np.isfinite(frames.c2w).all(axis=(1, 2))
    front = _front(frames.names, posed, selection_settings.front)
    if front is None and faces is not None:
        front = front_by_face(frames.c2w, frames.kept & posed, faces)
    frame_labels = pose_labels(frames.c2w, front)
    unwanted = frames.kept & ~frames.fixed & ~_labelled(frame_labels, selection_settings.keep_labels)
    if selection_settings.keep_labels and not (frames.kept & ~unwanted).any():
        there = sorted({label for label in frame_labels if label})
        raise ValueError(
            f"--keep-labels: no frame is {' or '.join(selection_settings.keep_labels)}; there are: {'; '.join(there)}"
        )
    kept = frames.kept & ~unwanted
    redundant = _redundant(frames, kept, selection_settings)
    covering = np.flatnonzero(kept & ~redundant & posed)
    found = ()
    if selection_settings.suggest:
        infilled = None if infill is None else infill(kept & ~redundant & posed)
        found = suggest(frames.c2w[covering], selection_settings.suggest, infilled, points)
    poses = np.stack([one.c2w for one in found]) if found else np.zeros((0, 4, 4))
    after = [int(covering[one.seen_best_by[0]]) for one in found]
    suggested = tuple(
        SuggestedView(
            tuple(tuple(float(number) for number in row) for row in one.c2w),
            label,
            round(one.gain, 6),
            tuple(frames.names[covering[j]] for j in one.seen_best_by),
        )
        for one, label in zip(found, label_suggested_poses(frames.c2w, poses, after, front), strict=True)
    )
    return ViewSelection(frame_labels, unwanted, redundant, suggested, None if front is None else frames.names[front])


def label_suggested_poses(
    c2w: Float[np.ndarray, "n 4 4"], others: Float[np.ndarray, "m 4 4"], after: Sequence[int], front: int | None = None
) -> tuple[str | None, ...]:
    """Label poses that are not frames of a capture, by the subject and the path that its frames define.

    Args:
        c2w: of the frames.
        others: to be labelled.
        after: index of the frame that each of the others would come after.
        front: index of the frame that sees the front.
    """
    order = np.argsort(np.concatenate([np.arange(len(c2w)), np.array(after, dtype=float) + 0.5]), kind="stable")
    real = order < len(c2w)
    place = np.argsort(order)
    frame_labels = pose_labels(np.concatenate([c2w, others])[order], None if front is None else int(place[front]), real)
    return tuple(frame_labels[i] for i in place[len(c2w) :])


def _front(names: Sequence[str], posed: Bool[np.ndarray, " n"], front: str | None) -> int | None:
    """Return the index of the frame that a user calls the front, by its path or its file name alone."""
    if front is None:
        return None
    found = [i for i, name in enumerate(names) if front in (name, name.rsplit("/", 1)[-1])]
    if len(found) != 1:
        raise ValueError(f"--front: {front} is {'not one' if not found else 'the name of several'} of the frames")
    if not posed[found[0]]:
        raise ValueError(f"--front: {front} has no pose")
    return found[0]


def _labelled(frame_labels: Sequence[str | None], wanted: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Tell which labels hold one of the wanted words as a part of their own; all do where none is wanted."""
    asked = {one.strip().casefold() for one in wanted}
    return np.array([not asked or bool(asked & set((label or "").split(", "))) for label in frame_labels], dtype=bool)


def _redundant(
    frames: CandidateFrames, kept: Bool[np.ndarray, " n"], selection_settings: SelectionSettings
) -> Bool[np.ndarray, " n"]:
    """Tell which of the kept frames others stand for, where fewer are wanted."""
    redundant = np.zeros(len(kept), dtype=bool)
    if (selection_settings.max_frames is None and selection_settings.coverage is None) or not kept.any():
        return redundant
    quality = view_quality(frames.inconsistency, frames.evidence, frames.c2w)
    leader = best_of_duplicates(frames.c2w, frames.embeddings, np.where(frames.fixed, 2.0, quality), kept)
    unlike = kept & (frames.fixed | (leader == np.arange(len(kept))))
    fewest, most = max(selection_settings.min_frames, 1), selection_settings.max_frames
    fixed, candidates = frames.fixed, unlike
    if unlike.sum() < min(fewest, most or fewest):  # as many duplicates come back as are to be left, and no more
        fixed, candidates, most = unlike, kept, min(fewest, most or fewest)
    some = np.flatnonzero(candidates)
    points = view_points(frames.c2w, np.where(kept[:, None], frames.states, np.nan))[some]
    selection = facility_location(
        points, quality[some], most, selection_settings.coverage, np.flatnonzero(fixed[some]), fewest
    )
    redundant[kept] = True
    redundant[some[selection.chosen]] = False
    return redundant
