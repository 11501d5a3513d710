"""Figures of merit: how well scores rank faulty frames above good ones, and what a threshold makes of them.

Frames that were faulty as they came count neither as good nor as faulty, unless a corruption was put into them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score

from benchmarks.corruptions import REASON_OF, Kind
from benchmarks.detection.labelled_captures import Case
from benchmarks.detection.prediction import Outcome, Prediction

BINS = 10
"""Of equal width, for the calibration error (Naeini et al., AAAI 2015)."""
COSTS = (0.005, 0.01, 0.02)
"""Shares of the good frames that methods may lose where they are compared at equal costs."""

Judged = Sequence[tuple[Case, Prediction]]


@dataclass(frozen=True)
class Figures:
    """One method on one kind of trial: means over captures and seeds; None where a figure has no meaning."""

    method: str
    kind: str
    trials: int
    auroc: float | None
    """Probability that a faulty frame scores worse than a good one."""
    worst_capture: str | None
    """The capture with the lowest mean AUROC over the seeds."""
    worst_capture_auroc: float | None
    auroc_by_kind: Mapping[Kind, float]
    """Of the frames with one kind of corruption against the good frames of their trial."""
    recall_at: Mapping[str, float]
    """Share of all faulty frames above the threshold that ``COSTS`` of all good frames exceed, all trials together."""
    recall: float | None
    """Share of the faulty frames that are found at the method's threshold: dropped, or given another pose."""
    good_dropped: float | None
    """Share of the good frames that are dropped at the method's threshold."""
    good_touched: float | None
    """Share of the good frames that are dropped or given another pose."""
    reason_accuracy: float | None
    """Share of the faulty frames that are found whose reason is the right one."""
    calibration_error: float | None
    """Expected calibration error, all trials of the kind together."""
    seconds: float
    """Per trial, features and matches already computed."""


@dataclass(frozen=True)
class Bin:
    """Frames that have about the same probability."""

    said: float
    """Mean probability."""
    seen: float
    """Share that are faulty."""
    frames: int


def figures(method: str, kind: str, outcomes: Sequence[Outcome]) -> Figures | None:
    """Summarise one method's judgements of all trials of one kind; None where it judged none."""
    predictions = predictions_of_kind(method, kind, outcomes)
    if not predictions:
        return None
    by_capture = auroc_by_capture(method, kind, outcomes)
    worst = min(by_capture, key=lambda capture: by_capture[capture], default=None)
    return Figures(
        method=method,
        kind=kind,
        trials=len(predictions),
        auroc=mean(auroc(*item) for item in predictions),
        worst_capture=worst,
        worst_capture_auroc=None if worst is None else by_capture[worst],
        auroc_by_kind=_auroc_by_kind(predictions),
        recall_at=_recall_at_costs(predictions),
        recall=mean(_share(said, said.found, case.truth) for case, said in predictions),
        good_dropped=mean(_share(said, said.dropped, case.good) for case, said in predictions),
        good_touched=mean(_share(said, said.found, case.good) for case, said in predictions),
        reason_accuracy=mean(_reason_accuracy(*item) for item in predictions),
        calibration_error=_calibration_error(predictions),
        seconds=float(np.mean([said.seconds for _, said in predictions])),
    )


def predictions_of_kind(method: str, kind: str, outcomes: Iterable[Outcome]) -> Judged:
    """Return a method's judgements of the trials of one kind, with what is true of them."""
    of_kind = [outcome for outcome in outcomes if outcome.case.kind == kind]
    return [(outcome.case, outcome.said[method]) for outcome in of_kind if method in outcome.said]


def auroc_by_capture(method: str, kind: str, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return a method's mean AUROC over the seeds, by capture; captures that it did not judge are left out."""
    found: dict[str, list[float]] = {}
    for case, said in predictions_of_kind(method, kind, outcomes):
        value = auroc(case, said)
        if value is not None:
            found.setdefault(case.capture, []).append(value)
    return {capture: float(np.mean(values)) for capture, values in found.items()}


def auroc(case: Case, said: Prediction, kind: Kind | None = None) -> float | None:
    """Return the area under the ROC curve of one trial, of one kind of corruption or of all.

    None where there are no faulty or no good frames.
    """
    faulty = case.corrupted(kind)
    if not faulty.any() or not case.good.any():
        return None
    counts = faulty | case.good
    return float(roc_auc_score(faulty[counts], said.scores[counts]))


def recall_at_cost(faulty: Float[np.ndarray, " faulty"], good: Float[np.ndarray, " good"], cost: float) -> float | None:
    """Return the largest share of faulty frames above any threshold that at most a share of the good frames exceed.

    Args:
        faulty: scores of the faulty frames, higher is worse.
        good: scores of the good frames.
        cost: share of the good frames that may be lost, in [0, 1].
    """
    if not len(faulty) or not len(good):
        return None
    may_go = int(np.floor(cost * len(good) + 1e-9))
    if may_go >= len(good):
        return 1.0
    return float((faulty > np.sort(good)[len(good) - 1 - may_go]).mean())


def reliability(
    truth: Bool[np.ndarray, " n"], probability: Float[np.ndarray, " n"], bins: int = BINS
) -> tuple[Bin, ...]:
    """Sort frames into bins of equal width by their probability; bins without frames are left out."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    inside = [place == i for i in range(bins)]
    return tuple(
        Bin(float(probability[rows].mean()), float(truth[rows].mean()), int(rows.sum()))
        for rows in inside
        if rows.any()
    )


def expected_calibration_error(truth: Bool[np.ndarray, " n"], probability: Float[np.ndarray, " n"]) -> float:
    """Return the mean gap between probability and frequency over ten equal bins, weighted by the frames in each."""
    found = reliability(truth, probability)
    return sum(one.frames * abs(one.said - one.seen) for one in found) / max(len(truth), 1)


def pooled(predictions: Judged) -> tuple[Bool[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return which frames of several trials are faulty, and their scores."""
    truth = np.concatenate([case.truth[case.counts] for case, _ in predictions])
    return truth, np.concatenate([said.scores[case.counts] for case, said in predictions])


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known, None where there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _auroc_by_kind(predictions: Judged) -> dict[Kind, float]:
    found: dict[Kind, float | None] = {kind: mean(auroc(*item, kind) for item in predictions) for kind in REASON_OF}
    return {kind: value for kind, value in found.items() if value is not None}


def _recall_at_costs(predictions: Judged) -> dict[str, float]:
    truth, scores = pooled(predictions)
    found = {str(cost): recall_at_cost(scores[truth], scores[~truth], cost) for cost in COSTS}
    return {cost: value for cost, value in found.items() if value is not None}


def _share(said: Prediction, chosen: Bool[np.ndarray, " n"], among: Bool[np.ndarray, " n"]) -> float | None:
    """Return the share of some frames that are chosen; None where there is no threshold or no such frame."""
    return float(chosen[among].mean()) if said.threshold is not None and among.any() else None


def _reason_accuracy(case: Case, said: Prediction) -> float | None:
    if said.reasons is None:
        return None
    found = [fault for fault in case.faults if said.found[fault.frame]]
    return float(np.mean([said.reasons[fault.frame] == fault.reason for fault in found])) if found else None


def _calibration_error(predictions: Judged) -> float | None:
    if any(said.threshold is None for _, said in predictions):
        return None
    return expected_calibration_error(*pooled(predictions))
