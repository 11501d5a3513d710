"""Figures of merit: how well scores rank faulty frames above good ones, and what a threshold makes of them.

Frames that were faulty as they came count neither as good nor as faulty, unless a fault was put into them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, roc_auc_score

from detection.judgement import Judgement, Outcome
from detection.trials import Case

BINS = 10
"""Of equal width, for the calibration error (Naeini et al., AAAI 2015)."""


@dataclass(frozen=True)
class Figures:
    """One method on one kind of trial: means over captures and seeds; None where a figure has no meaning."""

    method: str
    kind: str
    trials: int
    auroc: float | None
    """Probability that a faulty frame scores worse than a good one."""
    average_precision: float | None
    worst_capture_auroc: float | None
    """The lowest mean over the seeds of any capture."""
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
    """The frames that were said to be faulty with about the same probability."""

    said: float
    """Mean probability."""
    seen: float
    """Share that are faulty."""
    frames: int


def figures(method: str, kind: str, outcomes: Sequence[Outcome]) -> Figures | None:
    """Summarise one method's judgements of all trials of one kind; None where it judged none."""
    judged = [
        (outcome.case, outcome.said[method])
        for outcome in outcomes
        if outcome.case.kind == kind and method in outcome.said
    ]
    if not judged:
        return None
    return Figures(
        method=method,
        kind=kind,
        trials=len(judged),
        auroc=mean(auroc(*item) for item in judged),
        average_precision=mean(_average_precision(*item) for item in judged),
        worst_capture_auroc=min(auroc_by_capture(method, kind, outcomes).values(), default=None),
        recall=mean(_share(said, said.found, case.truth) for case, said in judged),
        good_dropped=mean(_share(said, said.dropped, case.good) for case, said in judged),
        good_touched=mean(_share(said, said.found, case.good) for case, said in judged),
        reason_accuracy=mean(_reason_accuracy(*item) for item in judged),
        calibration_error=_calibration_error(judged),
        seconds=float(np.mean([said.seconds for _, said in judged])),
    )


def auroc_by_capture(method: str, kind: str, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return a method's mean AUROC over the seeds, by capture; captures that it did not judge are left out."""
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome.case.kind == kind and method in outcome.said:
            value = auroc(outcome.case, outcome.said[method])
            if value is not None:
                found.setdefault(outcome.case.capture, []).append(value)
    return {capture: float(np.mean(values)) for capture, values in found.items()}


def auroc(case: Case, said: Judgement) -> float | None:
    """Return the area under the ROC curve of one trial; None where there are no faulty or no good frames."""
    if not case.truth.any() or not case.good.any():
        return None
    return float(roc_auc_score(case.truth[case.counts], said.scores[case.counts]))


def reliability(
    truth: Bool[np.ndarray, " n"], probability: Float[np.ndarray, " n"], bins: int = BINS
) -> tuple[Bin, ...]:
    """Sort frames into bins of equal width by what was said of them; bins without frames are left out."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    inside = [place == i for i in range(bins)]
    return tuple(
        Bin(float(probability[rows].mean()), float(truth[rows].mean()), int(rows.sum()))
        for rows in inside
        if rows.any()
    )


def expected_calibration_error(truth: Bool[np.ndarray, " n"], probability: Float[np.ndarray, " n"]) -> float:
    """Return the mean gap between said and true frequency over ten equal bins, weighted by how many fall in each."""
    found = reliability(truth, probability)
    return sum(one.frames * abs(one.said - one.seen) for one in found) / max(len(truth), 1)


def said_and_true(
    judged: Iterable[tuple[Case, Judgement]],
) -> tuple[Bool[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return which frames of several trials are faulty, and what was said of them."""
    pairs = list(judged)
    truth = np.concatenate([case.truth[case.counts] for case, _ in pairs])
    return truth, np.concatenate([said.scores[case.counts] for case, said in pairs])


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known, None where there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _average_precision(case: Case, said: Judgement) -> float | None:
    if not case.truth.any():
        return None
    return float(average_precision_score(case.truth[case.counts], said.scores[case.counts]))


def _share(said: Judgement, chosen: Bool[np.ndarray, " n"], among: Bool[np.ndarray, " n"]) -> float | None:
    """Return the share of some frames that are chosen; None where there is no threshold or no such frame."""
    return float(chosen[among].mean()) if said.threshold is not None and among.any() else None


def _reason_accuracy(case: Case, said: Judgement) -> float | None:
    if said.reasons is None:
        return None
    found = [fault for fault in case.faults if said.found[fault.frame]]
    return float(np.mean([said.reasons[fault.frame] == fault.reason for fault in found])) if found else None


def _calibration_error(judged: Sequence[tuple[Case, Judgement]]) -> float | None:
    if any(said.threshold is None for _, said in judged):
        return None
    return expected_calibration_error(*said_and_true(judged))
