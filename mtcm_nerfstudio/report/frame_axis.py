"""The axis that most pictures share: the frames of a capture in temporal order, with their names and verdicts."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mtcm_nerfstudio.report.plot_style import (
    ABSENT,
    DROPPED,
    INK,
    KEPT,
    font_families,
    legend_outside,
    plain,
    printable,
    shortened,
)

LONGEST_NAME = 22
_INCHES_PER_NAME = 0.135
_INCHES_PER_LETTER = 0.07
_NAMED_WORST = 5


def frame_names(file_paths: Sequence[str]) -> tuple[str, ...]:
    """Return each frame's name as short as it can be told apart.

    The folders that all frames share go, and the suffix where all have the same one; what is still long loses its
    middle. Signs that cannot be drawn become boxes.
    """
    paths = [PurePosixPath(path) for path in file_paths]
    folders = [path.parts[:-1] for path in paths]
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False)))
    short = ["/".join(path.parts[shared:]) for path in paths]
    if len({path.suffix for path in paths}) == 1:
        short = [str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).stem else name for name in short]
    return tuple(printable(shortened(name, LONGEST_NAME)) for name in short)


def axis_inches(n_frames: int, shortest: float = 4.5, longest: float = 15.0) -> float:
    """Return how long an axis of ``n_frames`` should be so that their names fit, within limits."""
    return float(np.clip(n_frames * _INCHES_PER_NAME, shortest, longest))


def name_inches(file_paths: Sequence[str]) -> float:
    """Return how much room the longest name takes beside an axis."""
    return _INCHES_PER_LETTER * max(len(name) for name in frame_names(file_paths))


def named_positions(n_frames: int, inches: float, first: Bool[np.ndarray, " n"] | None = None) -> Int[np.ndarray, " _"]:
    """Return the frames whose names fit on an axis of this length: all, or every second, fifth, tenth …

    Where not all fit, frames in ``first`` take the place of their neighbours, as far as there is room.
    """
    room = max(1, int(inches / _INCHES_PER_NAME))
    if n_frames <= room:
        return np.arange(n_frames)
    gap = n_frames / room
    steps = (step * 10**power for power in range(9) for step in (1, 2, 5))
    regular = np.arange(0, n_frames, next(step for step in steps if step >= gap))
    preferred = np.zeros(0, dtype=np.int64) if first is None else np.flatnonzero(first)
    chosen: list[int] = []
    for i in (*preferred.tolist(), *regular.tolist()):
        if all(abs(i - other) >= gap for other in chosen):
            chosen.append(i)
    return np.sort(np.array(chosen, dtype=np.int64))


def name_frames(
    axes: Axes,
    file_paths: Sequence[str],
    inches: float,
    kept: Bool[np.ndarray, " n"] | None = None,
    along: Literal["x", "y"] = "x",
) -> None:
    """Write the frames' names along one axis, thinned where they do not fit, dropped frames in their own colour."""
    names = frame_names(file_paths)
    shown = named_positions(len(names), inches, None if kept is None else ~kept)
    axis = axes.xaxis if along == "x" else axes.yaxis
    axis.set_ticks(shown.tolist(), [names[i] for i in shown])
    axis.set_tick_params(labelsize=7, labelrotation=90 if along == "x" else 0, length=2.5, pad=2)
    for i, label in zip(shown, axis.get_ticklabels(), strict=True):
        label.set_fontfamily(font_families())
        if kept is not None and not kept[i]:
            label.set(color=DROPPED, fontweight="bold")


def lollipops(
    axes: Axes, values: Float[np.ndarray, " n"], kept: Bool[np.ndarray, " n"] | None, stems: bool = True
) -> None:
    """Draw one stem a frame: circles for kept frames, triangles for dropped ones, grey crosses for no value."""
    everyone = np.arange(len(values))
    dropped = np.zeros(len(values), dtype=bool) if kept is None else ~kept
    finite = np.isfinite(values)
    size = float(np.clip(900 / max(1, len(values)), 9, 36))
    for group, colour, marker in ((finite & ~dropped, KEPT, "o"), (finite & dropped, DROPPED, "^")):
        if stems:
            axes.vlines(everyone[group], 0, values[group], color=colour, linewidth=1.0, alpha=0.6)
        axes.scatter(
            everyone[group], values[group], s=size, color=colour, marker=marker, zorder=3, linewidths=0, clip_on=False
        )
    where = axes.get_xaxis_transform()
    axes.scatter(
        everyone[~finite], np.full((~finite).sum(), 0.02), s=14, color=ABSENT, marker="x", linewidths=0.9,
        transform=where, zorder=3, clip_on=False,
    )  # fmt: skip


def verdict_legend(axes: Axes, kept: Bool[np.ndarray, " n"] | None, absent: str = "", left: float = 1.01) -> None:
    """Explain colours and marks beside the axes; ``absent`` says what a grey cross means, where there is one."""
    handles = [] if kept is None else [
        _mark("o", KEPT, f"kept ({int(kept.sum())})"),
        _mark("^", DROPPED, f"dropped ({int((~kept).sum())})"),
    ]  # fmt: skip
    if absent:
        handles.append(_mark("x", ABSENT, absent))
    legend_outside(axes, handles, left)


def name_worst(
    axes: Axes, values: Float[np.ndarray, " n"], file_paths: Sequence[str], inches: float, most: int = _NAMED_WORST
) -> None:
    """Write the names of the frames with the largest values over their marks, as many as stand apart.

    A frame beside a larger value gets none: its name would lie across its neighbour's stem.
    """
    names = frame_names(file_paths)
    half = [0.5 * _INCHES_PER_LETTER * (len(name) + 1) * len(values) / inches for name in names]
    known = np.nan_to_num(values, nan=-np.inf)
    taken: list[int] = []
    for i in np.argsort(-known, kind="stable").tolist():
        below = known[max(0, int(i - half[i])) : int(i + half[i]) + 1].max() <= known[i]
        if np.isfinite(values[i]) and below and all(abs(i - other) > half[i] + half[other] for other in taken):
            taken.append(i)
            axes.annotate(
                names[i], (i, float(values[i])), xytext=(0, 5), textcoords="offset points", ha="center",
                fontsize=7, fontfamily=font_families(), color=INK, annotation_clip=False,
            )  # fmt: skip
        if len(taken) == most:
            return


def inconsistency_panel(
    axes: Axes, inconsistency: Float[np.ndarray, " n"], kept: Bool[np.ndarray, " n"] | None
) -> None:
    """Draw every frame's probability of not belonging, from 0 to 1."""
    lollipops(axes, inconsistency, kept)
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("inconsistency\n(probability)", fontsize=8, color=INK)
    plain(axes)


def share_frames(panels: Sequence[Axes], n_frames: int) -> None:
    """Let panels above each other show the same frames, named below the last one.

    (Axes that share ticks, as in ``subplots(sharex=True)``, hold every tick once per panel and draw slowly.)
    """
    for axes in panels:
        axes.set_xlim(-0.5, n_frames - 0.5)
    for axes in panels[:-1]:
        axes.set_xticks([])
    panels[-1].set_xlabel("frame, in temporal order", fontsize=8.5, color=INK)


def checked(file_paths: Sequence[str], **arrays: np.ndarray | None) -> int:
    """Return the number of frames.

    Raises:
        ValueError: there is no frame, or an array has another length than ``file_paths``.
    """
    if len(file_paths) == 0:
        raise ValueError("nothing to draw: the capture has no frames")
    for name, array in arrays.items():
        if array is not None and len(array) != len(file_paths):
            raise ValueError(f"{name} has {len(array)} rows for {len(file_paths)} frames")
    return len(file_paths)


def _mark(marker: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, color=colour, markersize=5.5, label=label)
