"""Are the frames nearest to suggested views worth more than others, where a block of views is missing?"""

from typing import Any

import numpy as np

from benchmarks.detection.tables import markdown
from benchmarks.nerf.cases import make_case
from benchmarks.views.benchmark import Benchmark, Measured, cell, mean, usable
from benchmarks.views.holes import hide
from benchmarks.views.training import held_out, train_all
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.views.suggestion.candidate_poses import Views
from mtcm_nerfstudio.views.suggestion.suggest_views import suggest


def measure_suggested_poses(benchmark: Benchmark) -> Measured:
    """Take a block away, suggest views, add the real frames nearest to the suggestions, and look at the missing ones.

    Every other missing view is for evaluation; the others, and every third frame elsewhere, can be added.
    """
    jobs = []
    for name in benchmark.captures:
        capture = usable(read_capture(benchmark.folder / name))
        c2w = np.stack([frame.c2w for frame in capture.frames if frame.c2w is not None])
        for seed in range(benchmark.seeds):
            hidden = np.flatnonzero(hide(c2w, "place", benchmark.share, seed))
            elsewhere = np.setdiff1d(np.arange(len(c2w)), hidden)
            pool = np.concatenate([hidden[1::2], elsewhere[::3]])
            base = np.setdiff1d(elsewhere, elsewhere[::3])
            ours = _nearest_frames(c2w, base, pool, len(hidden))
            others = np.random.default_rng([7, seed]).choice(pool, len(ours), replace=False)
            case = held_out(make_case(capture, capture, ("pose_1",), 0.0, seed, benchmark.work), hidden[::2])
            jobs += [(case, "base alone", base), (case, "nearest to suggestions", np.union1d(base, ours))]
            jobs.append((case, "as many at random", np.union1d(base, others)))
    results = train_all(benchmark, [(case, [case.file_paths[i] for i in some]) for case, _, some in jobs])
    rows = [
        {"capture": case.name, "seed": case.seed, "way": way, "psnr": result["psnr"], "frames": len(some)}
        for (case, way, some), result in zip(jobs, results, strict=True)
    ]
    table: list[list[Any]] = [["trained on", "PSNR on the missing views", *benchmark.captures]]
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        of = [mean([row["psnr"] for row in own if row["capture"] == name]) for name in benchmark.captures]
        table.append([way, mean([row["psnr"] for row in own]), *of])
    said = measure_suggested_poses.__doc__ or ""
    return [markdown("Holes filled", " ".join(said.split()), [[cell(one) for one in row] for row in table])], rows


def _nearest_frames(c2w: np.ndarray, base: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
    """Return the frames of the pool that are nearest to the suggestions, each taken once."""
    views = Views.of(c2w[base])
    points = views.coordinates(c2w[pool])
    left = np.ones(len(pool), dtype=bool)
    chosen = []
    for one in suggest(c2w[base], count):
        distance = np.linalg.norm(points - views.coordinates(one.c2w[None]), axis=1)
        nearest = int(np.where(left, distance, np.inf).argmin())
        if left[nearest]:
            chosen.append(pool[nearest])
            left[nearest] = False
    return np.array(chosen)
