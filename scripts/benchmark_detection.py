"""How well are faulty frames found? Known corruptions are put into real captures, and every method scores every frame.

Usage:
    python scripts/benchmark_detection.py                         the captures of data/captures.json that are there
    python scripts/benchmark_detection.py --only fox stitch       two of them
    python scripts/benchmark_detection.py --alone                 each kind of corruption alone as well; hours
    python scripts/benchmark_detection.py --captures A B --checkpoint runs/mine/checkpoint    captures of your own

Each listed capture is judged by the checkpoint that scripts/pretrain.py trained without the captures of its group;
captures that never train, by the shipped one. All kinds are mixed in a share of the frames, runs of frames are moved
together, and captures are judged as they came. Tables, every per-frame score and pictures go to
data/results/detection*. What is computed from an image or a pair of images is kept in the cache.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from benchmarks.capture_list import read_capture_list
from benchmarks.corruptions import KINDS, Kind
from benchmarks.detection import tables
from benchmarks.detection.captures import BenchmarkCapture, listed_captures, own_captures
from benchmarks.detection.forests import FittedForests
from benchmarks.detection.images import ImageBank
from benchmarks.detection.labelled_captures import (
    CLEAN,
    MOVED_RUN,
    CorruptionSetting,
    PlannedCapture,
    Subject,
    mixed,
    plan_capture,
    subject_of,
)
from benchmarks.detection.methods import baselines, run_methods, with_logistic
from benchmarks.detection.mtcm import Checkpoints, mtcm_methods
from benchmarks.detection.prediction import Method, Outcome
from benchmarks.detection.record import command, versions
from benchmarks.detection.report import Measured

from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decisions import write_text_atomically
from mtcm_nerfstudio.report.plot_style import save_figure
from mtcm_nerfstudio.tokens.progress import progress_bars

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "captures"
_MOVED_SHARE, _MOVED_SEEDS = 0.15, 3


@dataclass(frozen=True)
class Benchmark:
    """Measure how well faulty frames are found."""

    captures_folder: Path = _SHARED
    """Folder with the captures of data/captures.json."""
    only: tuple[str, ...] = ()
    """Listed captures to measure. Default: all that are there. The others still lend foreign frames."""
    checkpoints: Path = Path("outputs/pretrain")
    """Folder with the runs of scripts/pretrain.py: the checkpoints, and the examples that other forests are fitted
    on."""
    captures: tuple[Path, ...] = ()
    """Folders of captures of your own, two or more, instead of the listed ones."""
    checkpoint: Path | None = None
    """What judges captures of your own. Default: the checkpoint that comes with the package."""
    seeds: int = 2
    """Trials of each capture for each kind; moved runs have three, captures as they came one."""
    share: float = 0.2
    """Of the frames that are corrupted, in (0, 1)."""
    more_shares: tuple[float, ...] = ()
    """Further shares to mix all kinds in, in (0, 1)."""
    alone: bool = False
    """Try each kind alone as well; slow."""
    kinds: tuple[Kind, ...] = KINDS
    """Kinds of corruption to mix; moved_run is always tried, and only alone."""
    min_frames: int = 14
    """Captures with fewer posed frames lend foreign frames only."""
    output_dir: Path = Path("data/results")
    """Where detection.md, detection.json and the pictures go."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"--share must lie in (0, 1), got {self.share}")
        if not all(0.0 < share < 1.0 for share in self.more_shares):
            raise ValueError(f"--more-shares must lie in (0, 1), got {', '.join(map(str, self.more_shares))}")
        if self.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {self.seeds}")
        if not self.kinds or MOVED_RUN in self.kinds:
            raise ValueError(f"--kinds must name kinds other than {MOVED_RUN}, got {', '.join(self.kinds) or 'none'}")
        if self.checkpoint is not None and not self.captures:
            raise ValueError("--checkpoint judges captures of your own: name them with --captures")

    @property
    def corruption_settings(self) -> tuple[CorruptionSetting, ...]:
        """Every kind of trial, in the order in which they are shown; the first is that of the main table."""
        shares = dict.fromkeys((self.share, *self.more_shares))
        alone = [CorruptionSetting(kind, (kind,), self.share, self.seeds) for kind in self.kinds if self.alone]
        return (
            *(CorruptionSetting(mixed(share), self.kinds, share, self.seeds) for share in shares),
            CorruptionSetting(MOVED_RUN, (MOVED_RUN,), _MOVED_SHARE, _MOVED_SEEDS),
            CorruptionSetting(CLEAN, self.kinds, 0.0),
            *alone,
        )


def read_captures(benchmark: Benchmark) -> list[BenchmarkCapture]:
    """Read the captures that are measured or lend foreign frames.

    Raises:
        ValueError: ``--only`` names a capture that is not there, or there are not two captures that may lend each
            other foreign frames, each of its own name.
    """
    if benchmark.captures:
        captures = own_captures(benchmark.captures, benchmark.checkpoint, benchmark.checkpoints)
    else:
        captures = listed_captures(benchmark.captures_folder, benchmark.checkpoints, read_capture_list())
    names = [one.name for one in captures]
    if len(set(names)) < len(names) or len({one.group for one in captures}) < 2:
        raise ValueError(
            "foreign frames come from captures of another group or, with --captures, of another name: at least two "
            f"are needed, got {', '.join(names) or 'none'}"
        )
    if missing := sorted(set(benchmark.only) - set(names)):
        raise ValueError(f"--only names {missing[0]!r}, which is none of {', '.join(names)}")
    return captures


def measured_captures(benchmark: Benchmark, captures: Sequence[BenchmarkCapture]) -> list[BenchmarkCapture]:
    """Return the captures that are asked for and large enough."""
    asked = [one for one in captures if not benchmark.only or one.name in benchmark.only]
    large = [one for one in asked if one.posed_frames >= benchmark.min_frames]
    if not large:
        raise ValueError(f"no capture has {benchmark.min_frames} frames with pose and image: lower --min-frames")
    return large


def plan_captures(
    benchmark: Benchmark, subjects: Sequence[Subject], captures: Sequence[BenchmarkCapture]
) -> list[PlannedCapture]:
    """Draw all trials of all captures that are large enough, those of one capture beside each other."""
    large = [subject for subject in subjects if len(subject.raw) >= benchmark.min_frames]
    return [
        plan_capture(subject, kind, seed, captures)
        for subject in large
        for kind in benchmark.corruption_settings
        for seed in range(kind.seeds)
    ]


def run_trials(planned: Sequence[PlannedCapture], methods: Mapping[str, Method], bank: ImageBank) -> list[Outcome]:
    """Make every trial and let every method score it; the logistic regression is fitted when all are there."""
    track = progress_bars()
    return with_logistic(
        [run_methods(plan.made(bank), methods) for plan in track(planned, "Scoring trials", len(planned))]
    )


def about(benchmark: Benchmark, planned: Sequence[PlannedCapture], checkpoints: Checkpoints) -> dict[str, Any]:
    """Return what a reader of the results must know: command, versions, captures, and what judged them."""
    subjects = {labelled.subject.name: labelled.subject for labelled in planned}
    return {
        "command": command("benchmark_detection.py", sys.argv[1:]),
        "versions": versions(),
        "seeds": benchmark.seeds,
        "share": benchmark.share,
        "captures": {name: len(subject.raw) for name, subject in subjects.items()},
        "groups": {name: subject.group for name, subject in subjects.items()},
        "faulty_as_they_came": {name: subject.natural.nonzero()[0].tolist() for name, subject in subjects.items()},
        "with_colmap_model": [name for name, subject in subjects.items() if subject.model is not None],
        "checkpoints": {name: checkpoints.about(name) for name in subjects},
    }


def run(benchmark: Benchmark) -> None:
    """Measure, print the main table and write the files."""
    captures = read_captures(benchmark)
    measured = measured_captures(benchmark, captures)
    checkpoints = Checkpoints(measured)
    forests = FittedForests({one.name: one.examples for one in measured})
    bank, track = ImageBank(), progress_bars()
    planned = plan_captures(benchmark, [subject_of(one, bank, track) for one in measured], captures)
    facts = about(benchmark, planned, checkpoints)
    outcomes = run_trials(planned, {**mtcm_methods(checkpoints), **forests.methods(), **baselines()}, bank)
    write_report(Measured(facts, outcomes, benchmark.corruption_settings), benchmark.output_dir)


def write_report(measured: Measured, folder: Path) -> None:
    """Print the main table; write all tables, the record and the pictures."""
    print(tables.markdown(*measured.tables()[0]))
    write_text_atomically(folder / "detection.md", measured.markdown())
    write_text_atomically(folder / "detection.json", measured.record())
    for name, figure in measured.draw_figures().items():
        save_figure(figure, folder / f"detection_{name}.png")
    print(f"written: {folder / 'detection.md'}, detection.json and detection_*.png")


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(Benchmark, description=__doc__))
