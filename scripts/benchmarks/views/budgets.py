"""Which views serve a NeRF best when there may be few? Ways of choosing them, compared in decibels."""

from typing import Any

import numpy as np

from benchmarks.detection.tables import markdown
from benchmarks.nerf.cases import make_case
from benchmarks.nerf.cells import checkpoint_of
from benchmarks.views.baselines import choosers
from benchmarks.views.benchmark import Benchmark, Measured, cell, mean, usable
from benchmarks.views.training import held_out, train_all
from mtcm_nerfstudio.capture.read import read_capture

_EVERY = 5
"""Of every so many frames, one is for evaluation."""


def measure_budgets(benchmark: Benchmark) -> Measured:
    """Train on as many views as a budget allows, chosen in different ways."""
    jobs = []
    for name in benchmark.captures:
        capture = usable(read_capture(benchmark.folder / name))
        known = choosers(checkpoint_of(benchmark.checkpoint, name))
        if not set(benchmark.ways) <= set(known):
            raise ValueError(f"--ways must be among {', '.join(known)}, got {', '.join(benchmark.ways)}")
        ways = {way: known[way] for way in benchmark.ways or known}
        for seed in range(benchmark.seeds):
            held = _one_of_every(_EVERY, len(capture), seed)
            case = held_out(make_case(capture, capture, ("pose_1",), 0.0, seed, benchmark.work), held)
            train = np.setdiff1d(np.arange(len(capture)), held)
            for budget in benchmark.budgets:
                for way, choose in ways.items():
                    if budget < len(train):
                        jobs.append((case, way, budget, choose(capture, train, budget, seed)))
    results = train_all(benchmark, [(case, [case.file_paths[i] for i in chosen]) for case, _, _, chosen in jobs])
    rows = [
        {"capture": case.name, "seed": case.seed, "way": way, "budget": budget, "psnr": result["psnr"],
         "ssim": result["ssim"], "chosen": sorted(case.file_paths[i] for i in chosen)}
        for (case, way, budget, chosen), result in zip(jobs, results, strict=True)
    ]  # fmt: skip
    ways = list(dict.fromkeys(row["way"] for row in rows))
    tables = []
    for budget in benchmark.budgets:
        table: list[list[Any]] = [["views chosen by", "PSNR", *benchmark.captures]]
        for way in ways:
            own = [row for row in rows if row["way"] == way and row["budget"] == budget]
            of = [mean([row["psnr"] for row in own if row["capture"] == name]) for name in benchmark.captures]
            table.append([way, mean([row["psnr"] for row in own]), *of])
        said = (
            f"Mean over {benchmark.seeds} draws a capture. Evaluation frames, never trained on, are one of every "
            f"{_EVERY} by chance, others in each draw: were they evenly spaced, an even stride would stand beside them "
            "all, or half-way between."
        )
        tables.append(markdown(f"{budget} views", said, [[cell(one) for one in row] for row in table]))
    return tables, rows


def _one_of_every(count: int, frames: int, seed: int) -> np.ndarray:
    """Return one frame by chance out of each so many that follow each other."""
    starts = np.arange(0, frames, count)
    within = np.random.default_rng([8, seed]).integers(0, np.minimum(count, frames - starts))
    return starts + within
