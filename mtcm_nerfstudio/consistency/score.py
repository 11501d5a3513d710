"""Score every frame of a capture with the trained transformer and forest."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from mtcm_nerfstudio.consistency.blur_judge import either
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard
from mtcm_nerfstudio.consistency.evidence_encoder import evidence_input
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelOutput
from mtcm_nerfstudio.evidence.frame_numbers import Evidence
from mtcm_nerfstudio.tokens.tokens import FrameTokens, RawFeatures, assemble_tokens

ModelReason = Literal["pose", "blur", "exposure", "occlusion", "foreign"]
MODEL_REASONS: tuple[ModelReason, ...] = ("pose", "blur", "exposure", "occlusion", "foreign")
"""The reasons that the transformer can name, in the order of its reason head."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores per frame: inconsistency, modality, reasons and states; row i belongs to frame i."""

    inconsistency: Float[np.ndarray, " frame"]
    """Calibrated probability that the frame does not agree with the capture, in [0, 1]."""
    modality: Float[np.ndarray, "frame 3"]
    """The same for its image, its pose and its time alone (not calibrated)."""
    reasons: Float[np.ndarray, "frame 5"]
    """Probability of each of ``MODEL_REASONS``, given that the frame is inconsistent; rows sum to 1."""
    blurred: Float[np.ndarray, " frame"]
    """Probability that the frame is blurred, by the judge of blur alone; 0 where it cannot be measured."""
    states: Float[np.ndarray, "frame 256"]
    """The last layer's token states: the frame's learned (pose) embedding."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.inconsistency)


def score_frames(
    model: ConsistencyTransformer, card: CheckpointCard, raw: RawFeatures, evidence: Evidence | None = None
) -> Scores:
    """Score every frame of a capture against all the others, by its tokens and by the evidence.

    A capture longer than the sequences that the checkpoint was trained on is read in windows of that length, each
    normalised by itself as in training: neighbouring frames together, with half a window's overlap. A frame's
    logits are the mean over the windows that it lies in.
    """
    if len(raw) == 0:
        return Scores(np.zeros(0), np.zeros((0, 3)), np.zeros((0, 5)), np.zeros(0), np.zeros((0, model.config.d_model)))
    logit, forest_logit, modality, reasons, forest_reasons, states = _outputs(model, card, raw, evidence)
    calibrated = card.calibration_scale * logit + card.calibration_forest * forest_logit + card.calibration_offset
    faulty, blurred = _sigmoid(calibrated[:, 0]), np.zeros(len(raw))
    if evidence is not None:
        blurred = card.blur_judge.probability(evidence.frames)
    by_modality = _sigmoid(modality)
    by_modality[:, 0] = either(by_modality[:, 0], blurred)  # blur is a fault of the image
    return Scores(
        inconsistency=either(faulty, blurred),
        modality=by_modality,
        reasons=_with_blur(_reasons(_softmax(reasons), forest_reasons), faulty, blurred),
        blurred=blurred,
        states=states,
    )


def read_logits(
    model: ConsistencyTransformer, card: CheckpointCard, raw: RawFeatures, evidence: Evidence | None = None
) -> tuple[Float[np.ndarray, " frame"], Float[np.ndarray, " frame"]]:
    """Return the log odds that each frame is faulty, of the transformer and of the forest, before calibration."""
    if len(raw) == 0:
        return np.zeros(0), np.zeros(0)
    logit, forest_logit, *_ = _outputs(model, card, raw, evidence)
    return logit[:, 0], forest_logit[:, 0]


def _outputs(
    model: ConsistencyTransformer, card: CheckpointCard, raw: RawFeatures, evidence: Evidence | None
) -> tuple[np.ndarray, ...]:
    """Return the model outputs per frame, averaged over the windows that contain it."""
    sums = [np.zeros((len(raw), width)) for width in (1, 1, 3, 5, 5, model.config.d_model)]
    counts = np.zeros((len(raw), 1))
    for window in windows(len(raw), card.window):
        part_of_evidence = None if evidence is None else evidence.subset(window)
        output = read_tokens(model, assemble_tokens(raw.subset(window)), part_of_evidence)
        parts = (
            output.inconsistency_logit[..., None],
            output.forest_logit[..., None],
            output.modality_logits,
            output.reason_logits,
            output.forest_reasons,
            output.states,
        )
        for total, part in zip(sums, parts, strict=True):
            total[window] += part[0].double().cpu().numpy()
        counts[window] += 1
    return tuple(total / counts for total in sums)


@torch.inference_mode()
def read_tokens(model: ConsistencyTransformer, tokens: FrameTokens, evidence: Evidence | None = None) -> ModelOutput:
    """Run the transformer once over the tokens of one capture, nothing hidden."""
    device = next(model.parameters()).device
    present = torch.from_numpy(tokens.present).to(device)[None]
    given = evidence_input([evidence])
    return model(
        torch.from_numpy(tokens.tokens).to(device)[None],
        present,
        torch.ones_like(present[..., 0]),
        torch.zeros_like(present),
        None if given is None else given.to(device),
    )


def _reasons(
    named: Float[np.ndarray, "frame 5"], by_forest: Float[np.ndarray, "frame 5"]
) -> Float[np.ndarray, "frame 5"]:
    """Return the mean of what the transformer and the forest give as reason, the transformer's alone without forest."""
    has_forest = by_forest.sum(axis=1, keepdims=True) > 0.5
    return np.where(has_forest, 0.5 * (named + by_forest), named)


def _with_blur(
    reasons: Float[np.ndarray, "frame 5"], faulty: Float[np.ndarray, " frame"], blurred: Float[np.ndarray, " frame"]
) -> Float[np.ndarray, "frame 5"]:
    """Return the reasons of two judges together, each as sure as it is of a fault; the second knows only blur."""
    by_blur = np.eye(len(MODEL_REASONS))[MODEL_REASONS.index("blur")]
    total = np.maximum(faulty + blurred, 1e-12)[:, None]
    return np.where(blurred[:, None] > 0, (faulty[:, None] * reasons + blurred[:, None] * by_blur) / total, reasons)


def windows(count: int, length: int) -> list[Int[np.ndarray, " window"]]:
    """Cut frames 0 … count − 1 into windows of at most ``length``, evenly spaced with at least half in common."""
    if count <= length:
        return [np.arange(count)]
    steps = int(np.ceil((count - length) / (length / 2)))
    starts = np.round(np.linspace(0, count - length, steps + 1)).astype(int)
    return [np.arange(start, start + length) for start in starts]


def _sigmoid(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0)))


def _softmax(logits: Float[np.ndarray, "frame kind"]) -> Float[np.ndarray, "frame kind"]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
