"""ns-mtcm-train: train the consistency transformer on one's own captures.

Usage:
    ns-mtcm-train --data CAPTURE                         fine-tune the shipped checkpoint on one capture
    ns-mtcm-train --data data --identities A "B C"       on identities of the identity layout (default: all)
    ns-mtcm-train --data CAPTURE1 CAPTURE2 --init scratch   train from nothing on several captures
    ns-mtcm-train --data CAPTURE --output-dir OUT        everything goes to OUT/logs/
    ns-mtcm-train --data CAPTURE --output-dir OUT --resume  go on with a run that was stopped
    ns-mtcm-filter --data CAPTURE --checkpoint OUT/logs/checkpoint.safetensors   use what was trained
"""

from pathlib import Path

import tyro

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.consistency.training.run import RunSettings, run_training
from mtcm_nerfstudio.decisions import Decisions
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.filtering import filter_capture
from mtcm_nerfstudio.tokens.cache import Cache


def write_filtered_views(capture: Capture, checkpoint: Path, file: Path) -> Decisions:
    """Filter a capture with a checkpoint, and write and return the decisions."""
    settings = FilterSettings(checkpoint=checkpoint)
    decisions = filter_capture(capture, settings, Cache(), progress=False).decisions
    decisions_file.write(decisions, file)
    return decisions


def entrypoint() -> None:
    """Run the command line."""
    with clear_errors():
        settings = tyro.cli(RunSettings, description=__doc__)
        checkpoint = run_training(settings, write_filtered_views)
        print(f"checkpoint: {checkpoint}.safetensors\npictures and files: {settings.logs}")


if __name__ == "__main__":
    entrypoint()
