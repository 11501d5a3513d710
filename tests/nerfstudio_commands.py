"""nerfstudio's own commands, as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

SMALL = "--max-num-iterations 4 --steps-per-save 4 --vis tensorboard --pipeline.datamanager.train-num-rays-per-batch 64"


def nerfstudio(command: str, *arguments: str, folder: Path, **environment: str) -> str:
    """Run one of nerfstudio's commands; return what it prints."""
    line = [sys.executable, "-W", "ignore", "-m", f"nerfstudio.scripts.{command}", *arguments]
    env = {**os.environ, "OMP_WAIT_POLICY": "passive", **environment}
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def run_folder(output: Path, method: str, timestamp: str) -> Path:
    return output / "capture" / method / timestamp
