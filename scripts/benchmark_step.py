"""What does a training step cost with the joint hook on, beside the same step with it off?

Usage:
    python scripts/benchmark_step.py                            both methods, on the sample capture
    python scripts/benchmark_step.py --methods mtcm-nerfacto-tiny --rounds 10

Two runs of each method train turn by turn, so many steps at a time that one refresh of the transformer falls into them,
and the medians are compared. Times are the process's own (CPU seconds where there is no GPU), so that a busy machine
disturbs them little. The table goes to data/results/step.md and .json.
"""

import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tyro
from benchmarks.detection.record import command, versions
from benchmarks.detection.tables import markdown
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.callbacks import TrainingCallbackLocation

from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decision_files import current_decisions
from mtcm_nerfstudio.decisions import FILE_NAME, write_text_atomically

_SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
_WARM_UP = 3
_AFTER = TrainingCallbackLocation.AFTER_TRAIN_ITERATION


@dataclass(frozen=True)
class StepBenchmark:
    """Time a training step with the hook on and off."""

    data: Path = _SAMPLE
    """Capture to train on."""
    methods: tuple[str, ...] = ("mtcm-nerfacto-tiny", "mtcm-nerfacto")
    """Methods to time."""
    rounds: int = 5
    """Times that either run has its turn."""
    rays: int = 1024
    """Rays a step."""
    threads: int = 1
    """Threads of torch on the CPU."""
    output_dir: Path = Path("data/results")
    """Where the table goes."""


@dataclass(frozen=True)
class Cost:
    """Seconds that a step of one method takes."""

    method: str
    off: float
    on: float
    steps: int

    @property
    def ratio(self) -> float:
        """Time with the hook on over time with it off."""
        return self.on / self.off


def run(benchmark: StepBenchmark) -> None:
    """Time all methods and write the table."""
    torch.set_num_threads(benchmark.threads)
    costs = []
    with TemporaryDirectory(prefix="mtcm_step_") as folder:
        current_decisions(benchmark.data, output_dir=Path(folder))
        for method in benchmark.methods:
            costs.append(_cost(benchmark, method, Path(folder)))
            print(f"{method}: {costs[-1].off:.3f} s off, {costs[-1].on:.3f} s on", flush=True)
    head = ["method", "seconds a step, hook off", "hook on", "on / off"]
    rows = [[cost.method, f"{cost.off:.3f}", f"{cost.on:.3f}", f"{cost.ratio:.2f}"] for cost in costs]
    ran = command("benchmark_step.py", sys.argv[1:])
    about = f"Median of {benchmark.rounds} rounds, {benchmark.rays} rays a step, refreshes included. Made by `{ran}`."
    text = markdown("What the joint hook costs a training step", about, [head, *rows])
    print(text)
    settings = {"rounds": benchmark.rounds, "rays": benchmark.rays, "threads": benchmark.threads}
    record = {"command": ran, "versions": versions(), "settings": settings, "costs": [asdict(cost) for cost in costs]}
    write_text_atomically(benchmark.output_dir / "step.md", text)
    write_text_atomically(benchmark.output_dir / "step.json", json.dumps(record, indent=1) + "\n")


def _cost(benchmark: StepBenchmark, method: str, folder: Path) -> Cost:
    """Let two runs train turn by turn."""
    steps = all_methods[method].pipeline.joint.every
    advance = {on: _stepper(benchmark, method, folder, on) for on in (False, True)}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(benchmark.rounds):
        for on, go in advance.items():
            start = _now()
            for _ in range(steps):
                go()
            seconds[on].append((_now() - start) / steps)
    return Cost(method, median(seconds[False]), median(seconds[True]), benchmark.rounds * steps)


def _stepper(benchmark: StepBenchmark, method: str, folder: Path, on: bool) -> Callable[[], None]:
    """Set up a run, warm it up, and return what trains it by one step."""
    config: Any = copy.deepcopy(all_methods[method])
    config.data = config.pipeline.datamanager.data = benchmark.data
    config.output_dir, config.timestamp, config.vis = folder / f"{method}_{on}", "run", "tensorboard"
    datamanager = config.pipeline.datamanager
    datamanager.train_num_rays_per_batch = benchmark.rays
    datamanager.dataparser.decisions = folder / FILE_NAME
    config.pipeline.joint.enabled, config.pipeline.joint.start = on, 0
    if not torch.cuda.is_available():
        config.pipeline.model.implementation, config.mixed_precision = "torch", False
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.pipeline.train()
    step = 0

    def go() -> None:
        nonlocal step
        trainer.train_iteration(step)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, _AFTER)
        step += 1

    for _ in range(_WARM_UP):
        go()
    return go


def _now() -> float:
    """Return seconds: of the process on a CPU, of the clock beside a GPU that has done all it was given."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(StepBenchmark, description=__doc__))
