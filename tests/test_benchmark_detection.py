"""The detection benchmark, run as a user runs it, and its corrupted captures against such as lie on disk."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import detection_modules
import numpy as np
import pytest
import textured_corner
import tiny_capture
import torch
from detection_modules import SCRIPTS
from PIL import Image, ImageOps

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, save_checkpoint
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelConfig
from mtcm_nerfstudio.evidence.frame_numbers import compute_evidence
from mtcm_nerfstudio.evidence.match_capture import match_capture
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import load_embedder
from mtcm_nerfstudio.tokens.progress import progress_bars
from mtcm_nerfstudio.tokens.tokens import assemble_tokens

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
    with detection_modules.imported() as modules:
        yield modules


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
    found = [labelled["kind"] for labelled in results["trials"]]
    assert found == 2 * ["mixed 20%", "mixed 50%", *3 * ["moved_run"], "clean", *KINDS]
    for labelled in results["trials"]:
        assert len(labelled["faults"]) == {"clean": 0, "mixed 50%": 8, "moved_run": 4}.get(labelled["kind"], 3)
        assert {kind for _, kind in labelled["faults"]} <= {*KINDS, "moved_run"}
        assert set(labelled["scores"]) == set(methods)
        assert all(len(scores) == FRAMES for scores in labelled["scores"].values())
    by_cell = {(entry["method"], entry["kind"]): entry for entry in results["figures"]}
    for method, kind in itertools.product(methods, kinds):
        again = [_auroc_of(labelled, method) for labelled in results["trials"] if labelled["kind"] == kind]
        assert by_cell[method, kind]["auroc"] == pytest.approx(np.mean(again), abs=0.03), "scores are rounded"
    mixed = [labelled for labelled in results["trials"] if labelled["kind"] == "mixed 50%"]
    for method, kind in itertools.product(methods, KINDS):
        again = np.mean([_auroc_of(labelled, method, kind) for labelled in mixed])
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


def _auroc_of(labelled: dict, method: str, kind: str | None = None) -> float:
    scores = np.array(labelled["scores"][method])
    faulty = {frame for frame, _ in labelled["faults"]}
    counts = [frame for frame, each in labelled["faults"] if kind in (None, each)]
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
    subject = detection.labelled_captures.subject_of(first, bank, track)
    assert subject.natural.tolist() == [i == 1 for i in range(FRAMES)] and subject.model is None
    kinds = ("pose_10", "defocus", "occluder", "foreign")
    kind = detection.labelled_captures.CorruptionSetting("mixed", kinds, 0.25)
    plan = detection.labelled_captures.plan_capture(subject, kind, 0, [first, second])
    labelled = plan.made(bank)
    assert {fault.kind for fault in labelled.case.faults} == set(kinds)
    on_disk = _written(first.capture, plan, labelled, tmp_path / "faulty")
    claimed = assemble_tokens(labelled.raw).canonical_frame.to_capture(labelled.raw.c2w)
    every, embeddings = np.ones(FRAMES, dtype=bool), labelled.raw.embeddings
    other = Cache(tmp_path / "other.sqlite")
    matched = match_capture(on_disk.frames, embeddings, claimed, every, other, track)
    assert set(labelled.matched.matches) == set(matched.matches), "the same pairs are compared"
    for pair, found in matched.matches.items():
        assert len(labelled.matched.matches[pair]) == pytest.approx(len(found), rel=0.1, abs=20), pair
    evidence = compute_evidence(matched.table, embeddings, claimed, every)
    np.testing.assert_allclose(labelled.evidence.number("inlier ratio"), evidence.number("inlier ratio"), atol=0.1)
    np.testing.assert_allclose(labelled.evidence.number("blur"), evidence.number("blur"), atol=0.1)
    repeated = plan.made(detection.images.ImageBank(cache=cache))
    np.testing.assert_array_equal(repeated.evidence.frames, labelled.evidence.frames)
    np.testing.assert_array_equal(repeated.raw.embeddings, labelled.raw.embeddings)
    again = next(one for one in repeated.matched.features if not one.keypoints.described)
    assert again.again is not None and again.again().described, "descriptors that were not kept are found again"


def _written(capture: Capture, plan, labelled, folder: Path) -> Capture:
    """The capture with the trial's images, PNGs so that nothing is lost, and poses."""
    folder.mkdir()
    frames = [replace(frame, c2w=pose) for frame, pose in zip(capture.frames, labelled.raw.c2w)]
    for image in plan.corrupted_images:
        path = folder / image.frame.image_path.name
        image.made().save(path)
        frames[image.corruption.frame] = replace(frames[image.corruption.frame], image_path=path)
    return replace(capture, frames=tuple(frames))


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
    kind = detection.labelled_captures.CorruptionSetting("mixed", ("foreign",), 0.5)
    plan = detection.labelled_captures.plan_capture(subject, kind, 0, [own, beside, third])
    assert [one.name for one in plan.others] == ["third"]


class _Frames:
    """The poses of a capture, as much of its features as a plan needs."""

    def __init__(self, c2w: np.ndarray) -> None:
        self.c2w = c2w

    def __len__(self) -> int:
        return len(self.c2w)


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
