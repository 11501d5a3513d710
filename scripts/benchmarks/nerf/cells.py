"""Finished trainings, kept by what they were made of, and the making of those that are not."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from benchmarks.capture_list import read_capture_list
from benchmarks.nerf.training import Training
from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.consistency.checkpoint import card_file
from mtcm_nerfstudio.decisions import Decisions, write_text_atomically

FILE_NAME = "nerf_cells.json"


def checkpoint_of(pattern: str | None, capture: str) -> Path | None:
    """Return the checkpoint that judges a capture; None is the shipped one, also for captures that never train.

    Args:
        pattern: its path, in which {capture} and {group} are replaced by the name and by data/captures.json's group.
        capture: the capture's name.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    if pattern is None:
        return None
    entry = read_capture_list().get(capture)
    group = capture if entry is None else entry.group
    if "{group}" in pattern and group == "evaluation":
        return None
    path = Path(pattern.replace("{capture}", capture).replace("{group}", group))
    if not card_file(path).is_file():
        raise FileNotFoundError(f"{card_file(path)}: no such file; --checkpoint names no checkpoint for {capture}")
    return path


class Cells:
    """Finished trainings by what they were made of."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def get(self, key: str) -> dict[str, Any] | None:
        return self._found.get(key)

    def put(self, key: str, value: dict[str, Any]) -> None:
        with self._lock:  # trainings end in threads of their own
            self._found[key] = value
            lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(self._found.items()))
            write_text_atomically(self._path, "{\n" + lines + "\n}\n")


def trained(
    capture: Path, decisions: Decisions, options: dict[str, Any], renders: Path | None = None
) -> dict[str, Any]:
    """Train one NeRF in a process of its own and return its result as plain JSON.

    Args:
        capture: folder to train on.
        decisions: which frames to train on.
        options: the other fields of ``Training``.
        renders: folder that gets the evaluation frames, each beside its render.
    """
    with TemporaryDirectory(prefix="mtcm_benchmark_") as folder:
        path = Path(folder) / decisions_file.FILE_NAME
        decisions_file.write(decisions, path)
        training = Training(str(capture.absolute()), str(path), folder, **options)
        given, result = Path(folder) / "training.json", Path(folder) / "result.json"
        given.write_text(json.dumps(asdict(training)))
        line = [sys.executable, "-W", "ignore", "-m", "benchmarks.nerf.training", str(given), str(result)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            line, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"a training failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
        if renders is not None:
            shutil.copytree(Path(folder) / "renders", renders, dirs_exist_ok=True)
        found: dict[str, Any] = json.loads(result.read_text())
        return found
