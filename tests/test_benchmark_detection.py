"""The detection benchmark, run as a user runs it, and its figures against independent ones."""

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
from mtcm_nerfstudio.capture.faults import Fault, read_truth, spread, turned_and_shifted
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, save_checkpoint
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelConfig
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import load_embedder
from mtcm_nerfstudio.tokens.evidence.assess import assess
from mtcm_nerfstudio.tokens.evidence.collect import match_capture
from mtcm_nerfstudio.tokens.progress import progress_bars
from mtcm_nerfstudio.tokens.tokens import assemble_tokens

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
KINDS = ("far", "pose_3", "defocus", "foreign")
FRAMES = 16


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
    sys.path.insert(0, str(SCRIPTS))
    from detection import figures, images, judgement, methods, models, natural, repairs, trials

    yield SimpleNamespace(
        figures=figures, images=images, judgement=judgement, methods=methods, models=models, natural=natural,
        repairs=repairs, trials=trials,
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
    out, natural = tmp_path / "results", tmp_path / "natural.json"
    listed = {"first": [{"file_path": "images/frame_4.png", "reason": "blur"}]}
    natural.write_text(json.dumps({"schema_version": 1, "captures": listed}))
    done = _run(
        "benchmark_detection.py",
        "--captures", *map(str, captures), "--checkpoints", f"mine={untrained}", "--kinds", *KINDS,
        "--seeds", "1", "--min-frames", "10", "--natural-faults", str(natural), "--output-dir", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (out / "detection.json").read_text()
    assert str(tmp_path.parent) not in text, "no machine path goes into the results"
    results = json.loads(text)
    assert results["captures"] == {"first": FRAMES, "second": FRAMES}
    assert results["faulty_as_they_came"] == {"first": [3], "second": []}
    kinds = (*KINDS, "mixed 5%", "mixed 20%", "mixed 40%")
    assert [trial["kind"] for trial in results["trials"]] == 2 * [*kinds, "clean"]
    for trial in results["trials"]:
        expected = {"clean": 0, "mixed 5%": 1, "mixed 40%": 6}.get(trial["kind"], 3)
        assert len(trial["faults"]) == expected
        assert {kind for _, kind, _ in trial["faults"]} <= set(KINDS)
        assert all(len(scores) == FRAMES for scores in trial["scores"].values())
    by_cell = {(entry["method"], entry["kind"]): entry for entry in results["figures"]}
    methods = ("mine tokens only", "mine", "mine + repair", "epipolar share", "glued", "logistic", "pose smoothness")
    for method in (*methods, "Laplacian variance", "CleanVision", "embedding kNN", "IsolationForest"):
        for kind in kinds:
            again = [_auroc_of(trial, results, method) for trial in results["trials"] if trial["kind"] == kind]
            assert by_cell[method, kind]["auroc"] == pytest.approx(np.mean(again), abs=0.03), "scores are rounded"
    assert by_cell["Laplacian variance", "defocus"]["auroc"] > 0.95, "blurred frames are the least sharp"
    assert by_cell["embedding kNN", "foreign"]["auroc"] > 0.95, "another place looks like nothing here"
    assert by_cell["epipolar share", "pose_3"]["auroc"] > 0.95, "matches tell where a camera was not"
    assert by_cell["epipolar share", "foreign"]["auroc"] > 0.95, "nothing matches"
    assert by_cell["epipolar share", "far"]["auroc"] > 0.95
    assert ("COLMAP reprojection", "pose_3") not in by_cell, "there is no model"
    assert by_cell["mine", "clean"]["good_touched"] is not None
    assert {row["name"] for row in results["repairs"]} == {*kinds, "clean", "all"}
    report = (out / "detection.md").read_text()
    assert "1 of first" in report and "## AUROC by capture" in report
    for name in ("roc", "reliability", "scores"):
        with Image.open(out / f"detection_{name}.png") as picture:
            assert min(picture.size) > 300


def _auroc_of(trial: dict, results: dict, method: str) -> float:
    faulty = {frame for frame, *_ in trial["faults"]}
    neither = set(results["faulty_as_they_came"][trial["capture"]]) - faulty
    scores = np.array(trial["scores"][method])
    good = [i for i in range(FRAMES) if i not in faulty | neither]
    return _auroc(scores[sorted(faulty)], scores[good])


@pytest.mark.slow
def test_a_trial_is_what_the_filter_would_see(
    detection: SimpleNamespace, captures: tuple[Path, Path], tmp_path: Path
) -> None:
    """The same capture, its faulty images and poses written to disk, read and matched from nothing."""
    first, second = map(read_capture, captures)
    cache, track = Cache(tmp_path / "cache.sqlite"), progress_bars(shown=False)
    bank = detection.images.ImageBank(cache=cache)
    subject = detection.trials.subject_of(first, ("images/frame_2.png",), bank, track)
    assert subject.natural.tolist() == [i == 1 for i in range(FRAMES)] and subject.model is None
    kinds = ("pose_10", "defocus", "occluder", "foreign")
    kind = detection.trials.TrialKind("mixed", kinds, 0.25)
    plan = detection.trials.plan_trial(subject, kind, 0, [first, second])
    trial = plan.made(bank)
    on_disk = _written(first, plan, trial, tmp_path / "faulty")
    claimed = assemble_tokens(trial.raw).capture_frame.to_capture(trial.raw.c2w)
    every = np.ones(FRAMES, dtype=bool)
    matched = match_capture(on_disk.frames, claimed, every, Cache(tmp_path / "other.sqlite"), track)
    np.testing.assert_array_equal(trial.matched.bank.likeness, matched.bank.likeness)
    assert set(trial.matched.matches) == set(matched.matches), "the same pairs are compared"
    for pair, found in matched.matches.items():
        assert len(trial.matched.matches[pair]) == pytest.approx(len(found), rel=0.1, abs=20), pair
    evidence = assess(matched.bank, claimed, every)
    np.testing.assert_allclose(trial.evidence.number("obeys"), evidence.number("obeys"), atol=0.1)
    repeated = plan.made(detection.images.ImageBank(cache=cache))
    np.testing.assert_array_equal(repeated.evidence.frames, trial.evidence.frames)
    np.testing.assert_array_equal(repeated.raw.embeddings, trial.raw.embeddings)
    again = next(one for one in repeated.matched.seen if not one.features.whole)
    assert again.again is not None and again.again().whole, "descriptors that were not kept are found again"


def _written(capture: Capture, plan, trial, folder: Path) -> Capture:
    """The capture with the trial's images, PNGs so that nothing is lost, and poses."""
    folder.mkdir()
    frames = [replace(frame, c2w=pose) for frame, pose in zip(capture.frames, trial.raw.c2w)]
    for image in plan.spoiled_images:
        path = folder / image.frame.image_path.name
        image.made().save(path)
        frames[image.fault.frame] = replace(frames[image.fault.frame], image_path=path)
    return replace(capture, frames=tuple(frames))


def test_frames_that_were_faulty_before_count_for_neither_side(detection: SimpleNamespace) -> None:
    natural = np.array([False, True, True, False, False])
    faults = (Fault(2, "defocus", 0.5, 1), Fault(3, "pose_1", 0.5, 1))
    case = detection.trials.Case("c", "mixed 20%", 0.2, 0, faults, natural, np.tile(np.eye(4), (5, 1, 1)))
    assert case.truth.tolist() == [False, False, True, True, False]
    assert case.good.tolist() == [True, False, False, False, True]
    scores = np.array([0.1, 0.99, 0.2, 0.9, 0.6])
    said = detection.judgement.Judgement(scores, 0.0, 0.5, ("pose",) * 5, {4: np.eye(4), 3: np.eye(4)})
    outcome = detection.judgement.Outcome(case, {"m": said}, np.zeros((5, 8)), 0.0)
    found = detection.figures.figures("m", "mixed 20%", [outcome])
    assert found.auroc == pytest.approx(0.75)
    assert found.recall == pytest.approx(0.5), "a frame that was given another pose counts as found"
    assert (found.good_dropped, found.good_touched) == (0.0, 0.5)
    assert found.reason_accuracy == 1.0
    assert detection.figures.figures("m", "clean", [outcome]) is None


def test_repairs_are_measured_against_the_true_poses(detection: SimpleNamespace) -> None:
    true = textured_corner.walk(8)
    faults = (Fault(1, "pose_10", 0.5, 1), Fault(4, "pose_10", 0.5, 2), Fault(6, "defocus", 0.5, 3))
    case = detection.trials.Case("c", "mixed 20%", 0.2, 0, faults, np.zeros(8, dtype=bool), true)
    rng = np.random.default_rng(0)
    better = turned_and_shifted(true[1:2], 0.4, 0.003 * spread(true), rng)[0]
    said = detection.judgement.Judgement(np.zeros(8), 0.0, 0.5, None, {1: better, 2: true[2], 6: true[6]})
    outcome = detection.judgement.Outcome(case, {"m": said}, np.zeros((8, 8)), 0.0)
    row = detection.repairs.repair_rows("m", [outcome])[0]
    assert (row.pose_faults, row.repaired) == (2, 0.5)
    assert row.degrees_before == pytest.approx(10.0) and row.shift_before == pytest.approx(0.1)
    assert row.degrees_after == row.largest_degrees_after == pytest.approx(0.4)
    assert row.shift_after == pytest.approx(0.003)
    assert row.good_moved == pytest.approx(1 / 5) and row.image_faults_moved == 1.0


def test_the_logistic_regression_never_sees_the_capture_that_it_judges(detection: SimpleNamespace) -> None:
    """Signals mean the opposite in one of three captures: fitted on the other two, it gets that one wrong."""
    rng, outcomes = np.random.default_rng(0), []
    for capture, sign in (("a", 1.0), ("b", 1.0), ("odd", -1.0)):
        for seed in range(4):
            faults = tuple(Fault(i, "defocus", 0.5, 1) for i in range(5))
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


def test_the_list_of_natural_faults_names_frames_that_are_there(
    detection: SimpleNamespace, shared_captures: Path
) -> None:
    listed = detection.natural.read_natural_faults()
    assert len(listed["stitch"]) == 10
    for name, paths in listed.items():
        there = {frame.file_path for frame in read_capture(shared_captures / name).frames}
        assert set(paths) <= there


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "1.5"], r"--share must lie in (0, 1), got 1.5"),
        (["--mixed-shares", "0.1", "0"], r"--mixed-shares must lie in (0, 1), got 0.1, 0.0"),
        (["--checkpoints", "nameless"], r"--checkpoints takes name=path, got 'nameless'"),
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
