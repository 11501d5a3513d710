"""The JSON that a run leaves behind: what was run, figures, and every score of every frame."""

import json
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.figures import Figures
from benchmarks.detection.methods import RANDOM
from benchmarks.detection.prediction import Outcome, Prediction
from benchmarks.detection.repairs import RepairFigures

SCHEMA_VERSION = 3
_PACKAGES = (
    "mtcm_nerfstudio",
    "torch",
    "numpy",
    "scikit-learn",
    "opencv-python-headless",
    "pillow",
    "pycolmap",
    "cleanvision",
)


def record(
    about: Mapping[str, Any],
    results: Iterable[Figures],
    repairs: Iterable[RepairFigures],
    outcomes: Sequence[Outcome],
) -> str:
    """Return the JSON of a run: figures, and for every trial the faults and every method's score of every frame.

    Random scores are left out: anyone can draw them.
    """
    head = json.dumps({"schema_version": SCHEMA_VERSION, **about}, indent=1, allow_nan=False)
    rows = [
        ("figures", [_rounded(asdict(result)) for result in results]),
        ("repairs", [_rounded(asdict(one)) for one in repairs]),
        ("trials", [_capture_record(outcome) for outcome in outcomes]),
    ]
    parts = [f' "{name}": [\n{one_a_line(entries)}\n]' for name, entries in rows]
    return f"{head[:-2]},\n" + ",\n".join(parts) + "}\n"


def command(script: str, arguments: Sequence[str]) -> str:
    """Return the command line that was given, with paths relative to where it was run."""
    return shlex.join(["python", f"scripts/{script}", *map(_relative, arguments)])


def versions() -> dict[str, str]:
    """Return the versions of everything that the scores depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def one_a_line(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return JSON objects, each on a line of its own, as the inside of an array."""
    return ",\n".join(json.dumps(entry, separators=(",", ":"), allow_nan=False) for entry in entries)


def _capture_record(outcome: Outcome) -> dict[str, Any]:
    case = outcome.case
    repaired = {name: sorted(said.repaired) for name, said in outcome.said.items() if said.repaired}
    return {
        "capture": case.capture,
        "kind": case.kind,
        "share": case.share,
        "seed": case.seed,
        "faults": [[fault.frame, fault.kind] for fault in case.faults],
        "scores": {name: _scores(said) for name, said in outcome.said.items() if name != RANDOM},
        **({"repaired": repaired} if repaired else {}),
    }


def _scores(said: Prediction) -> list[float | int]:
    """Round probabilities to five places, other numbers to five significant digits: enough to rank frames."""
    if said.threshold is not None:
        return [round(float(score), 5) for score in said.scores]
    return [_short(score) for score in said.scores]


def _short(score: float) -> float | int:
    short = float(f"{score:.5g}")
    return int(short) if short.is_integer() else short


def _relative(argument: str) -> str:
    """Take the machine out of PATH and of name=PATH: relative to here or next door, else the last name alone."""
    name, equals, path = argument.rpartition("=")
    if not Path(path).is_absolute():
        return argument
    relative = os.path.relpath(path)
    return f"{name}{equals}{relative if not relative.startswith('../..') else Path(path).name}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return round(value, 4) if isinstance(value, float | np.floating) else value
