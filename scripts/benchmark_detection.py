"""How well are faulty frames found? Known faults are put into real captures, and every method scores every frame.

Usage:
    python scripts/benchmark_detection.py                             all captures in ../shared/captures
    python scripts/benchmark_detection.py --captures A B --seeds 5    two captures, five seeds
    python scripts/benchmark_detection.py --checkpoints MTCM=runs/one
    python scripts/benchmark_detection.py --checkpoints 'MTCM=runs/without_{capture}'    one left out at a time

Each kind of fault is tried alone, all of them mixed in several shares of the frames, and none of them (clean). Tables,
every per-frame score and pictures go to data/results/detection*. Whatever is computed from an image or a pair of images
is kept in the cache, so a second run takes minutes.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from detection import tables
from detection.images import ImageBank
from detection.judgement import Method, Outcome
from detection.methods import baselines, judged_by, with_logistic
from detection.mtcm import Checkpoints, variants
from detection.natural import FILE, read_natural_faults
from detection.record import command, versions
from detection.report import Measured
from detection.trials import CLEAN, ONE_SIZE, PlannedTrial, TrialKind, mixed, plan_trial, subject_of

from mtcm_nerfstudio.analysis.figures import save_figure
from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.faults import FAULT_KINDS, FaultKind
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decisions import write_text_atomically
from mtcm_nerfstudio.tokens.progress import progress_bars

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
    mixed_shares: tuple[float, ...] = (0.05, 0.4)
    """Further shares to try all kinds mixed at, in (0, 1)."""
    kinds: tuple[FaultKind, ...] = FAULT_KINDS
    """Kinds of faults to try alone and mixed."""
    min_frames: int = 25
    """Captures with fewer posed frames lend foreign images only."""
    natural_faults: Path = FILE
    """The list of frames that are faulty as they came."""
    output_dir: Path = Path("data/results")
    """Where detection.md, detection.json and the pictures go."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"--share must lie in (0, 1), got {self.share}")
        if not all(0.0 < share < 1.0 for share in self.mixed_shares):
            raise ValueError(f"--mixed-shares must lie in (0, 1), got {', '.join(map(str, self.mixed_shares))}")
        if self.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {self.seeds}")

    @property
    def all_kinds(self) -> str:
        """The kind of the trials that tell how well methods do over all kinds together."""
        return mixed(self.share)

    @property
    def trial_kinds(self) -> tuple[TrialKind, ...]:
        """Every kind of trial, in the order in which they are shown."""
        alone = [TrialKind(kind, (kind,), self.share) for kind in self.kinds]
        sized = [replace(kind, share=self.share) for kind in ONE_SIZE if kind.faults[0] in self.kinds]
        shares = sorted({self.share, *self.mixed_shares})
        together = [TrialKind(mixed(share), self.kinds, share) for share in shares]
        return (*alone, *sized, *together, TrialKind(CLEAN, self.kinds, 0.0))


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


def planned_trials(benchmark: Benchmark, captures: Sequence[Capture], bank: ImageBank) -> list[PlannedTrial]:
    """Draw all trials: every kind, for every seed and every capture that is large enough; clean ones once."""
    natural, track = read_natural_faults(benchmark.natural_faults), progress_bars()
    large = [c for c in captures if sum(frame.has_usable_pose for frame in c.frames) >= benchmark.min_frames]
    subjects = [subject_of(capture, natural.get(capture.name, ()), bank, track) for capture in large]
    measured = [subject for subject in subjects if len(subject.raw) >= benchmark.min_frames]
    if not measured:
        raise ValueError(f"no capture has {benchmark.min_frames} frames with pose and image: lower --min-frames")
    return [
        plan_trial(subject, kind, seed, captures)
        for subject, kind in itertools.product(measured, benchmark.trial_kinds)
        for seed in range(1 if kind.name == CLEAN else benchmark.seeds)
    ]


def judge(planned: Sequence[PlannedTrial], methods: Mapping[str, Method], bank: ImageBank) -> list[Outcome]:
    """Make every trial and let every method score it; the logistic regression is fitted when all are there."""
    track = progress_bars()
    return with_logistic(
        [judged_by(plan.made(bank), methods) for plan in track(planned, "Scoring trials", len(planned))]
    )


def about(benchmark: Benchmark, planned: Sequence[PlannedTrial], mtcm: Mapping[str, Checkpoints]) -> dict[str, Any]:
    """Return what a reader of the results must know: command, versions, captures, and who had seen them before."""
    subjects = {trial.subject.name: trial.subject for trial in planned}
    return {
        "command": command("benchmark_detection.py", sys.argv[1:]),
        "versions": versions(),
        "seeds": benchmark.seeds,
        "share": benchmark.share,
        "captures": {name: len(subject.raw) for name, subject in subjects.items()},
        "faulty_as_they_came": {name: subject.natural.nonzero()[0].tolist() for name, subject in subjects.items()},
        "with_colmap_model": [name for name, subject in subjects.items() if subject.model is not None],
        "checkpoints": {
            method: {name: checkpoints.about(name) for name in subjects} for method, checkpoints in mtcm.items()
        },
    }


def run(benchmark: Benchmark) -> None:
    """Measure, print the tables and write the files."""
    checkpoints = named_checkpoints(benchmark.checkpoints)
    mtcm = {name: method for stem, one in checkpoints.items() for name, method in variants(stem, one).items()}
    captures, bank = read_captures(benchmark), ImageBank()
    planned = planned_trials(benchmark, captures, bank)
    facts = about(benchmark, planned, checkpoints)
    outcomes = judge(planned, {**mtcm, **baselines()}, bank)
    kinds = tuple(kind.name for kind in benchmark.trial_kinds)
    write_report(Measured(facts, outcomes, tuple(mtcm), kinds, benchmark.all_kinds), benchmark)


def write_report(measured: Measured, benchmark: Benchmark) -> None:
    """Print the summary; write all tables, the record and the pictures."""
    print(tables.markdown(*measured.tables()[0]))
    folder = benchmark.output_dir
    write_text_atomically(folder / "detection.md", measured.markdown())
    write_text_atomically(folder / "detection.json", measured.record())
    for name, figure in measured.pictures().items():
        save_figure(figure, folder / f"detection_{name}.png")
    print(f"written: {folder / 'detection.md'}, detection.json and detection_*.png")


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
