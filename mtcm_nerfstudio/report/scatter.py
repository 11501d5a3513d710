"""Scatter plots of frames: one map coloured in several ways side by side, outliers named, legends beside the data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from mtcm_nerfstudio.capture.images import thumbnail
from mtcm_nerfstudio.report.frame_axis import frame_names, verdict_legend
from mtcm_nerfstudio.report.plot_style import (
    ABSENT,
    CATEGORIES,
    DROPPED,
    GRID,
    INK,
    KEPT,
    explanation,
    font_families,
    headline,
    legend_outside,
    new_figure,
    printable,
    shortened,
)

_PANEL = 3.9
_MOST_NAMES = 8
_MARKERS = "osDPv^X*"
_PICTURE_PX, _PICTURE_POINTS = 96, 38.0
_APART = 0.13
"""Share of a map's extent between two pictures; they are about so wide."""


@dataclass(frozen=True, eq=False)
class Map:
    """Where each frame lies in the plane."""

    name: str
    """Of what this is a map."""
    method: str
    """How it was laid out."""
    places: Float[np.ndarray, "n 2"]
    """NaN where a frame has no place."""
    note: str = ""
    """What a reader should know about how it was laid out."""


def map_figure(
    maps: Sequence[Map],
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None,
    inconsistency: Float[np.ndarray, " n"] | None,
    labels: Sequence[str | None] | None,
    images: Sequence[Path] | None,
    title: str,
) -> Figure:
    """Draw one row a map: coloured by verdict, by time and, where they are given, by label and in pictures."""
    columns = 2 + (labels is not None) + (images is not None)
    figure = new_figure(columns * (_PANEL + 1.3), len(maps) * _PANEL + 0.6)
    headline(figure, title)
    grid = figure.subplots(len(maps), columns, squeeze=False)
    for row, one in zip(grid, maps, strict=True):
        _by_verdict(row[0], one, kept, inconsistency)
        _by_time(figure, row[1], one, file_paths)
        if labels is not None:
            _by_label(row[2], one, labels)
        if images is not None:
            _in_pictures(row[-1], one, images, kept)
        hows = ["by verdict", "by time"] + ["by label"] * (labels is not None) + ["in pictures"] * (images is not None)
        for axes, how in zip(row, hows, strict=True):
            _frame_map(axes, one, how)
    _name_outliers(figure, list(grid[:, 0]), maps, file_paths, kept, inconsistency)
    return figure


def _frame_map(axes: Axes, one: Map, how: str) -> None:
    lost = int(np.isnan(one.places[:, 0]).sum())
    notes = [f"{lost} {'frame has' if lost == 1 else 'frames have'} none"] * bool(lost) + [one.note] * bool(one.note)
    explanation(axes, f"{one.name}, {how}" + (f" ({'; '.join(notes)})" if notes else ""))
    axes.set_xlabel(f"{one.method} 1 (no unit)", fontsize=8, color=INK)
    axes.set_ylabel(f"{one.method} 2 (no unit)", fontsize=8, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(GRID)
    axes.margins(0.12)


def _dot_area(n_frames: int) -> float:
    return float(np.clip(2400 / max(1, n_frames), 12, 45))


def _by_verdict(
    axes: Axes, one: Map, kept: Bool[np.ndarray, " n"] | None, inconsistency: Float[np.ndarray, " n"] | None
) -> None:
    x, y = one.places.T
    size = _dot_area(len(x))
    if kept is None:
        axes.scatter(x, y, s=size, color=KEPT, marker="o", linewidths=0.4, edgecolors="white")
    else:
        for group, colour, marker, area in ((kept, KEPT, "o", size), (~kept, DROPPED, "^", 1.5 * size)):
            axes.scatter(
                x[group], y[group], s=area, color=colour, marker=marker, linewidths=0.4, edgecolors="white", zorder=2
            )
    verdict_legend(axes, kept)


def _by_time(figure: Figure, axes: Axes, one: Map, file_paths: Sequence[str]) -> None:
    n = len(file_paths)
    axes.plot(*one.places.T, color=ABSENT, linewidth=0.5, alpha=0.6, zorder=1)
    dots = axes.scatter(
        *one.places.T, c=np.arange(n), s=_dot_area(n), cmap="viridis", vmin=0, vmax=max(1, n - 1), zorder=2,
        linewidths=0.4, edgecolors="white",
    )  # fmt: skip
    bar = figure.colorbar(dots, ax=axes, fraction=0.05, pad=0.02, aspect=25)
    marked = sorted({0, n // 2, n - 1})
    names = frame_names(file_paths)
    bar.set_ticks(marked, labels=[names[i] for i in marked])
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.invert_yaxis()
    bar.outline.set_visible(False)
    for text in bar.ax.get_yticklabels():
        text.set_fontfamily(font_families())


def _by_label(axes: Axes, one: Map, labels: Sequence[str | None]) -> None:
    """Colour and mark the commonest labels; the rest, and frames without one, are grey."""
    common = [label for label, _ in Counter(filter(None, labels)).most_common(len(CATEGORIES))]
    size = _dot_area(len(labels))
    given = np.array([label if label in common else "" for label in labels])
    handles = []
    for label, colour, marker in [*zip(common, CATEGORIES, _MARKERS, strict=False), ("", ABSENT, ".")]:
        group = given == label
        if group.any():
            axes.scatter(
                *one.places[group].T, s=size, color=colour, marker=marker, linewidths=0.4, edgecolors="white", zorder=2
            )
            shown = printable(shortened(label, 28)) or "another label, or none"
            handles.append(Line2D([], [], linestyle="", marker=marker, color=colour, markersize=5.5, label=shown))
    legend_outside(axes, handles)


def _in_pictures(axes: Axes, one: Map, images: Sequence[Path], kept: Bool[np.ndarray, " n"] | None) -> None:
    """Draw some frames' pictures in their places, framed by verdict; the others are dots."""
    x, y = one.places.T
    axes.scatter(x, y, s=0.4 * _dot_area(len(x)), color=ABSENT, linewidths=0, zorder=1)
    for i in spread_out(one.places, _APART):
        picture = thumbnail(images[i], _PICTURE_PX)
        if picture is None:
            continue
        colour = KEPT if kept is None or kept[i] else DROPPED
        box = AnnotationBbox(
            OffsetImage(np.asarray(picture), zoom=_PICTURE_POINTS / _PICTURE_PX),
            (float(x[i]), float(y[i])),
            pad=0.12,
            bboxprops={"edgecolor": colour, "linewidth": 1.2, "facecolor": colour},
        )
        box.set_in_layout(False)
        axes.add_artist(box)


def spread_out(places: Float[np.ndarray, "n 2"], min_distance: float) -> list[int]:
    """Return places, the farthest first, no two of them nearer than ``min_distance``, a share of the map's extent."""
    there = np.isfinite(places).all(axis=1)
    if not there.any():
        return []
    extent = np.maximum(np.ptp(places[there], axis=0), 1e-12)
    chosen: list[int] = []
    nearest = np.where(there, np.inf, -1.0)
    while nearest.max() >= min_distance:
        chosen.append(int(nearest.argmax()))
        nearest = np.where(
            there, np.minimum(nearest, np.linalg.norm((places - places[chosen[-1]]) / extent, axis=1)), -1
        )
    return chosen


def _name_outliers(
    figure: Figure,
    panels: Sequence[Axes],
    maps: Sequence[Map],
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None,
    inconsistency: Float[np.ndarray, " n"] | None,
) -> None:
    """Write the names of the frames that least belong beside their marks, as many as find room."""
    score = np.zeros(len(file_paths)) if inconsistency is None else inconsistency
    outlying = score >= 0.5 if kept is None else ~kept
    ranked = np.flatnonzero(outlying)[np.argsort(-score[outlying], kind="stable")][:_MOST_NAMES]
    engine = figure.get_layout_engine()
    if len(ranked) == 0 or engine is None:
        return
    engine.execute(figure)  # places are chosen in pixels, so panels must have theirs
    names = frame_names(file_paths)
    for axes, one in zip(panels, maps, strict=True):
        taken: list[Bbox] = []
        for i in ranked.tolist():
            if np.isfinite(one.places[i]).all():
                _write_beside(axes, one.places, i, names[i], taken)


def _write_beside(axes: Axes, places: Float[np.ndarray, "n 2"], i: int, name: str, taken: list[Bbox]) -> None:
    """Write one name inside of the panel, over no other name and over few marks; where there is no room, nowhere."""
    points = axes.transData.transform(places) * 72 / axes.figure.dpi
    frame = Bbox(axes.get_window_extent().get_points() * 72 / axes.figure.dpi)
    width, height = 4.5 * len(name), 8.0
    boxes = [Bbox.from_bounds(points[i, 0] + dx, points[i, 1] + dy, width, height) for dx, dy in _around(width)]
    free = [box for box in boxes if _within(box, frame) and not any(box.overlaps(other) for other in taken)]
    if not free:
        return
    best = min(
        free, key=lambda box: box.padded(3.0).count_contains(points)
    )  # the first of equals, which is the nearest
    taken.append(best)
    text = axes.annotate(
        name,
        (float(places[i, 0]), float(places[i, 1])),
        xytext=(best.x0 - points[i, 0], best.y0 - points[i, 1]),
        textcoords="offset points",
        fontsize=7,
        fontfamily=font_families(),
        color=INK,
        va="bottom",
        zorder=4,
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
    )
    text.set_in_layout(False)


def _within(box: Bbox, frame: Bbox) -> bool:
    return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)


def _around(width: float) -> list[tuple[float, float]]:
    """Return lower left corners (points) for a text of this width, from beside its mark outwards."""
    corners = []
    for radius in (6.0, 14.0, 24.0, 36.0, 50.0):
        corners += [
            (radius, -4.0), (-radius - width, -4.0), (-width / 2, radius), (-width / 2, -radius - 8.0),
            (0.7 * radius, 0.7 * radius), (-0.7 * radius - width, 0.7 * radius),
            (0.7 * radius, -0.7 * radius - 8.0), (-0.7 * radius - width, -0.7 * radius - 8.0),
        ]  # fmt: skip
    return corners
