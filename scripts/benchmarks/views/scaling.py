"""Five hundred of a hundred thousand frames: how long, and how much memory."""

import resource
import time

import numpy as np

from benchmarks.detection.tables import markdown
from benchmarks.views.benchmark import Benchmark, Measured
from mtcm_nerfstudio.views.facility_location import best_of_duplicates, facility_location, view_points


def measure_scaling(benchmark: Benchmark) -> Measured:
    """Choose 500 of 100,000 frames, their states given."""
    count, most = 100_000, 500
    rng = np.random.default_rng(0)
    turn = np.linspace(0.0, 40.0 * np.pi, count)
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, 3] = 3.0 * np.stack([np.cos(turn), np.sin(turn), np.sin(turn / 7.0)], axis=1)
    c2w[:, :3, 3] += 0.05 * rng.normal(size=(count, 3))
    states = rng.normal(size=(count, 256)).astype(np.float32)
    quality = rng.uniform(0.5, 1.0, count)
    start = time.perf_counter()
    leader = best_of_duplicates(c2w, states, quality, np.ones(count, dtype=bool))
    chosen = facility_location(view_points(c2w, states), quality, most=most).chosen
    seconds = time.perf_counter() - start
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = {"frames": count, "chosen": len(chosen), "seconds": round(seconds, 1), "GiB": round(gigabytes, 2),
           "duplicates": int((leader != np.arange(count)).sum())}  # fmt: skip
    table = [list(row), [str(value) for value in row.values()]]
    said = "Duplicates folded and views chosen; memory of the whole process."
    return [markdown("A long capture", said, table)], [row]
