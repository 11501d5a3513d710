"""One capture as it came: what the filter and the other methods make of its frames."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.capture_list import CaptureEntry
from benchmarks.detection import quality
from mtcm_nerfstudio.capture.capture import Capture, Frame
from mtcm_nerfstudio.capture.images import UnreadableImageError, read_rgb
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.consistency.checkpoint import load_checkpoint
from mtcm_nerfstudio.consistency.score import read_logits
from mtcm_nerfstudio.decisions import UNUSABLE, FrameDecision
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.filtering import filter_capture
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.tokenise import tokens_of
from mtcm_nerfstudio.verdicts.exclude_unusable import exclude_unusable_frames
from mtcm_nerfstudio.verdicts.score_capture import evidence_of_capture
from mtcm_nerfstudio.views.coverage import coverage_gaps

SHARP_FRAMES_WINDOW, SHARP_FRAMES_PERCENT = 15, 12.5
"""Frames about each one, and how far below their mean, in per cent of the capture's range, its sharpness may be:
sharp-frames' outlier removal at its default sensitivity of 50."""
_LOOKS = f"natural_looks:{quality.VERSION}:{quality.HAS_CLEANVISION}"


@dataclass(frozen=True)
class FilteredFrame:
    """One frame, what is true of it, and what the methods say."""

    file_path: str
    natural: str | None
    """``clear`` or ``mild`` where it is faulty as it came."""
    kept: bool
    moved: bool
    """Whether it was kept at another pose."""
    kept_by_limit: bool
    reason: str | None
    scores: dict[str, float]
    """Of each method, higher is worse."""


@dataclass(frozen=True)
class FilteredCapture:
    """A capture and all its frames that can be trained on."""

    name: str
    group: str
    checkpoint: str
    frames: tuple[FilteredFrame, ...]
    unseen: int
    """Frames of parts of the subject that no kept camera sees any more."""
    images: tuple[Path, ...] = ()
    again: bool = False
    """Whether these frames were judged already, with poses or without, and count in no sum."""

    def good_lost(self) -> int:
        """Return how many good frames are dropped or moved."""
        return sum(frame.natural is None and (not frame.kept or frame.moved) for frame in self.frames)

    def good(self) -> int:
        """Return how many good frames there are."""
        return sum(frame.natural is None for frame in self.frames)

    def found(self, grade: str) -> tuple[int, int]:
        """Return how many natural faults of a grade are dropped, and how many there are."""
        faulty = [frame for frame in self.frames if frame.natural == grade]
        return sum(not frame.kept for frame in faulty), len(faulty)


def filter_and_score(entry: CaptureEntry, folder: Path, checkpoint: Path | None, cache: Cache) -> FilteredCapture:
    """Filter a capture and let the other methods score its frames."""
    capture = read_capture(folder)
    filtered = filter_capture(capture, FilterSettings(checkpoint=checkpoint, suggest=0), cache, progress=False)
    decisions = filtered.decisions.frames
    grade = {fault.file_path: fault.grade for fault in entry.natural_faults}
    rows = [i for i, frame in enumerate(decisions) if frame.reason not in UNUSABLE]
    scores = {"MTCM": np.array([frame.inconsistency for frame in decisions])}
    scores |= logits(capture, checkpoint, cache)
    scores |= looks([capture.frames[i] for i in rows], rows, len(decisions), cache)
    frames = tuple(
        FilteredFrame(
            file_path=decisions[i].file_path,
            natural=grade.get(decisions[i].file_path),
            kept=decisions[i].kept,
            moved=decisions[i].repaired_transform_matrix is not None,
            kept_by_limit=decisions[i].spared,
            reason=decisions[i].reason,
            scores={name: float(values[i]) for name, values in scores.items()},
        )
        for i in rows
    )
    images = tuple(capture.frames[i].image_path for i in rows)
    stem = filtered.decisions.checkpoint
    return FilteredCapture(entry.name, entry.group, stem, frames, unseen(capture, decisions, grade), images)


def logits(capture: Capture, checkpoint: Path | None, cache: Cache) -> dict[str, np.ndarray]:
    """Return the log odds of the transformer and of the forest alone, and the blur judge's probability."""
    model, card = load_checkpoint(checkpoint)
    excluded = exclude_unusable_frames(tokens_of(capture, card.embedder, cache, progress=False))
    evidence, _ = evidence_of_capture(capture, excluded, cache, progress=False)
    rows = np.flatnonzero(excluded.readable)
    found = read_logits(model, card, excluded.raw.subset(rows), evidence.subset(rows))
    out = {}
    blurred = card.blur_judge.probability(evidence.frames[rows])
    for name, values in zip(("transformer alone", "forest alone", "blur judge"), (*found, blurred), strict=True):
        out[name] = np.zeros(len(excluded.raw))
        out[name][rows] = values
    return out


def looks(frames: list[Frame], rows: list[int], count: int, cache: Cache) -> dict[str, np.ndarray]:
    """Return what single images say: sharp-frames' rule (per cent below the neighbours' mean) and CleanVision."""
    keys = [cache.content_digest(frame.image_path) for frame in frames]
    values = []
    for frame, key in zip(frames, keys, strict=True):
        known = cache.get(_LOOKS, key)
        if known is None:
            known = _look(frame.image_path)
            cache.put(_LOOKS, key, known)
        values.append(known)
    sharpness, cleanvision = np.array(values).reshape(-1, 2).T
    below = np.zeros(len(sharpness))
    half = SHARP_FRAMES_WINDOW // 2
    for i in range(len(sharpness)):
        near = np.r_[sharpness[max(0, i - half) : i], sharpness[i + 1 : i + half + 1]]
        below[i] = 100.0 * (near.mean() - sharpness[i]) / max(float(np.ptp(sharpness)), 1e-9) if len(near) >= 3 else 0.0
    out = {"sharp-frames": below, "Laplacian variance": -np.log(np.maximum(sharpness, 1e-6))}
    if quality.HAS_CLEANVISION:
        out["CleanVision"] = 1.0 - cleanvision
    spread = {}
    for name, column in out.items():
        spread[name] = np.zeros(count)
        spread[name][rows] = column
    return spread


def _look(path: Path) -> np.ndarray:
    try:
        image = read_rgb(path)
    except UnreadableImageError:
        return np.zeros(2)
    return np.array([quality.laplacian_variance(image), quality.cleanvision_score(image)])


def unseen(capture: Capture, decisions: tuple[FrameDecision, ...], grade: dict[str, str]) -> int:
    """Return how many good frames were dropped without a kept one anywhere near."""
    nowhere = np.full((4, 4), np.nan)
    c2w = np.stack([nowhere if frame.c2w is None else frame.c2w for frame in capture.frames])
    kept = np.array([frame.kept for frame in decisions])
    good = np.array([frame.file_path not in grade and frame.reason not in UNUSABLE for frame in decisions])
    return sum(gap.last - gap.first + 1 for gap in coverage_gaps(c2w, kept, good))
