"""Are the right views chosen, and the missing ones found? Budgets, holes, and a hundred thousand frames.

Usage:
    python scripts/benchmark_views.py holes                    where a block of views was taken away (seconds)
    python scripts/benchmark_views.py budgets                  PSNR with 10, 20 and 40 views (hours; resumable)
    python scripts/benchmark_views.py filling                  PSNR on missing views, with those nearest to suggestions
    python scripts/benchmark_views.py labels                   words against the geometry of rendered captures (seconds)
    python scripts/benchmark_views.py many                     500 of 100,000 frames: seconds and memory
    python scripts/benchmark_views.py budgets --captures fox --seeds 1

Tables and what they were made from go to data/results/views_<what>.md and .json (views_NAME with --name NAME).
Finished trainings are kept in data/results/nerf_cells.json, as for scripts/benchmark_nerf.py.
"""

import json
import sys
from dataclasses import asdict

import tyro
from benchmarks.detection.record import command, one_a_line, versions
from benchmarks.views.benchmark import Benchmark
from benchmarks.views.budgets import measure_budgets
from benchmarks.views.labelling import measure_labels
from benchmarks.views.missing import measure_holes
from benchmarks.views.scaling import measure_scaling
from benchmarks.views.suggested_poses import measure_suggested_poses

from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decisions import write_text_atomically

_MEASURES = {
    "holes": measure_holes,
    "budgets": measure_budgets,
    "filling": measure_suggested_poses,
    "labels": measure_labels,
    "many": measure_scaling,
}


def run(benchmark: Benchmark) -> None:
    """Measure, print and write."""
    tables, rows = _MEASURES[benchmark.what](benchmark)
    line = command("benchmark_views.py", sys.argv[1:])
    text = "\n".join([f"# Views: {benchmark.what}\n\nMade by `{line}`.\n", *tables])
    print(text)
    settings = {k: v for k, v in asdict(benchmark).items() if k not in ("folder", "work", "output_dir")}
    about = json.dumps({"command": line, "versions": versions(), "settings": settings}, indent=1)
    stem = benchmark.output_dir / f"views_{benchmark.name or benchmark.what}"
    write_text_atomically(stem.with_suffix(".md"), text)
    write_text_atomically(stem.with_suffix(".json"), f'{about[:-2]},\n "rows": [\n{one_a_line(rows)}\n]}}\n')


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(Benchmark, description=__doc__))
