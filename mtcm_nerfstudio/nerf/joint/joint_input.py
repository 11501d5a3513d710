"""Input of the transformer in joint fine-tuning: tokens and evidence of the training frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard
from mtcm_nerfstudio.consistency.evidence_encoder import EvidenceInput, evidence_input
from mtcm_nerfstudio.consistency.score import windows
from mtcm_nerfstudio.decisions import Matrix
from mtcm_nerfstudio.evidence.frame_numbers import Evidence, compute_evidence
from mtcm_nerfstudio.evidence.match_capture import match_capture
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.progress import progress_bars
from mtcm_nerfstudio.tokens.tokenise import tokens_of
from mtcm_nerfstudio.tokens.tokens import RawFeatures, assemble_tokens


@dataclass(frozen=True, eq=False)
class JointInput:
    """The training frames in windows of one length, each normalised by itself as in training."""

    tokens: Float[Tensor, "window place 394"]
    present: Bool[Tensor, "window place 5"]
    frame: Int[Tensor, "window place"]
    """Index into the training set of the frame at each place."""
    evidence: EvidenceInput | None
    blurred: Float[Tensor, " frame"]
    """Probability that each frame of the training set is blurred, by the checkpoint's judge of blur."""

    def to(self, device: torch.device) -> "JointInput":
        """Return the same on another device."""
        evidence = None if self.evidence is None else self.evidence.to(device)
        parts = (self.tokens.to(device), self.present.to(device), self.frame.to(device))
        return JointInput(*parts, evidence, self.blurred.to(device))

    def mean_over_windows(self, values: Float[Tensor, "window place *rest"], frames: int) -> Tensor:
        """Return for each frame the mean of the values that it has in the windows it lies in."""
        flat, frame = values.flatten(0, 1), self.frame.flatten()
        total = flat.new_zeros((frames, *flat.shape[1:])).index_add(0, frame, flat)
        count = flat.new_zeros(frames).index_add(0, frame, torch.ones_like(frame, dtype=flat.dtype))
        return total / count.clamp(min=1.0).reshape(-1, *[1] * (flat.ndim - 1))


def read_training_frames(
    capture: Capture,
    names: Sequence[str],
    repaired: Mapping[str, Matrix],
    card: CheckpointCard,
    with_evidence: bool,
    cache: Cache,
) -> JointInput:
    """Prepare what the transformer reads of the frames that a NeRF trains on.

    Args:
        capture: the whole capture, whose order is that of time.
        names: ``file_path`` of every training frame, in the training set's order.
        repaired: poses, in the capture's world, that stand in for those that the capture claims.
        card: of the transformer's checkpoint.
        with_evidence: whether to match the frames.
        cache: where embeddings and matches are kept.

    Raises:
        ValueError: the capture does not list one of the frames.
    """
    tokenised = tokens_of(capture, card.embedder, cache)
    row_of = {name: row for row, name in enumerate(tokenised.raw.file_paths)}
    missing = [name for name in names if name not in row_of]
    if missing:
        raise ValueError(f"{capture.name}: the capture no longer lists {missing[0]}, which the run trains on")
    rows = np.array([row_of[name] for name in names], dtype=int)
    in_time = np.argsort(rows, kind="stable")
    raw = _with_poses(tokenised.raw.subset(rows[in_time]), repaired)
    evidence = None
    if with_evidence:
        frames = [capture.frames[row] for row in rows[in_time]]
        c2w = assemble_tokens(raw).canonical_frame.to_capture(raw.c2w.astype(np.float64))
        everyone = np.ones(len(raw), dtype=bool)
        matched = match_capture(frames, raw.embeddings, c2w, everyone, cache, progress_bars())
        evidence = compute_evidence(matched.table, raw.embeddings, c2w, everyone)
    blurred = np.zeros(len(raw))
    if evidence is not None:
        blurred[in_time] = card.blur_judge.probability(evidence.frames)
    return _in_windows(raw, evidence, blurred, in_time, card.window)


def _in_windows(
    raw: RawFeatures, evidence: Evidence | None, blurred: np.ndarray, frame: np.ndarray, length: int
) -> JointInput:
    places = windows(len(raw), length)
    tokens = [assemble_tokens(raw.subset(window)) for window in places]
    parts = [None if evidence is None else evidence.subset(window) for window in places]
    return JointInput(
        tokens=torch.from_numpy(np.stack([one.tokens for one in tokens])),
        present=torch.from_numpy(np.stack([one.present for one in tokens])),
        frame=torch.from_numpy(np.stack([frame[window] for window in places])),
        evidence=evidence_input(parts),
        blurred=torch.from_numpy(blurred).float(),
    )


def _with_poses(raw: RawFeatures, repaired: Mapping[str, Matrix]) -> RawFeatures:
    c2w = raw.c2w.copy()
    for row, name in enumerate(raw.file_paths):
        if name in repaired:
            c2w[row] = np.array(repaired[name])
    return replace(raw, c2w=c2w)
