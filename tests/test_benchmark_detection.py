"""The detection benchmark, run as a user runs it, and its figures against independent ones."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import textured_corner
import tiny_capture
import torch
from PIL import Image, ImageOps

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.faults import read_truth, turned_and_shifted
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, save_checkpoint
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelConfig
from mtcm_nerfstudio.evidence.collect import match_capture
from mtcm_nerfstudio.evidence.numbers import FRAME_NUMBERS, compute_evidence
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import load_embedder
from mtcm_nerfstudio.tokens.progress import progress_bars
from mtcm_nerfstudio.tokens.tokens import assemble_tokens

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
KINDS = ("pose_3", "defocus", "foreign")
FRAMES = 16
PARTS = ("transformer alone", "forest alone", "tokens only")
FORESTS = ("ExtraTrees", "HistGradientBoosting")
BASELINES = (
    "Laplacian variance", "CleanVision", "embedding kNN", "IsolationForest", "LocalOutlierFactor", "pose smoothness",
    "inlier ratio", "max-rank fusion",
)  # fmt: skip
TITLES = (
    "What MTCM is made of", "AUROC by kind", "Moved runs", "One kind alone", "AUROC by capture", "At the threshold",
    "Poses put right",
)  # fmt: skip


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    environment = {**os.environ, "COLUMNS": "160"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def _auroc(bad: np.ndarray, good: np.ndarray) -> float:
    """Count the pairs of a faulty and a good frame that are ranked rightly, ties as half."""
    return float((bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean())


@pytest.fixture(scope="module")
def detection() -> Iterator[SimpleNamespace]:
    """The modules of the benchmark."""
    pytest.importorskip("skimage")
    sys.path.insert(0, str(SCRIPTS))
    from benchmarks import capture_list, corruptions
    from detection import captures, figures, forests, images, judgement, methods, models, mtcm, repairs, tables, trials

    yield SimpleNamespace(
        capture_list=capture_list, captures=captures, corruptions=corruptions, figures=figures, forests=forests,
        images=images, judgement=judgement, methods=methods, models=models, mtcm=mtcm, repairs=repairs, tables=tables,
        trials=trials,
    )  # fmt: skip
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two walks through one textured room; in the second, light and dark have changed places, and the light is red."""
    root = tmp_path_factory.mktemp("captures")
    names = [name.replace(".jpg", ".png") for name in tiny_capture.names(FRAMES)]
    for folder in (root / "first", root / "second"):
        poses = textured_corner.write_photos(folder / "images", names)
        frames = [{"file_path": f"images/{n}", "transform_matrix": p.tolist()} for n, p in zip(names, poses)]
        width, height, focal = textured_corner.WIDTH, textured_corner.HEIGHT, textured_corner.FOCAL
        lens = {"fl_x": focal, "fl_y": focal, "cx": width / 2, "cy": height / 2, "w": width, "h": height}
        record = {"camera_model": "PINHOLE", **lens, "frames": frames}
        (folder / "transforms.json").write_text(json.dumps(record))
    for path in (root / "second" / "images").iterdir():
        red, green, blue = ImageOps.invert(Image.open(path)).split()
        Image.merge("RGB", [red, green.point(lambda level: level // 4), blue.point(lambda level: level // 4)]).save(
            path
        )
    return root / "first", root / "second"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the real kind that has learned nothing."""
    torch.manual_seed(0)
    stem = tmp_path_factory.mktemp("checkpoint") / "untrained"
    version = load_embedder("efficientnet-lite0", "cpu").version
    save_checkpoint(
        ConsistencyTransformer(ModelConfig()), CheckpointCard("untrained", "efficientnet-lite0", version), stem
    )
    return stem


@pytest.mark.slow
def test_the_benchmark_measures_what_it_writes(captures: tuple[Path, Path], untrained: Path, tmp_path: Path) -> None:
    out, methods = tmp_path / "results", ["MTCM", "MTCM + repair", *PARTS, *FORESTS, *BASELINES, "logistic"]
    _write_examples(untrained.parent / "forest_examples.npz")
    done = _run(
        "benchmark_detection.py",
        "--captures", *map(str, captures), "--checkpoint", str(untrained), "--kinds", *KINDS, "--alone",
        "--seeds", "1", "--more-shares", "0.5", "--output-dir", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (out / "detection.json").read_text()
    assert str(tmp_path.parent) not in text, "no machine path goes into the results"
    results = json.loads(text)
    assert results["captures"] == {"first": FRAMES, "second": FRAMES}
    assert results["groups"] == {"first": "first", "second": "second"}
    assert results["faulty_as_they_came"] == {"first": [], "second": []}
    assert results["checkpoints"]["first"]["trained_on_it"] is False
    kinds = ("mixed 20%", "mixed 50%", "moved_run", *KINDS)
    found = [trial["kind"] for trial in results["trials"]]
    assert found == 2 * ["mixed 20%", "mixed 50%", *3 * ["moved_run"], "clean", *KINDS]
    for trial in results["trials"]:
        assert len(trial["faults"]) == {"clean": 0, "mixed 50%": 8, "moved_run": 4}.get(trial["kind"], 3)
        assert {kind for _, kind in trial["faults"]} <= {*KINDS, "moved_run"}
        assert set(trial["scores"]) == set(methods)
        assert all(len(scores) == FRAMES for scores in trial["scores"].values())
    by_cell = {(entry["method"], entry["kind"]): entry for entry in results["figures"]}
    for method, kind in itertools.product(methods, kinds):
        again = [_auroc_of(trial, method) for trial in results["trials"] if trial["kind"] == kind]
        assert by_cell[method, kind]["auroc"] == pytest.approx(np.mean(again), abs=0.03), "scores are rounded"
    mixed = [trial for trial in results["trials"] if trial["kind"] == "mixed 50%"]
    for method, kind in itertools.product(methods, KINDS):
        again = np.mean([_auroc_of(trial, method, kind) for trial in mixed])
        assert by_cell[method, "mixed 50%"]["auroc_by_kind"][kind] == pytest.approx(again, abs=0.05)
    assert by_cell["Laplacian variance", "defocus"]["auroc"] > 0.95, "blurred frames are the least sharp"
    assert by_cell["embedding kNN", "foreign"]["auroc"] > 0.95, "another place looks like nothing here"
    for kind in ("pose_3", "foreign", "moved_run"):
        assert by_cell["inlier ratio", kind]["auroc"] > 0.9, "matches tell where a camera was not"
    assert ("COLMAP reprojection", "pose_3") not in by_cell, "there is no model"
    assert by_cell["MTCM", "clean"]["good_touched"] is not None
    assert [row["name"] for row in results["repairs"]] == ["pose_3", "moved_run", "all"]
    report = (out / "detection.md").read_text()
    titles = [line[3:] for line in report.splitlines() if line.startswith("## ")]
    assert titles == ["All kinds, mixed 20%", "All kinds, mixed 50%", *TITLES]
    for name in ("roc", "reliability", "scores"):
        with Image.open(out / f"detection_{name}.png") as picture:
            assert min(picture.size) > 300


def _write_examples(path: Path) -> None:
    """Examples that are good where the inlier ratio is high."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(300, len(FRAME_NUMBERS))).astype(np.float32)
    numbers[:, FRAME_NUMBERS.index("inlier ratio")] = rng.random(300)
    label = np.where(numbers[:, FRAME_NUMBERS.index("inlier ratio")] > 0.5, 0, 1 + rng.integers(5, size=300))
    np.savez(path, numbers=numbers, label=label, weight=np.ones(300))


def _auroc_of(trial: dict, method: str, kind: str | None = None) -> float:
    scores = np.array(trial["scores"][method])
    faulty = {frame for frame, _ in trial["faults"]}
    counts = [frame for frame, each in trial["faults"] if kind in (None, each)]
    return _auroc(scores[counts], scores[[i for i in range(FRAMES) if i not in faulty]])


@pytest.mark.slow
def test_a_trial_is_what_the_filter_would_see(
    detection: SimpleNamespace, captures: tuple[Path, Path], tmp_path: Path
) -> None:
    """The same capture, its corrupted images and poses written to disk, read and matched from nothing."""
    first, second = detection.captures.own_captures(captures, None, tmp_path)
    first = replace(first, natural_faults=("images/frame_2.png",))
    cache, track = Cache(tmp_path / "cache.sqlite"), progress_bars(shown=False)
    bank = detection.images.ImageBank(cache=cache)
    subject = detection.trials.subject_of(first, bank, track)
    assert subject.natural.tolist() == [i == 1 for i in range(FRAMES)] and subject.model is None
    kinds = ("pose_10", "defocus", "occluder", "foreign")
    kind = detection.trials.TrialKind("mixed", kinds, 0.25)
    plan = detection.trials.plan_trial(subject, kind, 0, [first, second])
    trial = plan.made(bank)
    assert {fault.kind for fault in trial.case.faults} == set(kinds)
    on_disk = _written(first.capture, plan, trial, tmp_path / "faulty")
    claimed = assemble_tokens(trial.raw).capture_frame.to_capture(trial.raw.c2w)
    every, embeddings = np.ones(FRAMES, dtype=bool), trial.raw.embeddings
    other = Cache(tmp_path / "other.sqlite")
    matched = match_capture(on_disk.frames, embeddings, claimed, every, other, track)
    assert set(trial.matched.matches) == set(matched.matches), "the same pairs are compared"
    for pair, found in matched.matches.items():
        assert len(trial.matched.matches[pair]) == pytest.approx(len(found), rel=0.1, abs=20), pair
    evidence = compute_evidence(matched.table, embeddings, claimed, every)
    np.testing.assert_allclose(trial.evidence.number("inlier ratio"), evidence.number("inlier ratio"), atol=0.1)
    np.testing.assert_allclose(trial.evidence.number("blur"), evidence.number("blur"), atol=0.1)
    repeated = plan.made(detection.images.ImageBank(cache=cache))
    np.testing.assert_array_equal(repeated.evidence.frames, trial.evidence.frames)
    np.testing.assert_array_equal(repeated.raw.embeddings, trial.raw.embeddings)
    again = next(one for one in repeated.matched.features if not one.keypoints.described)
    assert again.again is not None and again.again().described, "descriptors that were not kept are found again"


def _written(capture: Capture, plan, trial, folder: Path) -> Capture:
    """The capture with the trial's images, PNGs so that nothing is lost, and poses."""
    folder.mkdir()
    frames = [replace(frame, c2w=pose) for frame, pose in zip(capture.frames, trial.raw.c2w)]
    for image in plan.corrupted_images:
        path = folder / image.frame.image_path.name
        image.made().save(path)
        frames[image.corruption.frame] = replace(frames[image.corruption.frame], image_path=path)
    return replace(capture, frames=tuple(frames))


def test_frames_that_were_faulty_before_count_for_neither_side(detection: SimpleNamespace) -> None:
    natural, corruption = np.array([False, True, True, False, False]), detection.corruptions.Corruption
    faults = (corruption(2, "defocus", 1), corruption(3, "pose_1", 1))
    case = detection.trials.Case("c", "mixed 20%", 0.2, 0, faults, natural, np.tile(np.eye(4), (5, 1, 1)))
    assert case.truth.tolist() == [False, False, True, True, False]
    assert case.good.tolist() == [True, False, False, False, True]
    scores = np.array([0.1, 0.99, 0.2, 0.9, 0.6])
    said = detection.judgement.Judgement(scores, 0.0, 0.5, ("pose",) * 5, {4: np.eye(4), 3: np.eye(4)})
    outcome = detection.judgement.Outcome(case, {"m": said}, np.zeros((5, 8)), 0.0)
    found = detection.figures.figures("m", "mixed 20%", [outcome])
    assert found.auroc == pytest.approx(0.75)
    assert found.auroc_by_kind == {"defocus": 0.5, "pose_1": 1.0}
    assert found.recall == pytest.approx(0.5), "a frame that was given another pose counts as found"
    assert (found.good_dropped, found.good_touched) == (0.0, 0.5)
    assert found.reason_accuracy == 1.0
    assert detection.figures.figures("m", "clean", [outcome]) is None


def test_repairs_are_measured_against_the_true_poses(detection: SimpleNamespace) -> None:
    true, corruption = textured_corner.walk(8), detection.corruptions.Corruption
    faults = (corruption(1, "pose_10", 1), corruption(4, "pose_10", 2), corruption(6, "defocus", 3))
    case = detection.trials.Case("c", "mixed 20%", 0.2, 0, faults, np.zeros(8, dtype=bool), true)
    rng, spread = np.random.default_rng(0), detection.corruptions.spread_of(true)
    better = turned_and_shifted(true[1:2], 0.4, 0.003 * spread, rng)[0]
    said = detection.judgement.Judgement(np.zeros(8), 0.0, 0.5, None, {1: better, 2: true[2], 6: true[6]})
    outcome = detection.judgement.Outcome(case, {"m": said}, np.zeros((8, 8)), 0.0)
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
        case = detection.trials.Case(name, "k", 0.2, 0, (corruption(0, "defocus", 1),), nothing, poses)
        said = {"m": detection.judgement.Judgement(np.array(scores), 0.0)}
        outcomes.append(detection.judgement.Outcome(case, said, np.zeros((4, 8)), 0.0))
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
            case = detection.trials.Case(capture, "k", 0.2, seed, faults, nothing, np.tile(np.eye(4), (20, 1, 1)))
            signals = sign * (case.truth[:, None] * 2.0 + 0.1 * rng.standard_normal((20, 8)))
            outcomes.append(detection.judgement.Outcome(case, {}, signals, 0.0))
    judged = detection.methods.with_logistic(outcomes)
    by_capture = detection.figures.auroc_by_capture("logistic", "k", judged)
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


def test_listed_captures_are_judged_by_the_checkpoint_of_their_group(
    detection: SimpleNamespace, captures: tuple[Path, Path], tmp_path: Path
) -> None:
    fault = detection.capture_list.NaturalFault
    entries = {
        "second": SimpleNamespace(group="evaluation", faulty_files=lambda grade: ()),
        "absent": SimpleNamespace(group="B", faulty_files=lambda grade: ()),
        "first": SimpleNamespace(group="A", faulty_files=lambda grade: (fault(f"images/{grade}.png", "blur", grade),)),
    }
    first, second = detection.captures.listed_captures(captures[0].parent, tmp_path, entries)
    assert (first.name, first.group, first.checkpoint) == ("first", "A", tmp_path / "without_A" / "checkpoint")
    assert first.examples == tmp_path / "without_A" / "forest_examples.npz"
    assert [one.grade for one in first.natural_faults] == ["clear", "mild"], "neither counts as good"
    assert (second.name, second.checkpoint) == ("second", None), "the shipped one"
    assert second.examples == tmp_path / "all" / "forest_examples.npz"
    with pytest.raises(FileNotFoundError, match=r"without_A.*python scripts/pretrain.py"):
        detection.mtcm.Checkpoints([first])


def test_captures_of_one_group_lend_each_other_nothing(
    detection: SimpleNamespace, captures: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = detection.captures.own_captures(captures, None, tmp_path)
    own, beside = replace(first, group="A"), replace(second, group="A")
    third = replace(second, group="B", capture=replace(second.capture, name="third"))
    subject = SimpleNamespace(name="first", group="A", raw=_Frames(textured_corner.walk(FRAMES)))
    kind = detection.trials.TrialKind("mixed", ("foreign",), 0.5)
    plan = detection.trials.plan_trial(subject, kind, 0, [own, beside, third])
    assert [one.name for one in plan.others] == ["third"]


class _Frames:
    """The poses of a capture, as much of its features as a plan needs."""

    def __init__(self, c2w: np.ndarray) -> None:
        self.c2w = c2w

    def __len__(self) -> int:
        return len(self.c2w)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "1.5"], r"--share must lie in (0, 1), got 1.5"),
        (["--more-shares", "0.1", "0"], r"--more-shares must lie in (0, 1), got 0.1, 0.0"),
        (["--kinds", "swap", "moved_run"], r"--kinds must name kinds other than moved_run, got swap, moved_run"),
        (["--checkpoint", "mine"], r"name them with --captures"),
        (["--captures-folder", "nowhere"], r"at least two are needed, got none"),
    ],
)
@pytest.mark.slow
def test_the_benchmark_refuses_in_one_line(arguments: list[str], message: str) -> None:
    done = _run("benchmark_detection.py", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_the_calibration_error_is_the_gap_between_said_and_seen(detection: SimpleNamespace) -> None:
    """Frames said to be faulty with 0.25 and 0.75 of which 1 in 4 and all are: gaps of 0 and 0.25, half each."""
    truth, said = np.array([1, 0, 0, 0, 1, 1, 1, 1], dtype=bool), np.array([0.25] * 4 + [0.75] * 4)
    assert detection.figures.expected_calibration_error(truth, said) == pytest.approx(0.125)


@pytest.mark.slow
def test_the_filter_is_timed_beside_colmap(captures: tuple[Path, Path], untrained: Path, tmp_path: Path) -> None:
    done = _run(
        "benchmark_speed.py", "--captures", str(captures[0]), "--checkpoint", str(untrained),
        "--output-dir", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (speed,) = json.loads((tmp_path / "speed.json").read_text())["captures"]
    assert speed["frames"] == FRAMES and speed["colmap"]["registered"] == FRAMES
    taken = sum(speed["colmap"][stage] for stage in ("features", "matches", "mapping"))
    assert speed["ratio"] == pytest.approx(speed["from_nothing"] / taken)
    assert speed["again"] < speed["from_nothing"]
    assert "| first | 16 |" in (tmp_path / "speed.md").read_text()
    assert not (captures[0] / "mtcm").exists(), "nothing is written into the capture"
