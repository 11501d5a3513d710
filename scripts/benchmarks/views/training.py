"""Small NeRFs on chosen views of a capture, each measured on frames that are held out."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from benchmarks.nerf.cases import Case
from benchmarks.nerf.cells import FILE_NAME, Cells, trained
from benchmarks.views.benchmark import Benchmark
from mtcm_nerfstudio.decisions import Decisions, FrameDecision

_VERSION = "1"


def train_all(benchmark: Benchmark, jobs: Sequence[tuple[Case, Sequence[str]]]) -> list[dict[str, Any]]:
    """Train a NeRF for every job, those that are known already excepted.

    Args:
        benchmark: how long, how large, how many at a time, and where finished trainings are.
        jobs: the case, and the names of the frames to train on.
    """
    cells = Cells(benchmark.output_dir / FILE_NAME)

    def result(job: tuple[Case, Sequence[str]]) -> dict[str, Any]:
        case, names = job
        made_of = ["views", _VERSION, case.name, case.seed, sorted(names), sorted(case.evaluation), benchmark.sizes]
        key = sha256(json.dumps(made_of).encode()).hexdigest()[:24]
        known = cells.get(key)
        if known is None:
            print(f"{case.name}, seed {case.seed}: {len(names)} frames", flush=True)
            known = trained(case.clean, _keeping(case, set(names)), {**benchmark.sizes, "seed": case.seed})
            cells.put(key, known)
        return known

    with ThreadPoolExecutor(benchmark.processes) as pool:
        return list(pool.map(result, jobs))


def held_out(case: Case, frames: np.ndarray) -> Case:
    """Return a case that is evaluated on other frames, in a folder of its own."""
    evaluation = frozenset(case.file_paths[i] for i in frames)
    folder = case.clean.with_name(f"clean_{sha256(repr(sorted(evaluation)).encode()).hexdigest()[:8]}")
    folder.mkdir(exist_ok=True)
    meta = json.loads((case.clean / "transforms.json").read_text(encoding="utf-8"))
    meta["train_filenames"] = [name for name in case.file_paths if name not in evaluation]
    meta["val_filenames"] = meta["test_filenames"] = sorted(evaluation)
    for entry in case.clean.iterdir():
        if entry.name not in ("transforms.json", "mtcm") and not (folder / entry.name).exists():
            (folder / entry.name).symlink_to(entry.absolute())
    (folder / "transforms.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    return replace(case, clean=folder, evaluation=evaluation)


def _keeping(case: Case, names: set[str]) -> Decisions:
    frames = tuple(
        FrameDecision(name, inconsistency=0.0, kept=name in names, decided_by="rule",
                      reason=None if name in names else "redundant")
        for name in case.file_paths
    )  # fmt: skip
    return Decisions("", {}, "none", "none", 0.5, frames)
