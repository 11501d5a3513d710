"""The methods that are compared: each gives every frame of a trial a number, higher for worse."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.detection import quality, signals
from benchmarks.detection.labelled_captures import LabelledCapture
from benchmarks.detection.prediction import Method, Outcome, Prediction

RANDOM = "random"
"""The name of the method that knows nothing."""
INLIER_RATIO, EMBEDDING_KNN, SHARPNESS = "inlier ratio", "embedding kNN", "Laplacian variance"
FUSION, LOGISTIC = "max-rank fusion", "logistic"
"""The names of those that put several signals together."""

_DROPPED = 0.01
"""Share of the good frames of other captures that the logistic regression's threshold drops."""


def baselines() -> dict[str, Method]:
    """Return what a user would have without MTCM, by name; the logistic regression comes later."""
    scorers: dict[str, Callable[[LabelledCapture], np.ndarray | None]] = {
        RANDOM: signals.random_numbers,
        SHARPNESS: signals.unsharpness,
        "CleanVision": signals.bad_quality,
        EMBEDDING_KNN: signals.embedding_against_pose_neighbours,
        "IsolationForest": signals.isolation_forest,
        "LocalOutlierFactor": signals.local_outlier_factor,
        "pose smoothness": signals.pose_jump,
        INLIER_RATIO: signals.outlier_ratio,
        "COLMAP observations": signals.few_observations,
        "COLMAP reprojection": signals.reprojection_error,
        FUSION: signals.max_rank_fusion,
    }
    if not quality.HAS_CLEANVISION:
        del scorers["CleanVision"]
    of_evidence = {INLIER_RATIO, FUSION}
    return {name: _timed(scorer, name in of_evidence) for name, scorer in scorers.items()}


def single_baselines() -> tuple[str, ...]:
    """Return the baselines that look at one thing: none that is fitted or put together, and not the random one."""
    return tuple(name for name in baselines() if name not in (FUSION, RANDOM))


def run_methods(labelled: LabelledCapture, methods: Mapping[str, Method]) -> Outcome:
    """Let every method judge a trial."""
    said = {name: judgement for name, method in methods.items() if (judgement := method(labelled)) is not None}
    start = time.perf_counter()
    found = signals.signals_of(labelled)
    return Outcome(labelled.case, said, found, labelled.evidence_seconds + time.perf_counter() - start)


def with_logistic(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Add the judgement of a logistic regression, fitted on the trials of all other captures; none for one capture."""
    added: dict[str, Callable[[Outcome], Prediction]] = {}
    names = dict.fromkeys(outcome.case.capture for outcome in outcomes)
    for name in names:
        others = [outcome for outcome in outcomes if outcome.case.capture != name]
        if any(outcome.case.faults for outcome in others):
            added[name] = _fitted(others)
    return [
        replace(outcome, said={**outcome.said, LOGISTIC: added[outcome.case.capture](outcome)})
        if outcome.case.capture in added
        else outcome
        for outcome in outcomes
    ]


def _fitted(outcomes: Sequence[Outcome]) -> Callable[[Outcome], Prediction]:
    """Fit on trials; the threshold drops a hundredth of their good frames."""
    rows = np.concatenate([outcome.signals[outcome.case.counts] for outcome in outcomes])
    truth = np.concatenate([outcome.case.truth[outcome.case.counts] for outcome in outcomes])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows, truth)
    threshold = float(np.quantile(model.predict_proba(rows)[~truth, 1], 1.0 - _DROPPED))

    def predict(outcome: Outcome) -> Prediction:
        start = time.perf_counter()
        probability = model.predict_proba(outcome.signals)[:, 1]
        return Prediction(probability, outcome.signals_seconds + time.perf_counter() - start, threshold)

    return predict


def _timed(scorer: Callable[[LabelledCapture], np.ndarray | None], needs_evidence: bool) -> Method:
    def method(labelled: LabelledCapture) -> Prediction | None:
        start = time.perf_counter()
        scores = scorer(labelled)
        seconds = time.perf_counter() - start + (labelled.evidence_seconds if needs_evidence else 0.0)
        return None if scores is None else Prediction(scores, seconds)

    return method
