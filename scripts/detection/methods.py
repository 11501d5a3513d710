"""The methods that are compared: each gives every frame of a trial a number, higher for worse."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler

from detection.trials import Trial
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, card_file, load_checkpoint
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.tokens.tokens import POSE, assemble_tokens
from mtcm_nerfstudio.verdicts.score import MODEL_REASONS, score_frames

RANDOM = "random"
"""The name of the method that knows nothing."""

_NEIGHBOURS = 5


@dataclass(frozen=True, eq=False)
class Judgement:
    """What one method says of one trial."""

    scores: Float[np.ndarray, " frame"]
    """Higher is worse."""
    seconds: float
    threshold: float | None = None
    """Where the method would drop a frame; then ``scores`` are probabilities."""
    reasons: tuple[str, ...] | None = None
    """The most likely reason of each frame, whether or not it is dropped."""


Method = Callable[[Trial], Judgement]


def baselines() -> dict[str, Method]:
    """Return what a user would have without MTCM, by name."""
    scorers: Mapping[str, Callable[[Trial], np.ndarray]] = {
        RANDOM: _random,
        "Laplacian variance": lambda trial: -trial.sharpness,
        "embedding kNN": _embedding_against_pose_neighbours,
        "IsolationForest": _isolation_forest,
        "LocalOutlierFactor": _local_outlier_factor,
    }
    return {name: _timed(scorer) for name, scorer in scorers.items()}


class Checkpoints:
    """MTCM with one trained transformer, or with one per capture that never saw the capture."""

    def __init__(self, path: str | None) -> None:
        """Take a checkpoint's path; None is the shipped one.

        ``{capture}`` in it stands for the capture's name. Captures for which no such file was made, because none had
        to be left out for them, are judged by the shipped one.
        """
        self._path = path
        self._loaded: dict[str | None, tuple[ConsistencyTransformer, CheckpointCard]] = {}

    def __call__(self, trial: Trial) -> Judgement:
        """Score a trial."""
        model, card = self._load(trial.capture)
        card.require_embedder(trial.raw.embedder)
        start = time.perf_counter()
        scores = score_frames(model, card, trial.raw)
        reasons = tuple(MODEL_REASONS[i] for i in scores.reasons.argmax(axis=1))
        return Judgement(scores.inconsistency, time.perf_counter() - start, card.threshold, reasons)

    def about(self, capture: str) -> dict[str, str | bool]:
        """Return the digest of the checkpoint that judges a capture, and whether it had learned from the capture."""
        card = self._load(capture)[1]
        return {"digest": card.digest, "trained_on_it": capture in {source.name for source in card.trained_on}}

    def _load(self, capture: str) -> tuple[ConsistencyTransformer, CheckpointCard]:
        path = None if self._path is None else self._path.replace("{capture}", capture)
        if path != self._path and path is not None and not card_file(Path(path)).is_file():
            path = None
        if path not in self._loaded:
            self._loaded[path] = load_checkpoint(None if path is None else Path(path))
        return self._loaded[path]


def _timed(scorer: Callable[[Trial], np.ndarray]) -> Method:
    def method(trial: Trial) -> Judgement:
        start = time.perf_counter()
        scores = scorer(trial)
        return Judgement(scores, time.perf_counter() - start)

    return method


def _random(trial: Trial) -> Float[np.ndarray, " frame"]:
    return np.random.default_rng([trial.seed, *trial.capture.encode()]).random(len(trial.raw))


def _embedding_against_pose_neighbours(trial: Trial) -> Float[np.ndarray, " frame"]:
    """Median distance of a frame's embedding from those of the frames at the nearest claimed poses."""
    pose = assemble_tokens(trial.raw).tokens[:, POSE].astype(np.float64)
    away = np.linalg.norm(pose[:, None, :3] - pose[None, :, :3], axis=-1)
    turned = 2.0 * np.arccos(np.clip(np.abs(pose[:, 3:] @ pose[:, 3:].T), 0.0, 1.0))
    apart = away + turned
    np.fill_diagonal(apart, np.inf)
    nearest = np.argsort(apart, axis=1)[:, : min(_NEIGHBOURS, len(pose) - 1)]
    embeddings = trial.raw.embeddings
    return np.median(np.linalg.norm(embeddings[:, None] - embeddings[nearest], axis=-1), axis=1)


def _isolation_forest(trial: Trial) -> Float[np.ndarray, " frame"]:
    forest = IsolationForest(random_state=trial.seed)
    tokens = _standardised_tokens(trial)
    return -forest.fit(tokens).score_samples(tokens)


def _local_outlier_factor(trial: Trial) -> Float[np.ndarray, " frame"]:
    factor = LocalOutlierFactor(n_neighbors=min(20, len(trial.raw) - 1))
    return -factor.fit(_standardised_tokens(trial)).negative_outlier_factor_


def _standardised_tokens(trial: Trial) -> Float[np.ndarray, "frame 394"]:
    return StandardScaler().fit_transform(assemble_tokens(trial.raw).tokens)
