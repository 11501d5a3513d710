"""The benchmark of decibels, over tiny captures: cases are fair, every method trains, and nothing is trained twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_capture import orbit, write_transforms

from mtcm_nerfstudio.capture.corruptions import read_truth
from mtcm_nerfstudio.capture.read import read_capture

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
COUNT = 18
METHODS = (
    "clean capture",
    "all frames",
    "sharpest frames",
    "camera optimizer",
    "trimmed loss",
    "MTCM filter + repair + joint",
    "MTCM joint on all frames",
    "oracle drop",
)
SMALL = "--steps 5 --longest-side 32 --rays 64 --seeds 1 --processes 1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_transforms(tmp_path / "captures" / "walk", orbit(COUNT))
    write_transforms(tmp_path / "captures" / "other", orbit(6))
    return tmp_path


def benchmark(folder: Path, *arguments: str) -> str:
    line = [sys.executable, "-W", "ignore", str(SCRIPTS / "benchmark_nerf.py"), "--folder", str(folder / "captures")]
    line += ["--captures", "walk", "--foreign", "other", "--work", str(folder / "work"), *SMALL.split()]
    line += ["--output-dir", str(folder / "results"), *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_remedy_trains_and_what_is_done_is_not_done_again(folder: Path) -> None:
    asked = ("--only", *METHODS, "--also-at", "0.4")
    said = benchmark(folder, *asked)
    record = json.loads((folder / "results" / "nerf_mixed.json").read_text())
    rows, more = ({r["method"]: r for r in record["rows"] if r["share"] == share} for share in (0.2, 0.4))
    assert set(more) == {"clean capture", "all frames", "oracle drop", "MTCM filter + repair"}
    assert len(more["all frames"]["spoiled"]) > len(rows["all frames"]["spoiled"])
    spoiled = set(rows["all frames"]["spoiled"])
    assert 0 < len(spoiled) <= 4 and set(rows["oracle drop"]["dropped"]) == spoiled
    assert rows["all frames"]["train_frames"] == rows["clean capture"]["train_frames"] == COUNT - 3
    assert rows["oracle drop"]["train_frames"] == COUNT - 3 - len(spoiled)
    assert len(rows["sharpest frames"]["dropped"]) == len(spoiled)
    assert all(np.isfinite([row["psnr"], row["ssim"]]).all() and len(row["of_images"]) == 3 for row in rows.values())
    assert rows["MTCM joint on all frames"]["weights"] and not rows["all frames"]["weights"]
    assert rows["trimmed loss"]["psnr"] != rows["all frames"]["psnr"] != rows["camera optimizer"]["psnr"]
    text = (folder / "results" / "nerf_mixed.md").read_text()
    assert text in said and all(f"| {name} |" in text for name in rows)
    assert "| MTCM filter + repair |" not in text  # it was asked for at the other share alone
    for picture in ("curves", "weights", "shares"):
        assert (folder / "results" / f"nerf_mixed_{picture}.png").stat().st_size > 5000
    assert "walk, seed 0" not in benchmark(folder, *asked), "all cells are known"
    assert json.loads((folder / "results" / "nerf_mixed.json").read_text())["rows"] == record["rows"]


@pytest.mark.slow
def test_evaluation_frames_are_never_spoiled(folder: Path) -> None:
    benchmark(folder, "--only", "all frames", "--faults", "small")
    (faulty,) = (folder / "work").glob("walk_*/faulty")
    meta = json.loads((faulty / "transforms.json").read_text())
    held_out = set(meta["test_filenames"])
    assert len(held_out) == 3 and not held_out & set(meta["train_filenames"]) and held_out == set(meta["val_filenames"])
    truth = read_truth(faulty)
    assert truth and not held_out & truth.keys() and {fault.kind for fault in truth.values()} <= {"pose_3", "pose_1"}
    clean, spoiled = (read_capture(faulty.parent / name) for name in ("clean", "faulty"))
    for before, after in zip(clean.frames, spoiled.frames, strict=True):
        assert before.file_path == after.file_path
        assert np.allclose(before.c2w, after.c2w) == (after.file_path not in truth)
