"""MTCM as a method: with tokens only, with the evidence of matches beside them, and with poses repaired."""

import time
from pathlib import Path

import numpy as np

from detection.judgement import Judgement, Method
from detection.trials import Trial
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, card_file, load_checkpoint
from mtcm_nerfstudio.consistency.score import MODEL_REASONS, Scores, score_frames
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.verdicts.scored import Scored, repair_capture

TOKENS_ONLY, REPAIR = " tokens only", " + repair"
"""What the variants add to a checkpoint's name."""


class Checkpoints:
    """One trained transformer, or one per capture that never saw the capture."""

    def __init__(self, path: str | None) -> None:
        """Take a checkpoint's path; None is the shipped one.

        ``{capture}`` in it stands for the capture's name. Captures for which no such file was made, because none had
        to be left out for them, are judged by the shipped one.
        """
        self._path = path
        self._loaded: dict[str | None, tuple[ConsistencyTransformer, CheckpointCard]] = {}

    def load(self, capture: str) -> tuple[ConsistencyTransformer, CheckpointCard]:
        """Return the checkpoint that judges a capture."""
        path = None if self._path is None else self._path.replace("{capture}", capture)
        if path != self._path and path is not None and not card_file(Path(path)).is_file():
            path = None
        if path not in self._loaded:
            self._loaded[path] = load_checkpoint(None if path is None else Path(path))
        return self._loaded[path]

    def about(self, capture: str) -> dict[str, str | bool | float]:
        """Return digest and threshold of the checkpoint that judges a capture, and whether it learned from it."""
        card = self.load(capture)[1]
        trained_on_it = capture in {source.name for source in card.trained_on}
        return {"digest": card.digest, "trained_on_it": trained_on_it, "threshold": card.threshold}


def variants(name: str, checkpoints: Checkpoints) -> dict[str, Method]:
    """Return the methods that a checkpoint makes, by name."""
    return {
        f"{name}{TOKENS_ONLY}": lambda trial: _judged(checkpoints, trial, with_evidence=False),
        name: lambda trial: _judged(checkpoints, trial),
        f"{name}{REPAIR}": lambda trial: _judged(checkpoints, trial, repair=True),
    }


def _judged(checkpoints: Checkpoints, trial: Trial, with_evidence: bool = True, repair: bool = False) -> Judgement:
    """Do what the filter does, from features and matches to scores and repaired poses."""
    model, card = checkpoints.load(trial.capture)
    card.require_embedder(trial.raw.embedder)
    evidence = trial.evidence if with_evidence else None
    start = time.perf_counter()
    scored = Scored(score_frames(model, card, trial.ruled.raw, evidence), evidence, trial.matched)
    repaired = {}
    if repair:
        scored, repaired = repair_capture(model, card, trial.ruled, scored, card.threshold, trial.bank.cache)
    seconds = time.perf_counter() - start + (trial.evidence_seconds if with_evidence else 0.0)
    return Judgement(
        scores=_as_ruled(trial, scored.scores),
        seconds=seconds,
        threshold=card.threshold,
        reasons=_reasons(trial, scored.scores),
        repaired={i: np.array(pose) for i, pose in repaired.items()},
    )


def _as_ruled(trial: Trial, scores: Scores) -> np.ndarray:
    """Return the inconsistency of all frames; those that a rule takes out have the largest."""
    ruled_out = np.array([reason is not None for reason in trial.ruled.reasons])
    return np.where(ruled_out, 1.0, scores.inconsistency)


def _reasons(trial: Trial, scores: Scores) -> tuple[str, ...]:
    likeliest = [MODEL_REASONS[i] for i in scores.reasons.argmax(axis=1)]
    return tuple(rule or reason for rule, reason in zip(trial.ruled.reasons, likeliest, strict=True))
