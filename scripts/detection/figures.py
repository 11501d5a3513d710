"""Figures of merit: how well scores rank faulty frames above good ones, and what a threshold makes of them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, roc_auc_score

from detection.methods import Judgement
from detection.trials import Trial

_BINS = 10


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
    """Share of the faulty frames that are dropped at the method's threshold."""
    good_dropped: float | None
    """Share of the good frames that are dropped at the method's threshold."""
    reason_accuracy: float | None
    """Share of the dropped faulty frames whose reason is the right one."""
    calibration_error: float | None
    """Expected calibration error, over ten bins (Naeini et al., AAAI 2015)."""
    seconds: float
    """Per trial, features already computed."""


def figures(method: str, kind: str, judged: Sequence[tuple[Trial, Judgement]]) -> Figures:
    """Summarise one method's judgements of all trials of one kind."""
    auroc = [(trial.capture, _auroc(trial.truth, said.scores)) for trial, said in judged]
    return Figures(
        method=method,
        kind=kind,
        trials=len(judged),
        auroc=_mean(value for _, value in auroc),
        average_precision=_mean(_average_precision(trial.truth, said.scores) for trial, said in judged),
        worst_capture_auroc=_worst(auroc),
        recall=_mean(_dropped(trial.truth, said) for trial, said in judged),
        good_dropped=_mean(_dropped(~trial.truth, said) for trial, said in judged),
        reason_accuracy=_mean(_reason_accuracy(trial, said) for trial, said in judged),
        calibration_error=_calibration_error(judged),
        seconds=float(np.mean([said.seconds for _, said in judged])),
    )


def expected_calibration_error(truth: Bool[np.ndarray, " n"], probability: Float[np.ndarray, " n"]) -> float:
    """Return the mean gap between said and true frequency over ten equal bins, weighted by how many fall in each."""
    bins = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    gap = 0.0
    for i in np.unique(bins):
        inside = bins == i
        gap += inside.mean() * abs(truth[inside].mean() - probability[inside].mean())
    return float(gap)


def _auroc(truth: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float | None:
    return float(roc_auc_score(truth, scores)) if truth.any() and not truth.all() else None


def _average_precision(truth: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float | None:
    return float(average_precision_score(truth, scores)) if truth.any() else None


def _dropped(among: Bool[np.ndarray, " n"], said: Judgement) -> float | None:
    """Return the share of some frames that are dropped, None where there is no threshold or no such frame."""
    if said.threshold is None or not among.any():
        return None
    return float((said.scores[among] >= said.threshold).mean())


def _reason_accuracy(trial: Trial, said: Judgement) -> float | None:
    if said.threshold is None or said.reasons is None:
        return None
    found = [fault for fault in trial.faults if said.scores[fault.frame] >= said.threshold]
    return float(np.mean([said.reasons[fault.frame] == fault.reason for fault in found])) if found else None


def _calibration_error(judged: Sequence[tuple[Trial, Judgement]]) -> float | None:
    if any(said.threshold is None for _, said in judged):
        return None
    truth = np.concatenate([trial.truth for trial, _ in judged])
    return expected_calibration_error(truth, np.concatenate([said.scores for _, said in judged]))


def _worst(per_trial: Iterable[tuple[str, float | None]]) -> float | None:
    by_capture: dict[str, list[float]] = defaultdict(list)
    for capture, value in per_trial:
        if value is not None:
            by_capture[capture].append(value)
    return min(float(np.mean(values)) for values in by_capture.values()) if by_capture else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
