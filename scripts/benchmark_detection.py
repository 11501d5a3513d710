"""How well are faulty frames found? Known faults are put into real captures, and every method scores every frame.

Usage:
    python scripts/benchmark_detection.py                             all captures in ../shared/captures
    python scripts/benchmark_detection.py --captures A B --seeds 5    two captures, five seeds
    python scripts/benchmark_detection.py --checkpoints mtcm=runs/one
    python scripts/benchmark_detection.py --checkpoints 'mtcm=runs/without_{capture}'    one left out at a time

Each kind of fault is tried alone, all of them mixed, and none of them (clean). The tables and every per-frame score
go to data/results/detection.md and detection.json. Images are embedded once; the cache keeps them.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from detection import tables
from detection.figures import Figures, figures
from detection.methods import Checkpoints, Judgement, Method, baselines
from detection.trials import FeatureBank, PlannedTrial, Trial, plan_trial
from rich.console import Console
from rich.progress import track

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.faults import FAULT_KINDS, FaultKind
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decisions import write_text_atomically

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "captures"


@dataclass(frozen=True)
class Benchmark:
    """Measure how well faulty frames are found."""

    captures: tuple[Path, ...] = ()
    """Folders to measure on. Default: every capture in ../shared/captures; those that are not measured still lend
    their images as foreign frames."""
    checkpoints: tuple[str, ...] = ()
    """name=path of trained transformers, {capture} in a path standing for the capture's name. Default: the one that
    comes with the package."""
    seeds: int = 3
    """Trials of each kind and capture."""
    share: float = 0.2
    """Of the frames that are made faulty, in (0, 1)."""
    kinds: tuple[FaultKind, ...] = FAULT_KINDS
    """Kinds of faults to try alone and mixed."""
    min_frames: int = 25
    """Captures with fewer posed frames lend foreign images only."""
    output_dir: Path = Path("data/results")
    """Where detection.json and detection.md go."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"--share must lie in (0, 1), got {self.share}")
        if self.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {self.seeds}")


def read_captures(benchmark: Benchmark) -> list[Capture]:
    """Read the captures that are asked for.

    Raises:
        FileNotFoundError: none are named and the usual folder is not there.
        ValueError: fewer than two, so that there are no foreign images, or two of one name.
    """
    folders = benchmark.captures or (sorted(_SHARED.iterdir()) if _SHARED.is_dir() else ())
    if not folders:
        raise FileNotFoundError(f"{_SHARED}: no such folder. Name captures with --captures.")
    captures = [read_capture(folder) for folder in folders if folder.is_dir()]
    names = [capture.name for capture in captures]
    if len(captures) < 2 or len(set(names)) < len(names):
        raise ValueError(f"--captures needs two or more of different names, got {', '.join(names)}")
    return captures


def planned_trials(benchmark: Benchmark, captures: Sequence[Capture], bank: FeatureBank) -> list[PlannedTrial]:
    """Draw all trials: every kind alone, mixed, and clean, for every seed and every capture that is large enough."""
    subjects = [bank.subject(capture) for capture in captures]
    measured = [subject for subject in subjects if len(subject.raw) >= benchmark.min_frames]
    if not measured:
        raise ValueError(f"no capture has {benchmark.min_frames} frames with pose and image: lower --min-frames")
    planned = []
    for subject, kind in itertools.product(measured, (*benchmark.kinds, "mixed", "clean")):
        for seed in range(1 if kind == "clean" else benchmark.seeds):
            planned.append(plan_trial(subject, kind, benchmark.kinds, benchmark.share, seed, captures))
    return planned


def judge(
    planned: Sequence[PlannedTrial], methods: Mapping[str, Method], bank: FeatureBank
) -> list[tuple[Trial, dict[str, Judgement]]]:
    """Make every trial and let every method score it."""
    bank.prepare([image for trial in planned for image in trial.spoiled_images])
    judged = []
    for plan in track(planned, "Scoring trials", console=Console(file=sys.stderr), transient=True):
        trial = plan.made(bank)
        judged.append((trial, {name: method(trial) for name, method in methods.items()}))
    return judged


def summarise(judged: Sequence[tuple[Trial, Mapping[str, Judgement]]]) -> list[Figures]:
    """Return the figures of every method on every kind of trial."""
    kinds = dict.fromkeys(trial.kind for trial, _ in judged)
    methods = judged[0][1]
    return [
        figures(method, kind, [(trial, said[method]) for trial, said in judged if trial.kind == kind])
        for method, kind in itertools.product(methods, kinds)
    ]


def about(benchmark: Benchmark, planned: Sequence[PlannedTrial], mtcm: Mapping[str, Checkpoints]) -> dict[str, Any]:
    """Return what a reader of the results must know: command, versions, captures, and who had seen them before."""
    subjects = {trial.subject.name: trial.subject for trial in planned}
    return {
        "command": tables.command(sys.argv),
        "versions": tables.versions(),
        "seeds": benchmark.seeds,
        "share": benchmark.share,
        "captures": {name: len(subject.raw) for name, subject in subjects.items()},
        "checkpoints": {
            method: {name: checkpoints.about(name) for name in subjects} for method, checkpoints in mtcm.items()
        },
    }


def caption(facts: Mapping[str, Any]) -> str:
    """Say in words what the tables show."""
    captures = ", ".join(f"{name} ({frames} frames)" for name, frames in facts["captures"].items())
    seen = {
        method: [name for name, about in per_capture.items() if about["trained_on_it"]]
        for method, per_capture in facts["checkpoints"].items()
    }
    lines = [
        f"Made by `{facts['command']}`.",
        f"Captures: {captures}. {facts['share']:.0%} of the frames faulty, {facts['seeds']} seeds; means over both.",
        "Frames that were faulty as they came (really blurred ones, say) count as good.",
        *(f"{method} was trained on {', '.join(names) or 'none of them'}." for method, names in seen.items()),
    ]
    return "\n".join(lines) + "\n"


def run(benchmark: Benchmark) -> None:
    """Measure, print the tables and write the files."""
    mtcm = named_checkpoints(benchmark.checkpoints)
    captures, bank = read_captures(benchmark), FeatureBank()
    planned = planned_trials(benchmark, captures, bank)
    facts = about(benchmark, planned, mtcm)
    judged = judge(planned, {**mtcm, **baselines()}, bank)
    results = summarise(judged)
    titled = {
        "How well faulty frames rank above good ones: AUROC (average precision)": tables.ranking_rows(results),
        "At the threshold": tables.threshold_rows(results),
        "Seconds a capture, features already computed": tables.seconds_rows(results),
    }
    for title, rows in titled.items():
        Console().print(tables.rich_table(title, rows))
    text = "\n".join(
        ["# Finding faulty frames\n", caption(facts), *(tables.markdown(*item) for item in titled.items())]
    )
    write_text_atomically(benchmark.output_dir / "detection.md", text)
    write_text_atomically(benchmark.output_dir / "detection.json", tables.record(facts, results, judged))
    print(f"written: {benchmark.output_dir / 'detection.md'} and detection.json")


def named_checkpoints(given: Sequence[str]) -> dict[str, Checkpoints]:
    """Parse name=path.

    Raises:
        ValueError: an entry has no name or no path.
    """
    if not given:
        return {"MTCM": Checkpoints(None)}
    checkpoints = {}
    for entry in given:
        name, _, path = entry.partition("=")
        if not name or not path:
            raise ValueError(f"--checkpoints takes name=path, got {entry!r}")
        checkpoints[name] = Checkpoints(path)
    return checkpoints


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(Benchmark, description=__doc__))
