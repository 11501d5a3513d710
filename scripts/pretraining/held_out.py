"""How well a checkpoint finds faults in captures that it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score

from mtcm_nerfstudio.capture.corruptions import FAULT_KINDS, POSE_FAULTS
from mtcm_nerfstudio.consistency.blur_judge import BlurJudge
from mtcm_nerfstudio.consistency.evidence_encoder import evidence_input
from mtcm_nerfstudio.consistency.training.corrupt_sequence import (
    CorruptedSequence,
    FaultConfig,
    corrupt_sequence,
    possible_kinds,
)
from mtcm_nerfstudio.consistency.training.training_capture import TrainingCapture
from mtcm_nerfstudio.consistency.transformer_dataset import evidence_of
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.tokens.tokens import assemble_tokens
from mtcm_nerfstudio.verdicts.decide import is_contradicted

AS_IT_CAME, CORRUPTED, OTHER_SESSION = "as it came", "corrupted images", "other session"
SHARE = 0.2
"""Share of the frames whose poses are made wrong."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Logits of frames, with what is true of them; one row a frame of one variant of a capture."""

    capture: np.ndarray
    variant: np.ndarray
    """Kind of the faults that were put in; ``AS_IT_CAME`` where there are none."""
    logit: Float[np.ndarray, " row"]
    forest_logit: Float[np.ndarray, " row"]
    blurred: Float[np.ndarray, " row"]
    """The blur judge's probability."""
    faulty: Bool[np.ndarray, " row"]
    """Whether a fault was put in or was there."""
    contradicted: Bool[np.ndarray, " row"]
    """Whether a verdict would let the frame pass below near certainty; see ``decide.is_contradicted``."""
    natural: np.ndarray
    """What is wrong with the frame as it came; empty where nothing is known to be."""

    def rows(self, chosen: Bool[np.ndarray, " row"]) -> "Measured":
        """Return some rows."""
        return Measured(*(getattr(self, field.name)[chosen] for field in fields(self)))


def measure(
    model: ConsistencyTransformer, blur: BlurJudge, captures: Sequence[TrainingCapture], seed: int = 0
) -> Measured:
    """Score whole captures, as they came, with corrupted images, and with each kind of wrong poses.

    Frames of which it is not known whether they are faulty are left out.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for capture in captures:
        original = capture.with_copy(0)
        parts.append(_score(model, blur, corrupt_sequence(original, (), FaultConfig(), rng, faulty=False), AS_IT_CAME))
        for kind in possible_kinds(original, False, POSE_FAULTS):
            config = FaultConfig(largest_share=SHARE, kinds=(kind,), moved_in_time=0.0)
            parts.append(_score(model, blur, corrupt_sequence(original, (), config, rng), kind))
        for number in range(1, len(capture.copies)):
            config = FaultConfig(pose_share=0.0, moved_in_time=0.0)
            parts.append(_score(model, blur, corrupt_sequence(capture.with_copy(number), (), config, rng), CORRUPTED))
    return concat_measured(parts)


def concat_measured(parts: Sequence[Measured]) -> Measured:
    """Put what was measured together."""
    return Measured(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Measured)))


def auroc(score: Float[np.ndarray, " row"], faulty: Bool[np.ndarray, " row"]) -> float:
    """Return the chance that a faulty frame scores above a good one; NaN where there is only one of them."""
    return float("nan") if faulty.all() or not faulty.any() else float(roc_auc_score(faulty, score))


def auroc_by_variant(measured: Measured, score: Float[np.ndarray, " row"]) -> dict[str, float]:
    """Return the mean over captures of every variant's AUROC, and of that of all variants together.

    ``OTHER_SESSION`` is of frames that another session left in captures as they came, against the good ones.
    """
    found: dict[str, list[float]] = {}
    as_it_came = measured.variant == AS_IT_CAME
    rows_of = {
        **{variant: measured.variant == variant for variant in (AS_IT_CAME, CORRUPTED, *FAULT_KINDS)},
        OTHER_SESSION: as_it_came & (~measured.faulty | (measured.natural == "foreign")),
        "all": np.ones(len(score), dtype=bool),
    }
    for name in np.unique(measured.capture):
        of_capture = measured.capture == name
        for variant, of_variant in rows_of.items():
            rows = of_capture & of_variant
            found.setdefault(variant, []).append(auroc(score[rows], measured.faulty[rows]))
    return {kind: float(np.nanmean(values)) for kind, values in found.items() if not np.isnan(values).all()}


def save_measured(measured: Measured, path: Path) -> None:
    """Write what was measured to an archive of arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {field.name: getattr(measured, field.name) for field in fields(Measured)}
    strings = {name: arrays[name].astype(np.str_) for name in ("capture", "variant", "natural")}
    np.savez(path, **{**arrays, **strings})


def load_measured(path: Path) -> Measured:
    """Undo ``save_measured``."""
    with np.load(path, allow_pickle=False) as file:
        return Measured(*(file[field.name] for field in fields(Measured)))


@torch.no_grad()
def _score(model: ConsistencyTransformer, blur: BlurJudge, corrupted: CorruptedSequence, variant: str) -> Measured:
    capture, faulty = corrupted.capture, corrupted.replaced[:, :2].any(axis=1)
    counts = corrupted.real.trusted
    tokens = assemble_tokens(capture.raw)
    present = torch.from_numpy(tokens.present)[None]
    nothing = torch.zeros_like(present)
    evidence = evidence_of(capture, tokens)
    given = evidence_input([evidence])
    output = model(torch.from_numpy(tokens.tokens)[None], present, ~nothing[..., 0], nothing, given)
    blurred = np.zeros(len(tokens)) if evidence is None else blur.probability(evidence.frames)
    logit, forest_logit = (
        part[0].double().numpy()[counts] for part in (output.inconsistency_logit, output.forest_logit)
    )
    by_both = 0.5 * (torch.softmax(output.reason_logits, dim=-1) + output.forest_reasons)
    contradicted = is_contradicted(by_both[0].double().numpy(), blurred, evidence)[counts]
    names, variants = (np.full(int(counts.sum()), value) for value in (capture.name, variant))
    natural = np.array([reason or "" for reason in capture.natural] or [""] * len(counts))[counts]
    return Measured(names, variants, logit, forest_logit, blurred[counts], faulty[counts], contradicted, natural)
