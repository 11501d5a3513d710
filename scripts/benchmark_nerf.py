"""How many decibels is it worth? The same small NeRF is trained on a capture with faults, with every remedy.

Usage:
    python scripts/benchmark_nerf.py                                   three captures, three seeds, mixed faults
    python scripts/benchmark_nerf.py --captures fox --seeds 1 --only "all frames" "oracle drop"
    python scripts/benchmark_nerf.py --faults small                    poses off by 1° and 3° only
    python scripts/benchmark_nerf.py --checkpoint 'outputs/pretrain/without_{group}/checkpoint'

Training frames get faults, evaluation frames (every sixth) never do. Every finished training is kept in
data/results/nerf_cells.json by what it was made of, so a run that was stopped goes on where it was. The tables go to
data/results/nerf_<faults>.md and .json, with pictures beside them.

The defaults are a setting in which faults cost a decibel at least: twice as many steps of half as many rays teach the
tiny method more in the same time. Left out are maryrose_tankard, whose evaluation images show a background that its
masks hide from training, and boruszyn_kap, of which 23 frames teach it little with faults or without.
"""

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro
from benchmarks.detection.record import command, versions
from benchmarks.nerf.cases import MIXED, SMALL, Case, make_case
from benchmarks.nerf.cells import FILE_NAME, Cells, checkpoint_of, trained
from benchmarks.nerf.methods import AGAINST_SHARE, JOINT, Plan, methods
from benchmarks.nerf.report import Row, draw_figures, report

from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.consistency.checkpoint import read_card
from mtcm_nerfstudio.decisions import write_text_atomically
from mtcm_nerfstudio.nerf.joint.settings import JointSettings
from mtcm_nerfstudio.report.plot_style import save_figure

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "captures"
_VERSION = "2"
"""Changes whenever the same training would come out otherwise."""
_JOINT_VERSION = "2"
"""The same of joint training alone."""


@dataclass(frozen=True)
class Benchmark:
    """Measure what filtering, repair and joint fine-tuning do for a NeRF."""

    folder: Path = _SHARED
    """Where the captures are."""
    captures: tuple[str, ...] = ("fox", "stitch", "skull")
    """Captures to train on."""
    foreign: str = "banana"
    """Capture that lends foreign images."""
    seeds: int = 3
    """Draws of faults for each capture."""
    share: float = 0.2
    """Of the training frames that get a fault, in (0, 1)."""
    also_at: tuple[float, ...] = ()
    """Other shares, at which some methods are tried as well, for a picture of PSNR against the share of faults."""
    seeds_there: int = 1
    """Draws of faults for each capture at the other shares."""
    faults: Literal["mixed", "small"] = "mixed"
    """mixed: eight kinds; small: poses off by 1° and 3° only."""
    only: tuple[str, ...] = ()
    """Methods to run. Default: all."""
    checkpoint: str | None = None
    """MTCM's transformer; in its path {capture} is replaced by the capture's name, {group} by its group in
    data/captures.json, for instance outputs/pretrain/without_{group}/checkpoint. Default: the shipped one."""
    steps: int = 600
    """Training steps."""
    longest_side: int = 128
    """Longer side of the images that the NeRF sees, in pixels."""
    rays: int = 512
    """Rays a step."""
    work: Path = Path("outputs/benchmark_nerf")
    """Where the faulty captures go."""
    output_dir: Path = Path("data/results")
    """Where tables and pictures go."""
    processes: int = 2
    """Trainings at a time, each on one core."""


def run(benchmark: Benchmark) -> None:
    """Train what is not there yet; print the table and write everything."""
    cells = Cells(benchmark.output_dir / FILE_NAME)
    wanted = []
    for name in benchmark.captures:
        capture = read_capture(benchmark.folder / name)
        foreign = read_capture(benchmark.folder / benchmark.foreign)
        known = methods(checkpoint_of(benchmark.checkpoint, name))
        for seed in range(benchmark.seeds):
            kinds = MIXED if benchmark.faults == "mixed" else SMALL
            others = benchmark.also_at if seed < benchmark.seeds_there else ()
            for share in (benchmark.share, *others):
                case = make_case(capture, foreign, kinds, share, seed, benchmark.work)
                tried = (benchmark.only or known) if share == benchmark.share else AGAINST_SHARE
                wanted += [(share, case, method, known[method]) for method in tried]
    with ThreadPoolExecutor(benchmark.processes) as pool:
        jobs = [
            pool.submit(_cell, benchmark, cells, share, case, method, plan(case))
            for share, case, method, plan in wanted
        ]
        rows = [job.result() for job in jobs]
    about = {
        "command": command("benchmark_nerf.py", sys.argv[1:]),
        "versions": versions(),
        "settings": {k: v for k, v in asdict(benchmark).items() if k not in ("folder", "work", "output_dir")},
    }
    stem = benchmark.output_dir / f"nerf_{benchmark.faults}"
    text = report(about, [row for row in rows if row.share == benchmark.share])
    print(text)
    write_text_atomically(stem.with_suffix(".md"), text)
    record = {**about, "rows": [asdict(row) for row in rows]}
    write_text_atomically(stem.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    for name, figure in draw_figures(rows, JOINT, benchmark.share).items():
        save_figure(figure, stem.with_name(f"{stem.name}_{name}.png"))


def _cell(benchmark: Benchmark, cells: Cells, share: float, case: Case, method: str, plan: Plan) -> Row:
    """Return one training's result, from the file of finished ones where it is there."""
    checkpoint = plan.options.get("checkpoint")
    switches = {name: value for name, value in plan.options.items() if name != "checkpoint"}
    sizes = {"steps": benchmark.steps, "longest_side": benchmark.longest_side, "rays": benchmark.rays}
    joint = []
    if switches.get("joint"):
        card = read_card(checkpoint)
        calibration = [card.calibration_scale, card.calibration_offset, card.calibration_forest]
        joint = [_JOINT_VERSION, card.digest, calibration, asdict(JointSettings())]
    decided = [[f.file_path, f.kept, f.repaired_transform_matrix] for f in plan.decisions.frames]
    made_of = [_VERSION, plan.capture.parent.name, plan.capture.name, decided, switches, sizes, case.seed, joint]
    if plan.capture == case.clean:  # the same whatever faults were drawn beside it
        made_of[1] = case.name
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24]
    known = cells.get(key)
    if known is None:
        print(f"{case.name}, seed {case.seed}: {method}", flush=True)
        stem = None if checkpoint is None else str(Path(checkpoint).absolute())
        known = trained(plan.capture, plan.decisions, {**switches, **sizes, "seed": case.seed, "checkpoint": stem})
        cells.put(key, known)
    dropped = {frame.file_path for frame in plan.decisions.dropped} - case.evaluation
    repaired = {frame.file_path for frame in plan.decisions.repaired} - case.evaluation
    return Row(
        case.name, case.seed, share, method, sorted(case.faulty_names), sorted(dropped), sorted(repaired), **known
    )


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(Benchmark, description=__doc__))
