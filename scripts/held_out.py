"""How well a checkpoint finds known faults in captures that it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from mtcm_nerfstudio.capture.faults import FAULT_KINDS, POSE_FAULTS, FaultKind
from mtcm_nerfstudio.consistency.evidence import evidence_input
from mtcm_nerfstudio.consistency.training.capture import TrainingCapture
from mtcm_nerfstudio.consistency.training.faults import FaultConfig, Spoiled, possible_kinds, spoil
from mtcm_nerfstudio.consistency.transformer_dataset import evidence_of
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.tokens.strangeness import strangeness
from mtcm_nerfstudio.tokens.tokens import assemble_tokens

CLEAN = "clean"
SHARE = 0.2
"""Share of the frames that get a fault of one kind."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Logits of frames, with what is true of them; one row a frame of one draw."""

    capture: np.ndarray
    kind: np.ndarray
    """Kind of the faults in that draw; ``clean`` where there is none."""
    logit: Float[np.ndarray, " row"]
    strange: Float[np.ndarray, " row"]
    faulty: Bool[np.ndarray, " row"]

    def rows(self, chosen: Bool[np.ndarray, " row"]) -> "Measured":
        return Measured(*(getattr(self, field.name)[chosen] for field in fields(self)))


def measure(
    model: ConsistencyTransformer,
    captures: Sequence[TrainingCapture],
    others: Sequence[TrainingCapture],
    seed: int = 0,
    draws: int = 4,
) -> Measured:
    """Score whole captures, clean and with faults of one kind at a time; frames that are not trusted are left out."""
    rng = np.random.default_rng(seed)
    parts = []
    for capture in captures:
        clean = capture.in_world(0)
        parts.append(_score(model, clean, CLEAN, capture.trusted, np.zeros(len(capture.raw), dtype=bool)))
        for kind in possible_kinds(clean, bool(others), POSE_FAULTS):
            for _ in range(draws):
                config = FaultConfig(largest_share=SHARE, kinds=(kind,), moved_in_time=0.0)
                parts.append(_spoiled(model, spoil(clean, others, config, rng), kind))
        for number, world in enumerate(capture.worlds):
            kinds: set[FaultKind] = {fault.kind for fault in world.faults}
            for kind in kinds if len(kinds) == 1 else ():
                config = FaultConfig(kinds=(kind,), pose_share=0.0, moved_in_time=0.0)
                parts.append(_spoiled(model, spoil(capture.in_world(number), others, config, rng), kind))
    return joined(parts)


def _spoiled(model: ConsistencyTransformer, spoiled: Spoiled, kind: FaultKind) -> Measured:
    faulty = spoiled.replaced.any(axis=1)
    return _score(model, spoiled.capture, kind, spoiled.real.trusted | faulty, faulty)


def joined(parts: Sequence[Measured]) -> Measured:
    return Measured(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Measured)))


def auroc(score: Float[np.ndarray, " row"], faulty: Bool[np.ndarray, " row"]) -> float:
    """Return the chance that a faulty frame scores above a clean one, ties counted half (Mann and Whitney, 1947)."""
    if not faulty.any() or faulty.all():
        return float("nan")
    _, rank, count = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = (np.cumsum(count) - 0.5 * (count - 1))[rank]
    positive = int(faulty.sum())
    above = mean_rank[faulty].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (~faulty).sum()))


def auroc_by_kind(measured: Measured) -> dict[str, float]:
    """Return the mean over captures of every kind's AUROC, and of that of all kinds together."""
    found: dict[str, list[float]] = {}
    for name in np.unique(measured.capture):
        of_capture = measured.rows(measured.capture == name)
        for kind in (*FAULT_KINDS, "all"):
            rows = of_capture if kind == "all" else of_capture.rows(of_capture.kind == kind)
            found.setdefault(kind, []).append(auroc(rows.logit, rows.faulty))
    return {kind: float(np.nanmean(values)) for kind, values in found.items() if not np.isnan(values).all()}


def false_alarms(measured: Measured, probability: Float[np.ndarray, " row"], threshold: float) -> float:
    """Return the share of the frames of clean captures that the threshold would drop."""
    return float((probability[measured.kind == CLEAN] >= threshold).mean())


def save_measured(measured: Measured, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        capture=measured.capture.astype(np.str_),
        kind=measured.kind.astype(np.str_),
        logit=measured.logit,
        strange=measured.strange,
        faulty=measured.faulty,
    )


def load_measured(path: Path) -> Measured:
    with np.load(path, allow_pickle=False) as file:
        return Measured(*(file[field.name] for field in fields(Measured)))


@torch.no_grad()
def _score(
    model: ConsistencyTransformer,
    capture: TrainingCapture,
    kind: FaultKind | str,
    counts: Bool[np.ndarray, " frame"],
    faulty: Bool[np.ndarray, " frame"],
) -> Measured:
    tokens = assemble_tokens(capture.raw)
    present = torch.from_numpy(tokens.present)[None]
    nothing = torch.zeros_like(present)
    known = evidence_of(capture, tokens)
    evidence = evidence_input([known])
    output = model(torch.from_numpy(tokens.tokens)[None], present, ~nothing[..., 0], nothing, evidence)
    strange = strangeness(capture.raw.embeddings, known)[counts]
    logit = output.inconsistency_logit[0].double().numpy()[counts]
    names = np.full(len(logit), capture.name)
    return Measured(names, np.full(len(logit), kind), logit, strange, faulty[counts])
