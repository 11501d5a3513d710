"""What happens to real captures as people took them: good frames lost, natural faults found, coverage lost.

Every capture of data/captures.json that lies in --captures goes through the whole filter, judged by a checkpoint that
never saw it (that of its group; the shipped one for captures that never train). Beside it: sharp-frames' rule for
outliers, CleanVision's scores, and the forest and the transformer alone, all compared at equal shares of good frames
lost. Table and JSON go to --output-dir, a contact sheet of every decision to --sheets for whoever wants to look.

Usage:
    python scripts/benchmark_natural.py
    python scripts/benchmark_natural.py --captures CAPTURES --only stitch terrace --sheets outputs/natural
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro
from benchmarks.capture_list import CaptureEntry, read_capture_list
from benchmarks.detection.record import command, versions
from benchmarks.natural import report
from benchmarks.natural.filtered_capture import FilteredCapture, filter_and_score

from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.consistency.checkpoint import card_file
from mtcm_nerfstudio.decisions import write_text_atomically
from mtcm_nerfstudio.tokens.cache import Cache

NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Benchmark:
    """Measure the filter on captures as they came."""

    captures: Path = Path("../shared/captures")
    """Folder with the captures; scripts/benchmarks/lay_out_captures.py makes it from clones."""
    posed: Path = Path("outputs/posed")
    """Folder with captures that ns-mtcm-process posed of photos. Where it posed nearly all of them they stand for the
    photos; the other of the two is judged beside them and counts in no sum."""
    only: tuple[str, ...] = ()
    """Captures to measure. Default: all that are there."""
    checkpoints: Path = Path("outputs/pretrain")
    """Folder with the checkpoints of the groups, as scripts/pretrain.py leaves them."""
    output_dir: Path = Path("data/results")
    """Where natural.md and natural.json go."""
    sheets: Path = Path("outputs/natural")
    """Folder for the contact sheets; they show the captures' images and are not to be published."""

    def checkpoint_for(self, entry: CaptureEntry) -> Path | None:
        """Return the checkpoint that never saw a capture; None stands for the shipped one."""
        stem = self.checkpoints / f"without_{entry.group}" / "checkpoint"
        if entry.group == "evaluation":
            return None
        if not card_file(stem).is_file():
            raise FileNotFoundError(
                f"{card_file(stem)}: no such file. Run python scripts/pretrain.py --runs {entry.group} first."
            )
        return stem


def run(benchmark: Benchmark) -> None:
    """Judge all captures, write table, record and contact sheets."""
    torch.set_num_threads(2)
    entries, cache = read_capture_list(), Cache()
    found = []
    for name, folder, again in folders(benchmark, entries):
        one = filter_and_score(entries[name], folder, benchmark.checkpoint_for(entries[name]), cache)
        if again:
            how = "posed" if folder.is_relative_to(benchmark.posed) else "photos"
            one = replace(one, name=f"{name}, {how}", again=True)
        print(report.line(one), flush=True)
        report.contact_sheet(one, benchmark.sheets / f"{one.name}.jpg")
        found.append(replace(one, images=()))
    write(benchmark, found)


def folders(benchmark: Benchmark, entries: Mapping[str, CaptureEntry]) -> list[tuple[str, Path, bool]]:
    """Return names and folders of the captures to measure, and whether they are measured a second time."""
    found = []
    for name in benchmark.only or entries:
        if name not in entries:
            raise ValueError(f"--only names {name!r}, which data/captures.json does not list")
        posed, places = benchmark.posed / name, [benchmark.captures / name]
        places = places if places[0].is_dir() else []
        # A folder in which ns-mtcm-process is not done yet has no poses.
        if (posed / "transforms.json").is_file():
            places = [posed, *places] if share_posed(posed, entries[name]) >= NEARLY_ALL else [*places, posed]
        found += [(name, folder, i > 0) for i, folder in enumerate(places)]
        if not places:
            print(f"{benchmark.captures / name}: not there, left out")
    if not found:
        raise FileNotFoundError(f"{benchmark.captures}: holds none of the captures. Name their folder with --captures.")
    return found


def share_posed(folder: Path, entry: CaptureEntry) -> float:
    """Return the share of a capture's frames that have a pose."""
    return sum(frame.c2w is not None for frame in read_capture(folder).frames) / entry.frames


def write(benchmark: Benchmark, found: Sequence[FilteredCapture]) -> None:
    """Print the tables and write the files."""
    about = {"command": command("benchmark_natural.py", sys.argv[1:]), "versions": versions()}
    text = report.markdown(about, found)
    print(text)
    write_text_atomically(benchmark.output_dir / "natural.md", text)
    write_text_atomically(benchmark.output_dir / "natural.json", report.record(about, [asdict(one) for one in found]))


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(Benchmark, description=__doc__))
