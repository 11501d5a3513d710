"""The detection benchmark, run as a user runs it, and its figures against independent ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_capture
import torch
from PIL import Image

from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, save_checkpoint
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelConfig
from mtcm_nerfstudio.tokens.embedders import load_embedder

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
KINDS = ("far", "pose_10", "defocus", "foreign")


def _benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "benchmark_detection.py"), *arguments]
    environment = {**os.environ, "COLUMNS": "160"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def _auroc(faulty: set[int], scores: list[float]) -> float:
    """Count the pairs of a faulty and a good frame that are ranked rightly, ties as half."""
    bad = np.array([score for i, score in enumerate(scores) if i in faulty])
    good = np.array([score for i, score in enumerate(scores) if i not in faulty])
    return float((bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean())


def _write_detailed_images(folder: Path, count: int, seed: int) -> None:
    """Pictures full of detail, each a little further along the same noise than the one before."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed).integers(30 * seed, 100 + 30 * seed, (120, 160, 3), dtype=np.uint8)
    for i, name in enumerate(tiny_capture.names(count)):
        Image.fromarray(np.roll(noise, 2 * i, axis=1)).save(folder / name, quality=95)


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two captures that look different."""
    root = tmp_path_factory.mktemp("captures")
    for name, seed in (("first", 0), ("second", 5)):
        tiny_capture.write_transforms(root / name, tiny_capture.orbit(16), images=False)
        _write_detailed_images(root / name / "images", 16, seed)
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
    out = tmp_path / "results"
    done = _benchmark(
        "--captures", *map(str, captures), "--checkpoints", f"mine={untrained}", "--kinds", *KINDS,
        "--seeds", "1", "--min-frames", "10", "--output-dir", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (out / "detection.json").read_text()
    assert str(tmp_path.parent) not in text, "no machine path goes into the results"
    results = json.loads(text)
    assert results["captures"] == {"first": 16, "second": 16}
    assert len(results["trials"]) == 2 * (len(KINDS) + 2)
    for trial in results["trials"]:
        assert all(len(scores) == 16 for scores in trial["scores"].values())
        assert len(trial["faults"]) == (0 if trial["kind"] == "clean" else 3)
        assert {kind for _, kind, _ in trial["faults"]} <= set(KINDS)
    by_cell = {(entry["method"], entry["kind"]): entry for entry in results["figures"]}
    for method in ("mine", "Laplacian variance", "embedding kNN", "IsolationForest", "LocalOutlierFactor"):
        for kind in (*KINDS, "mixed"):
            trials = [trial for trial in results["trials"] if trial["kind"] == kind]
            again = [_auroc({frame for frame, *_ in trial["faults"]}, trial["scores"][method]) for trial in trials]
            assert by_cell[method, kind]["auroc"] == pytest.approx(np.mean(again), abs=0.03), "scores are rounded"
    assert by_cell["Laplacian variance", "defocus"]["auroc"] > 0.95, "blurred frames are the least sharp"
    assert by_cell["embedding kNN", "foreign"]["auroc"] > 0.95, "another place looks like nothing here"
    assert by_cell["mine", "clean"]["good_dropped"] is not None
    assert "embedding kNN" in (out / "detection.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "1.5"], r"--share must lie in (0, 1), got 1.5"),
        (["--checkpoints", "nameless"], r"--checkpoints takes name=path, got 'nameless'"),
    ],
)
@pytest.mark.slow
def test_the_benchmark_refuses_in_one_line(arguments: list[str], message: str) -> None:
    done = _benchmark(*arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.slow
def test_the_calibration_error_is_the_gap_between_said_and_seen() -> None:
    """Frames said to be faulty with 0.25 and 0.75 of which 1 in 4 and all are: gaps of 0 and 0.25, half each."""
    code = (
        "import numpy as np; from detection.figures import expected_calibration_error as e;"
        "print(e(np.array([1, 0, 0, 0, 1, 1, 1, 1], bool), np.array([0.25] * 4 + [0.75] * 4)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SCRIPTS, check=True)
    assert float(done.stdout) == pytest.approx(0.125)
