"""The figures of the detection benchmark against independent ones, and the methods that it fits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import detection_modules
import numpy as np
import pytest
import textured_corner
import tiny_capture
from detection_modules import SCRIPTS

from mtcm_nerfstudio.capture.corruptions import read_truth, turned_and_shifted
from mtcm_nerfstudio.capture.read import read_capture


@pytest.fixture(scope="module")
def detection() -> Iterator[SimpleNamespace]:
    """The modules of the benchmark."""
    with detection_modules.imported() as modules:
        yield modules


def test_frames_that_were_faulty_before_count_for_neither_side(detection: SimpleNamespace) -> None:
    natural, corruption = np.array([False, True, True, False, False]), detection.corruptions.Corruption
    faults = (corruption(2, "defocus", 1), corruption(3, "pose_1", 1))
    case = detection.labelled_captures.Case("c", "mixed 20%", 0.2, 0, faults, natural, np.tile(np.eye(4), (5, 1, 1)))
    assert case.truth.tolist() == [False, False, True, True, False]
    assert case.good.tolist() == [True, False, False, False, True]
    scores = np.array([0.1, 0.99, 0.2, 0.9, 0.6])
    said = detection.prediction.Prediction(scores, 0.0, 0.5, ("pose",) * 5, {4: np.eye(4), 3: np.eye(4)})
    outcome = detection.prediction.Outcome(case, {"m": said}, np.zeros((5, 8)), 0.0)
    found = detection.figures.figures("m", "mixed 20%", [outcome])
    assert found.auroc == pytest.approx(0.75)
    assert found.auroc_by_kind == {"defocus": 0.5, "pose_1": 1.0}
    assert found.recall == pytest.approx(0.5), "a frame that was given another pose counts as found"
    assert (found.good_dropped, found.good_touched) == (0.0, 0.5)
    stays = detection.prediction.Prediction(scores, 0.0, 0.5, kept=np.array([False, False, False, True, False]))
    assert stays.dropped.tolist() == [False, True, False, False, True], "the verdict keeps one above the threshold"
    assert found.reason_accuracy == 1.0
    assert detection.figures.figures("m", "clean", [outcome]) is None


def test_repairs_are_measured_against_the_true_poses(detection: SimpleNamespace) -> None:
    true, corruption = textured_corner.walk(8), detection.corruptions.Corruption
    faults = (corruption(1, "pose_10", 1), corruption(4, "pose_10", 2), corruption(6, "defocus", 3))
    case = detection.labelled_captures.Case("c", "mixed 20%", 0.2, 0, faults, np.zeros(8, dtype=bool), true)
    rng, spread = np.random.default_rng(0), detection.corruptions.spread_of(true)
    better = turned_and_shifted(true[1:2], 0.4, 0.003 * spread, rng)[0]
    said = detection.prediction.Prediction(np.zeros(8), 0.0, 0.5, None, {1: better, 2: true[2], 6: true[6]})
    outcome = detection.prediction.Outcome(case, {"m": said}, np.zeros((8, 8)), 0.0)
    row, total = detection.repairs.repair_rows("m", [outcome])
    assert replace(row, name="all") == total and row.name == "pose_10"
    assert (row.wrong_poses, row.repaired) == (2, 0.5)
    assert row.degrees_before == pytest.approx(10.0, rel=0.26) and row.shift_before == pytest.approx(0.1, rel=0.26)
    assert row.degrees_after == row.largest_degrees_after == pytest.approx(0.4)
    assert row.shift_after == pytest.approx(0.003)
    assert row.good_moved == pytest.approx(1 / 5) and row.corrupted_images_moved == 1.0


@pytest.mark.parametrize("cost", [0.0, 0.005, 0.01, 0.02, 0.3, 1.0])
def test_recall_at_a_cost_is_that_of_the_best_threshold(detection: SimpleNamespace, cost: float) -> None:
    rng = np.random.default_rng(int(1000 * cost))
    for count in (1, 7, 200, 400):
        faulty, good = rng.integers(0, 60, 50) / 30.0, rng.integers(0, 50, count) / 30.0
        best = 0.0
        for threshold in np.concatenate([faulty, good, [-1.0]]):
            if (good > threshold).sum() <= cost * count:
                best = max(best, float((faulty > threshold).mean()))
        assert detection.figures.recall_at_cost(faulty, good, cost) == pytest.approx(best)
    assert detection.figures.recall_at_cost(np.zeros(0), np.zeros(3), cost) is None


def test_recall_at_a_cost_takes_one_threshold_for_all_trials(detection: SimpleNamespace) -> None:
    """Each of two trials is ranked without a fault, and what is faulty in one scores less than good in the other."""
    corruption, outcomes = detection.corruptions.Corruption, []
    for name, scores in (("a", [0.9, 0.8, 0.8, 0.8]), ("b", [0.3, 0.1, 0.1, 0.1])):
        nothing, poses = np.zeros(4, dtype=bool), np.tile(np.eye(4), (4, 1, 1))
        case = detection.labelled_captures.Case(name, "k", 0.2, 0, (corruption(0, "defocus", 1),), nothing, poses)
        said = {"m": detection.prediction.Prediction(np.array(scores), 0.0)}
        outcomes.append(detection.prediction.Outcome(case, said, np.zeros((4, 8)), 0.0))
    found = detection.figures.figures("m", "k", outcomes)
    assert found.auroc == 1.0 and found.recall_at == {"0.005": 0.5, "0.01": 0.5, "0.02": 0.5}
    rows = detection.tables.ranking_rows({("m", "k"): found}, ["m"], "k")
    assert rows[0][3:6] == ["recall at 0.5 %", "recall at 1 %", "recall at 2 %"] and rows[1][3] == "50.0 %"


def test_the_logistic_regression_never_sees_the_capture_that_it_judges(detection: SimpleNamespace) -> None:
    """Signals mean the opposite in one of three captures: fitted on the other two, it gets that one wrong."""
    rng, outcomes = np.random.default_rng(0), []
    for capture, sign in (("a", 1.0), ("b", 1.0), ("odd", -1.0)):
        for seed in range(4):
            faults = tuple(detection.corruptions.Corruption(i, "defocus", 1) for i in range(5))
            nothing = np.zeros(20, dtype=bool)
            case = detection.labelled_captures.Case(
                capture, "k", 0.2, seed, faults, nothing, np.tile(np.eye(4), (20, 1, 1))
            )
            signals = sign * (case.truth[:, None] * 2.0 + 0.1 * rng.standard_normal((20, 8)))
            outcomes.append(detection.prediction.Outcome(case, {}, signals, 0.0))
    predictions = detection.methods.with_logistic(outcomes)
    by_capture = detection.figures.auroc_by_capture("logistic", "k", predictions)
    assert by_capture["odd"] == 0.0
    alone = detection.methods.with_logistic([one for one in outcomes if one.case.capture == "a"])
    assert all("logistic" not in outcome.said for outcome in alone), "with one capture there is none to learn from"


def test_a_model_knows_the_poses_that_it_was_made_with(detection: SimpleNamespace) -> None:
    sample = read_capture(SCRIPTS.parent / "data" / "sample")
    model = detection.models.points_of_model(sample)
    assert model is not None
    true = np.stack([frame.c2w for frame in sample.frames if frame.c2w is not None])
    faults = read_truth(SCRIPTS.parent / "data" / "sample")
    sound = np.array([frame.file_path not in faults for frame in sample.frames])
    right = model.errors(true)
    assert model.observations[sound].min() > 300 and right[sound].max() < 0.5
    assert model.observations.min() == 0 and np.isfinite(right).all(), "a foreign image sees no point of the model"
    wrong = true.copy()
    wrong[5] = turned_and_shifted(true[5:6], 3.0, 0.0, np.random.default_rng(0))[0]
    assert model.errors(wrong)[5] > 5.0
    np.testing.assert_allclose(np.delete(model.errors(wrong), 5), np.delete(right, 5), rtol=1e-6, atol=1e-9)
    moved = tiny_capture.random_similarity(3)
    elsewhere = replace(model, true_c2w=moved.move(true))
    np.testing.assert_allclose(elsewhere.errors(moved.move(wrong)), model.errors(wrong), rtol=1e-5, atol=1e-6)


def test_forests_without_examples_are_left_out_in_one_line(
    detection: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "forest_examples.npz"
    assert detection.forests.FittedForests({"a": path, "b": path}).methods() == {}
    assert capsys.readouterr().out.count("left out") == 1


def test_forests_learn_from_labels_and_weights(detection: SimpleNamespace, tmp_path: Path) -> None:
    path, rng = tmp_path / "forest_examples.npz", np.random.default_rng(0)
    numbers = rng.normal(size=(400, 4)).astype(np.float32)
    label = np.where(numbers[:, 0] > 0.5, 2, 0)
    label[200:] = 2 - label[200:]  # the other way round, and of no weight
    np.savez(path, numbers=numbers, label=label, weight=np.where(np.arange(400) < 200, 1.0, 1e-9))
    fresh = rng.normal(size=(200, 4))
    for name, forest in detection.forests.fit_forests(path).items():
        odds = detection.forests.log_odds(forest, fresh)
        assert ((odds > 0) == (fresh[:, 0] > 0.5)).mean() > 0.9, name


def test_the_calibration_error_is_the_gap_between_said_and_seen(detection: SimpleNamespace) -> None:
    """Frames said to be faulty with 0.25 and 0.75 of which 1 in 4 and all are: gaps of 0 and 0.25, half each."""
    truth, said = np.array([1, 0, 0, 0, 1, 1, 1, 1], dtype=bool), np.array([0.25] * 4 + [0.75] * 4)
    assert detection.figures.expected_calibration_error(truth, said) == pytest.approx(0.125)
