"""Forests of scikit-learn, fitted on the very examples that the checkpoint's own forest was fitted on."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier

from benchmarks.detection.labelled_captures import LabelledCapture
from benchmarks.detection.mtcm import EXCLUDED_LOGIT
from benchmarks.detection.prediction import Method, Prediction

EXTRA_TREES, BOOSTING = "ExtraTrees", "HistGradientBoosting"
FORESTS = (EXTRA_TREES, BOOSTING)
MOST_EXAMPLES = 30_000
"""Of more examples, evenly spread ones are taken: fitting takes minutes a group otherwise."""
_SMALLEST = 1e-9
"""Probabilities are kept this far from 0 and 1, so that their log odds are finite."""

Classifier = ExtraTreesClassifier | HistGradientBoostingClassifier


class FittedForests:
    """Fits the forests of each file of examples once."""

    def __init__(self, examples: Mapping[str, Path]) -> None:
        """Take the file of examples for each capture, by the capture's name; absent files are named once."""
        self._examples = {name: path for name, path in examples.items() if path.is_file()}
        self._fitted: dict[Path, dict[str, Classifier]] = {}
        for path in dict.fromkeys(path for path in examples.values() if not path.is_file()):
            print(f"{path}: not there, so {' and '.join(FORESTS)} are left out for the captures that need it")

    def methods(self) -> dict[str, Method]:
        """Return the forests as methods, by name; they have no word on captures without examples."""
        return {name: partial(self._predict, name) for name in FORESTS} if self._examples else {}

    def _predict(self, name: str, labelled: LabelledCapture) -> Prediction | None:
        path = self._examples.get(labelled.capture)
        if path is None:
            return None
        forest = self._of(path)[name]
        start = time.perf_counter()
        logit = log_odds(forest, labelled.evidence.frames)
        seconds = time.perf_counter() - start + labelled.evidence_seconds
        return Prediction(np.where(labelled.excluded_frames, EXCLUDED_LOGIT, logit), seconds)

    def _of(self, path: Path) -> dict[str, Classifier]:
        if path not in self._fitted:
            self._fitted[path] = fit_forests(path)
        return self._fitted[path]


def fit_forests(path: Path) -> dict[str, Classifier]:
    """Fit both forests on a file of examples: ``numbers``, ``label`` (0 good, else 1 + the reason) and ``weight``."""
    with np.load(path, allow_pickle=False) as file:
        step = -(-len(file["label"]) // MOST_EXAMPLES)
        numbers, label, weight = (file[name][::step] for name in ("numbers", "label", "weight"))
    print(f"fitting {' and '.join(FORESTS)} on {len(label)} examples of {path}", flush=True)
    forests: dict[str, Classifier] = {
        EXTRA_TREES: ExtraTreesClassifier(
            500,
            min_samples_leaf=2,
            max_features=0.3,  # pyright: ignore[reportArgumentType]
            class_weight="balanced",
            n_jobs=-1,
            random_state=0,
        ),
        BOOSTING: HistGradientBoostingClassifier(
            max_iter=300,
            learning_rate=0.05,
            max_leaf_nodes=15,
            l2_regularization=1.0,
            class_weight="balanced",  # pyright: ignore[reportArgumentType]
            random_state=0,
        ),
    }
    # Boosting grows a set of trees for each class, so it is told good from faulty frames only.
    labels = {EXTRA_TREES: label, BOOSTING: np.minimum(label, 1)}
    return {name: forest.fit(numbers, labels[name], sample_weight=weight) for name, forest in forests.items()}


def log_odds(forest: Classifier, numbers: Float[np.ndarray, "frame number"]) -> Float[np.ndarray, " frame"]:
    """Return the log odds that each frame is faulty: that it belongs to any class but that of good frames."""
    is_good = np.asarray(forest.classes_) == 0
    probability = np.asarray(forest.predict_proba(numbers.astype(np.float32)))
    good = np.clip(probability[:, is_good].sum(axis=1), _SMALLEST, 1.0 - _SMALLEST)
    return np.log(1.0 - good) - np.log(good)
