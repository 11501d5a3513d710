"""MTCM as methods: as the filter runs it, with poses repaired, and the parts that it is made of."""

import time
from collections.abc import Iterable
from functools import partial

import numpy as np
from jaxtyping import Float

from benchmarks.detection.captures import BenchmarkCapture
from benchmarks.detection.labelled_captures import LabelledCapture
from benchmarks.detection.prediction import Method, Prediction
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, card_file, checkpoint_stem, load_checkpoint
from mtcm_nerfstudio.consistency.score import MODEL_REASONS, Scores, read_logits, score_frames
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.verdicts.decide import CERTAIN_IN_SPITE, is_contradicted
from mtcm_nerfstudio.verdicts.score_capture import Scored, repair_capture

MTCM, REPAIR = "MTCM", "MTCM + repair"
TRANSFORMER, FOREST, TOKENS_ONLY = "transformer alone", "forest alone", "tokens only"
PARTS = (TRANSFORMER, FOREST, TOKENS_ONLY)
"""What MTCM is made of, for the ablation; ``tokens only`` is a transformer that is shown no evidence."""
EXCLUDED_LOGIT = 60.0
"""Log odds of frames that a rule takes out; larger than any other."""


class Checkpoints:
    """The checkpoint that judges each capture."""

    def __init__(self, captures: Iterable[BenchmarkCapture]) -> None:
        """Load the checkpoints of some captures, each once.

        Raises:
            FileNotFoundError: one is not there.
            ValueError: one is broken or of another version.
        """
        self._stems = {capture.name: capture.checkpoint for capture in captures}
        for stem in self._stems.values():
            if stem is not None and not card_file(checkpoint_stem(stem)).is_file():
                raise FileNotFoundError(
                    f"{card_file(checkpoint_stem(stem))}: no such file. Run python scripts/pretrain.py first, or name "
                    "the folder of its runs with --checkpoints."
                )
        self._loaded = {stem: load_checkpoint(stem) for stem in set(self._stems.values())}

    def load(self, capture: str) -> tuple[ConsistencyTransformer, CheckpointCard]:
        """Return the checkpoint that judges a capture."""
        return self._loaded[self._stems[capture]]

    def about(self, capture: str) -> dict[str, str | bool | float]:
        """Return digest and threshold of the checkpoint that judges a capture, and whether it learned from it."""
        card = self.load(capture)[1]
        trained_on_it = capture in {source.name for source in card.trained_on}
        return {"digest": card.digest, "trained_on_it": trained_on_it, "threshold": card.threshold}


def mtcm_methods(checkpoints: Checkpoints) -> dict[str, Method]:
    """Return MTCM, MTCM with repaired poses, and its parts, by name."""
    return {
        MTCM: partial(_predict, checkpoints),
        REPAIR: partial(_predict, checkpoints, repair=True),
        TRANSFORMER: partial(_predict_by_part, checkpoints, 0),
        FOREST: partial(_predict_by_part, checkpoints, 1),
        TOKENS_ONLY: partial(_predict, checkpoints, with_evidence=False),
    }


def _predict(
    checkpoints: Checkpoints, labelled: LabelledCapture, with_evidence: bool = True, repair: bool = False
) -> Prediction:
    """Do what the filter does, from features and matches to scores and repaired poses."""
    model, card = checkpoints.load(labelled.capture)
    card.require_embedder(labelled.raw.embedder)
    evidence = labelled.evidence if with_evidence else None
    start = time.perf_counter()
    scored = Scored(score_frames(model, card, labelled.excluded.raw, evidence), evidence, labelled.matched)
    repaired = {}
    if repair:
        scored, repaired = repair_capture(model, card, labelled.excluded, scored, card.threshold, labelled.bank.cache)
    seconds = time.perf_counter() - start + (labelled.evidence_seconds if with_evidence else 0.0)
    scores = scored.scores
    contradicted = is_contradicted(scores.reasons, scores.blurred, scored.claimed or scored.evidence)
    return Prediction(
        scores=np.where(labelled.excluded_frames, 1.0, scores.inconsistency),
        seconds=seconds,
        threshold=card.threshold,
        reasons=_reasons(labelled, scores),
        repaired={i: np.array(pose) for i, pose in repaired.items()},
        kept=contradicted & (scores.inconsistency < CERTAIN_IN_SPITE) & ~labelled.excluded_frames,
    )


def _predict_by_part(checkpoints: Checkpoints, part: int, labelled: LabelledCapture) -> Prediction:
    """Return the log odds of the transformer (part 0) or of the forest (part 1)."""
    model, card = checkpoints.load(labelled.capture)
    start = time.perf_counter()
    logit: Float[np.ndarray, " frame"] = read_logits(model, card, labelled.excluded.raw, labelled.evidence)[part]
    seconds = time.perf_counter() - start + labelled.evidence_seconds
    return Prediction(np.where(labelled.excluded_frames, EXCLUDED_LOGIT, logit), seconds)


def _reasons(labelled: LabelledCapture, scores: Scores) -> tuple[str, ...]:
    likeliest = [MODEL_REASONS[i] for i in scores.reasons.argmax(axis=1)]
    return tuple(rule or reason for rule, reason in zip(labelled.excluded.reasons, likeliest, strict=True))
