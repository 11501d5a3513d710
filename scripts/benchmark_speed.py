"""How long does filtering a capture take, beside posing it with COLMAP? Both in the same run, on the same machine.

Usage:
    python scripts/benchmark_speed.py                    all captures of 50 frames or more in ../shared/captures
    python scripts/benchmark_speed.py --captures A B     these, however many frames they have

``ns-mtcm-filter`` runs as a process of its own with an empty cache, then once more, and once more with its decisions
thrown away. COLMAP (pycolmap: extraction with its default options, exhaustive matching, incremental mapping) runs on
the images as they are, in a process of its own as well; that takes minutes to hours a capture. The table goes to
data/results/speed.md and speed.json.
"""

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from benchmarks.detection import tables
from benchmarks.detection.record import command, versions

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decisions import write_text_atomically

SCHEMA_VERSION = 1
_SHARED = Path(__file__).resolve().parents[2] / "shared" / "captures"


@dataclass(frozen=True)
class SpeedBenchmark:
    """Time the filter against COLMAP."""

    captures: tuple[Path, ...] = ()
    """Folders to measure on. Default: those in ../shared/captures with enough frames."""
    min_frames: int = 50
    """Frames that a capture of the usual folder must have."""
    checkpoint: Path | None = None
    """The trained transformer. Default: the one that comes with the package."""
    output_dir: Path = Path("data/results")
    """Where speed.md and speed.json go."""


@dataclass(frozen=True)
class ColmapSeconds:
    """What COLMAP took, and what came of it."""

    features: float
    matches: float
    mapping: float
    registered: int
    """Images with a pose in the largest model."""

    @property
    def total(self) -> float:
        """All stages, without the start of the process."""
        return self.features + self.matches + self.mapping


@dataclass(frozen=True)
class Speed:
    """Seconds for one capture; those of the filter are whole processes, from start to end."""

    capture: str
    frames: int
    from_nothing: float
    """Embedding, features, matches and all."""
    again: float
    """With the decisions that are there."""
    scored_again: float
    """Decisions thrown away, everything that depends on images alone from the cache."""
    colmap: ColmapSeconds

    @property
    def ratio(self) -> float:
        """The filter's time from nothing over COLMAP's."""
        return self.from_nothing / self.colmap.total


def run(benchmark: SpeedBenchmark) -> None:
    """Measure and write the files."""
    load = os.getloadavg()[0]
    found = [measure(capture, benchmark.checkpoint) for capture in chosen(benchmark)]
    facts = {
        "command": command("benchmark_speed.py", sys.argv[1:]),
        "versions": versions(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_of_others": round(load, 2),
    }
    text = (
        f"Made by `{facts['command']}` on {facts['cores']} cores. Seconds; the filter's are whole processes. COLMAP: "
        "extraction with its default options, exhaustive matching and incremental mapping, in the same run."
    )
    record = {"schema_version": SCHEMA_VERSION, **facts, "captures": [{**asdict(s), "ratio": s.ratio} for s in found]}
    write_text_atomically(benchmark.output_dir / "speed.md", tables.markdown("Speed", text, table(found)))
    write_text_atomically(benchmark.output_dir / "speed.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    print(f"written: {benchmark.output_dir / 'speed.md'} and speed.json")


def chosen(benchmark: SpeedBenchmark) -> list[Capture]:
    """Read the captures that are to be measured.

    Raises:
        FileNotFoundError: none are named, and the usual folder is not there or has none that is large enough.
    """
    if benchmark.captures:
        return [read_capture(folder) for folder in benchmark.captures]
    folders = sorted(folder for folder in _SHARED.iterdir() if folder.is_dir()) if _SHARED.is_dir() else []
    captures = [capture for capture in map(read_capture, folders) if len(capture) >= benchmark.min_frames]
    if not captures:
        raise FileNotFoundError(f"{_SHARED}: no capture of {benchmark.min_frames} frames. Name some with --captures.")
    return captures


def measure(capture: Capture, checkpoint: Path | None) -> Speed:
    """Time everything on one capture, in temporary folders."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        arguments = ["--data", str(capture.root), "--output-dir", str(work / "out")]
        arguments += [] if checkpoint is None else ["--checkpoint", str(checkpoint)]
        first = filter_seconds(arguments, work / "cache")
        again = filter_seconds(arguments, work / "cache")
        scored_again = filter_seconds([*arguments, "--reset"], work / "cache")
        print(
            f"{capture.name}: filter {first:.1f} s, again {again:.1f} s, scored again {scored_again:.1f} s", flush=True
        )
        colmap = colmap_in_subprocess(capture, work / "colmap")
    speed = Speed(capture.name, len(capture), first, again, scored_again, colmap)
    print(
        f"{capture.name}: COLMAP {colmap.total:.1f} s; the filter takes {100.0 * speed.ratio:.1f} % of it", flush=True
    )
    return speed


def filter_seconds(arguments: Sequence[str], cache: Path) -> float:
    """Run ``ns-mtcm-filter`` and return how long the process took.

    Its modules are compiled before, as an installation has them.

    Raises:
        ValueError: it failed; the message is its own.
    """
    program = [sys.executable, "-m", "mtcm_nerfstudio.cli.filter"]
    environment = {**os.environ, "MTCM_CACHE": str(cache), "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([*program, "--data", str(cache / "nothing")], env=environment, capture_output=True)
    start = time.perf_counter()
    done = subprocess.run([*program, *arguments], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise ValueError(f"the filter failed: {done.stderr.strip()}")
    return seconds


def colmap_in_subprocess(capture: Capture, work: Path) -> ColmapSeconds:
    """Pose a capture's images with COLMAP in a process of its own."""
    paths = [frame.image_path for frame in capture.frames]
    images = Path(os.path.commonpath([path.parent for path in paths]))
    names = [path.relative_to(images).as_posix() for path in paths]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(colmap_seconds, images, names, work).result()


def colmap_seconds(images: Path, names: Sequence[str], work: Path) -> ColmapSeconds:
    """Pose images with COLMAP in this process, whose output goes to a log from here on."""
    work.mkdir(parents=True)
    with (work / "log.txt").open("w") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    import pycolmap

    database = work / "database.db"
    times = [time.perf_counter()]
    pycolmap.extract_features(str(database), str(images), image_names=list(names))
    times.append(time.perf_counter())
    pycolmap.match_exhaustive(str(database))
    times.append(time.perf_counter())
    models = pycolmap.incremental_mapping(str(database), str(images), str(work))
    times.append(time.perf_counter())
    features, matches, mapping = (after - before for before, after in itertools.pairwise(times))
    registered = max((model.num_reg_images() for model in models.values()), default=0)
    return ColmapSeconds(features, matches, mapping, registered)


def table(found: Sequence[Speed]) -> tables.Rows:
    """Return a row a capture."""
    header = "capture | frames | filter, from nothing | filter, again | filter, scored again | COLMAP | its features"
    rows = [[*header.split(" | "), "its matches", "its mapping", "posed by it", "filter / COLMAP"]]
    for one in found:
        colmap = one.colmap
        seconds = (one.from_nothing, one.again, one.scored_again, colmap.total)
        stages = (colmap.features, colmap.matches, colmap.mapping)
        numbers = [f"{value:.1f}" for value in (*seconds, *stages)]
        rows.append([one.capture, str(one.frames), *numbers, str(colmap.registered), f"{100.0 * one.ratio:.1f} %"])
    return rows


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(SpeedBenchmark, description=__doc__))
