"""The benchmark of views, over tiny captures: holes, budgets and fillings are measured and written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from layouts import rings
from tiny_capture import names, write_transforms

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SMALL = "--steps 3 --longest-side 32 --rays 64 --seeds 1 --processes 1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_transforms(tmp_path / "captures" / "ring", rings(24, (0.0,)))
    return tmp_path


def measured(folder: Path, what: str, *arguments: str) -> tuple[list[dict], str]:
    line = [sys.executable, "-W", "ignore", str(SCRIPTS / "benchmark_views.py"), what, "--captures", "ring"]
    line += ["--folder", str(folder / "captures"), "--work", str(folder / "work"), *SMALL.split(), *arguments]
    line += ["--output-dir", str(folder / "results")]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    text = (folder / "results" / f"views_{what}.md").read_text()
    assert text in done.stdout
    return json.loads((folder / "results" / f"views_{what}.json").read_text())["rows"], done.stdout


def test_holes_of_a_ring_are_found_and_random_ones_hardly(folder: Path) -> None:
    rows, _ = measured(folder, "holes", "--seeds", "3")
    assert len(rows) == 6 and {row["kind"] for row in rows} == {"place", "time"}
    assert np.mean([row["mtcm"] for row in rows]) > 0.8 > 0.5 > np.mean([row["random"] for row in rows])


def test_labels_are_right_but_for_what_stands_on_a_limit(folder: Path) -> None:
    rows, _ = measured(folder, "labels")
    clear = [row for row in rows if row["degrees_from_a_limit"] > 4.0]
    assert len(clear) > 0.3 * len(rows) and all(row["said"] == row["true"] for row in clear)
    assert len({row["true"] for row in rows}) > 12


@pytest.mark.slow
def test_budgets_are_kept_by_all_and_nothing_is_trained_twice(folder: Path) -> None:
    rows, said = measured(folder, "budgets", "--budgets", "8", "40")
    assert {row["way"] for row in rows} == {"MTCM", "random", "stride", "farthest view", "sharpest"}
    assert all(row["budget"] == 8 == len(set(row["chosen"])) and np.isfinite(row["psnr"]) for row in rows)
    (split,) = (folder / "work").glob("*/clean_*/transforms.json")
    held_out = json.loads(split.read_text())["val_filenames"]
    of_groups = [int(np.argwhere(np.array(names(24)) == Path(name).name)[0, 0]) // 5 for name in held_out]
    assert sorted(of_groups) == [0, 1, 2, 3, 4]  # one of every five
    assert not set(held_out) & {name for row in rows for name in row["chosen"]} and "8 frames" in said
    again, said = measured(folder, "budgets", "--budgets", "8", "40")
    assert again == rows and "8 frames" not in said


@pytest.mark.slow
def test_a_filled_hole_is_judged_by_views_that_were_missing(folder: Path) -> None:
    rows, _ = measured(folder, "filling")
    of = {row["way"]: row for row in rows}
    assert of["nearest to suggestions"]["frames"] == of["as many at random"]["frames"] > of["base alone"]["frames"]
    assert all(np.isfinite(row["psnr"]) for row in rows)
