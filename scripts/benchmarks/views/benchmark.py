"""What scripts/benchmark_views.py is asked for, and what its measures have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from mtcm_nerfstudio.capture.capture import Capture

Measured = tuple[list[str], list[dict[str, Any]]]
"""Tables in Markdown, and the rows that they were made from."""

_FAR_PLANE = 1000.0
"""nerfacto's own."""
_SHARED = Path(__file__).resolve().parents[4] / "shared" / "captures"


@dataclass(frozen=True)
class Benchmark:
    """Measure how views are chosen and missing ones found."""

    what: tyro.conf.Positional[Literal["holes", "budgets", "filling", "labels", "many"]]
    """What to measure."""
    folder: Path = _SHARED
    """Where the captures are."""
    captures: tuple[str, ...] = ("fox", "stitch", "skull")
    """Captures to measure on."""
    seeds: int = 3
    """Draws for each capture."""
    budgets: tuple[int, ...] = (10, 20, 40)
    """Numbers of views."""
    ways: tuple[str, ...] = ()
    """Ways of choosing views to try. Default: all."""
    share: float = 0.2
    """Of the views that is taken away, in (0, 1)."""
    checkpoint: str | None = None
    """MTCM's transformer; in its path {capture} is replaced by the capture's name, {group} by its group in
    data/captures.json, for instance outputs/pretrain/without_{group}/checkpoint. Default: the shipped one."""
    steps: int = 400
    """Training steps."""
    longest_side: int = 128
    """Longer side of the images that the NeRF sees, in pixels."""
    rays: int = 512
    """Rays a step."""
    far_plane: float = _FAR_PLANE
    """Farthest that the NeRF looks, where all cameras lie within ±1. The default is nerfacto's own."""
    name: str | None = None
    """What the tables are called. Default: as what is measured."""
    work: Path = Path("outputs/benchmark_views")
    """Where copies of the captures go."""
    output_dir: Path = Path("data/results")
    """Where tables go."""
    processes: int = 2
    """Trainings at a time, each on one core."""

    @property
    def sizes(self) -> dict[str, float]:
        """The settings that a training depends on."""
        sizes: dict[str, float] = {"steps": self.steps, "longest_side": self.longest_side, "rays": self.rays}
        return sizes if self.far_plane == _FAR_PLANE else {**sizes, "far_plane": self.far_plane}


def usable(capture: Capture) -> Capture:
    """Return a capture without the frames that have no pose or no image."""
    return replace(capture, frames=tuple(f for f in capture.frames if f.has_usable_pose and f.image_path.is_file()))


def mean(values: Sequence[float]) -> float:
    """Return the mean, NaN where there is nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
