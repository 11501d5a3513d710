"""What the benchmark leaves behind: tables for people (terminal and Markdown) and one JSON with every score."""

import json
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from detection.figures import Figures
from detection.methods import RANDOM, Judgement
from detection.trials import Trial

SCHEMA_VERSION = 1
_PACKAGES = ("mtcm_nerfstudio", "torch", "numpy", "scikit-learn", "opencv-python-headless", "pillow")
_ABSENT = "–"


def ranking_rows(results: Sequence[Figures]) -> list[list[str]]:
    """Return a header and a row a kind: each method's AUROC, and in brackets its average precision."""
    methods, kinds = _unique(result.method for result in results), _unique(result.kind for result in results)
    by_cell = {(result.method, result.kind): result for result in results}
    rows = [["faults", *methods]]
    for kind in kinds:
        cells = [by_cell[method, kind] for method in methods]
        if any(cell.auroc is not None for cell in cells):
            rows.append([kind, *(f"{_number(cell.auroc)} ({_number(cell.average_precision)})" for cell in cells)])
    return rows


def threshold_rows(results: Sequence[Figures]) -> list[list[str]]:
    """Return a header and a row for each method with a threshold and each kind: what it drops and why."""
    rows = [["method", "faults", "recall", "good dropped", "reason right", "calibration error", "worst capture"]]
    for result in results:
        if result.good_dropped is not None:
            numbers = (
                result.recall,
                result.good_dropped,
                result.reason_accuracy,
                result.calibration_error,
                result.worst_capture_auroc,
            )
            rows.append([result.method, result.kind, *map(_number, numbers)])
    return rows


def seconds_rows(results: Sequence[Figures]) -> list[list[str]]:
    """Return a header and a row a method: mean seconds a trial, features already computed."""
    methods = _unique(result.method for result in results)
    seconds = {name: [result.seconds for result in results if result.method == name] for name in methods}
    return [["method", "seconds"], *([name, f"{sum(all_) / len(all_):.3f}"] for name, all_ in seconds.items())]


def rich_table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    """Lay rows out for the terminal; the first is the header."""
    table = Table(*(Column(name, overflow="fold") for name in rows[0]), title=title)
    for row in rows[1:]:
        table.add_row(*row)
    return table


def markdown(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out as a Markdown table under a heading; the first is the header."""
    lines = [" | ".join(row) for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
    return f"## {title}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"


def command(arguments: Sequence[str]) -> str:
    """Return the command line that was given, with paths relative to where it was run."""
    return shlex.join(["python", "scripts/benchmark_detection.py", *map(_relative, arguments[1:])])


def versions() -> dict[str, str]:
    """Return the versions of everything that the scores depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def record(
    about: Mapping[str, Any], results: Sequence[Figures], judged: Sequence[tuple[Trial, Mapping[str, Judgement]]]
) -> str:
    """Return the JSON of a run: figures, and for every trial the faults and every method's score of every frame.

    Random scores are left out; they would be a sixth of the file.
    """
    trials = [
        {
            "capture": trial.capture,
            "kind": trial.kind,
            "share": trial.share,
            "seed": trial.seed,
            "faults": [[fault.frame, fault.kind, round(fault.severity, 2)] for fault in trial.faults],
            "scores": {
                name: [_short(score) for score in said.scores] for name, said in judgements.items() if name != RANDOM
            },
        }
        for trial, judgements in judged
    ]
    head = json.dumps({"schema_version": SCHEMA_VERSION, **about}, indent=1, allow_nan=False)
    figures = _one_a_line(_rounded(asdict(result)) for result in results)
    return f'{head[:-2]},\n "figures": [\n{figures}\n],\n "trials": [\n{_one_a_line(trials)}\n]}}\n'


def _one_a_line(entries: Iterable[Mapping[str, Any]]) -> str:
    return ",\n".join(json.dumps(entry, separators=(",", ":"), allow_nan=False) for entry in entries)


def _relative(argument: str) -> str:
    """Take the machine out of PATH and of name=PATH: relative to here or next door, else the last name alone."""
    name, equals, path = argument.rpartition("=")
    if not Path(path).is_absolute():
        return argument
    relative = os.path.relpath(path)
    return f"{name}{equals}{relative if not relative.startswith('../..') else Path(path).name}"


def _short(score: float) -> float | int:
    """Round to four significant digits: enough to rank frames, and the file stays small."""
    short = float(f"{score:.4g}")
    return int(short) if short.is_integer() else short


def _rounded(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in entry.items()}


def _number(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.3f}"


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
