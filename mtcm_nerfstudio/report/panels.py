"""How the pictures of ``analysis_utils`` are put together: matrices, strips and lollipops over one axis of frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter

from mtcm_nerfstudio.report.frame_axis import (
    axis_inches,
    inconsistency_panel,
    lollipops,
    name_frames,
    name_inches,
    name_worst,
    share_frames,
    verdict_legend,
)
from mtcm_nerfstudio.report.plot_style import (
    DROPPED,
    INK,
    KEPT,
    NO_DATA,
    explanation,
    headline,
    new_figure,
    plain,
)

_NUMBERS_FIT = 16
_LAYER_INCHES = 2.8


@dataclass(frozen=True)
class Scale:
    """How numbers become colours."""

    name: str
    """What the colours mean, with the unit."""
    colours: str
    """The name of a matplotlib colour map that is readable with any colour vision."""
    low: float | None
    """The value of the first colour; None: the 1st percentile of what is drawn."""
    high: float | None
    """The value of the last colour; None: the 99th percentile of what is drawn."""

    def limits(self, values: Float[np.ndarray, "..."]) -> tuple[float, float]:
        """Return the values of the first and the last colour."""
        finite = values[np.isfinite(values)]
        if len(finite) == 0:
            return 0.0, 1.0
        low = float(np.quantile(finite, 0.01)) if self.low is None else self.low
        high = float(np.quantile(finite, 0.99)) if self.high is None else self.high
        return low, max(high, low + 1e-6)

    def colormap(self) -> Colormap:
        """Return the colours, with grey for what is absent."""
        return colormaps[self.colours].with_extremes(bad=NO_DATA)


ATTENTION = Scale("attention (1 = even share)", "viridis", 0.0, None)
SIMILARITY = Scale("cosine similarity", "viridis", None, 1.0)
ERROR = Scale("root mean square error\n(standardised units)", "magma_r", 0.0, None)


def matrix_figure(
    matrix: Float[np.ndarray, "n n"],
    panels: Mapping[str, Float[np.ndarray, " n"]],
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None,
    inconsistency: Float[np.ndarray, " n"] | None,
    scale: Scale,
    texts: tuple[str, str],
) -> Figure:
    """Draw a matrix of frames against frames below panels of one value a frame; ``texts``: title, explanation."""
    n = len(matrix)
    side = axis_inches(n, longest=11.0)
    room = name_inches(file_paths)
    figure, tops, body, sides = _stacked(side, side, len(panels) + (inconsistency is not None), (room, room))
    headline(figure, texts[0])
    explanation(tops[0], texts[1])
    _draw_panels(tops, panels, inconsistency, kept)
    verdict_legend(sides[0], kept, left=0.0)
    image = _draw_cells(body, matrix, scale)
    name_frames(body, file_paths, side, kept, along="y")
    name_frames(body, file_paths, side, kept, along="x")
    share_frames([*tops, body], n)
    verdict_marks(sides[2], kept, 0.5)
    _colour_bar(figure, sides[1], image, scale, matrix)
    return figure


def strip_figure(
    rows: Float[np.ndarray, "n p"],
    names: Sequence[str],
    panels: Mapping[str, Float[np.ndarray, " n"]],
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None,
    inconsistency: Float[np.ndarray, " n"] | None,
    scale: Scale,
    texts: tuple[str, str],
) -> Figure:
    """Draw rows of colours, one column a frame, below panels of one value a frame; ``texts``: title, explanation."""
    n, width = len(rows), axis_inches(len(rows))
    figure, tops, body, sides = _stacked(
        width, 0.36 * rows.shape[1] + 0.2, len(panels) + (inconsistency is not None), (0.7, name_inches(file_paths))
    )
    headline(figure, texts[0])
    explanation(tops[0], texts[1])
    _draw_panels(tops, panels, inconsistency, kept)
    verdict_legend(sides[0], kept, left=0.0)
    image = _draw_cells(body, rows.T, scale)
    body.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    name_frames(body, file_paths, width, kept)
    share_frames([*tops, body], n)
    _colour_bar(figure, sides[1], image, scale, rows)
    return figure


def layer_panels(
    layers: Float[np.ndarray, "layer n n"],
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None,
    scale: Scale,
    title: str,
) -> Figure:
    """Draw one small matrix a layer, all on one scale of colours."""
    columns = min(4, len(layers))
    rows = ceil(len(layers) / columns)
    figure = new_figure(3.7 * columns + 1.0, 3.6 * rows + 0.6)
    headline(figure, title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    low, high = scale.limits(layers)
    image = None
    for i, axes in enumerate(grid):
        axes.set_visible(i < len(layers))
        if i < len(layers):
            image = axes.imshow(layers[i], cmap=scale.colormap(), vmin=low, vmax=high, aspect="auto")
            explanation(axes, f"layer {i}")
            axes.spines[:].set_visible(False)
            name_frames(axes, file_paths, _LAYER_INCHES, kept, along="x")
            axes.set_yticks([])
            if i % columns == 0:
                name_frames(axes, file_paths, _LAYER_INCHES, kept, along="y")
    if image is not None:
        bar = figure.colorbar(image, ax=list(grid), fraction=0.03, aspect=30)
        bar.set_label(scale.name, fontsize=8, color=INK)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
    return figure


def delta_panel(
    axes: Axes,
    values: Float[np.ndarray, " n"],
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None,
    name: str,
    inches: float,
) -> None:
    """Draw one lollipop a frame from zero up, and name the largest; one huge value does not flatten the others."""
    lollipops(axes, values, kept)
    name_worst(axes, values, file_paths, inches)
    finite = values[np.isfinite(values)]
    typical = float(np.quantile(finite, 0.9)) if len(finite) else 1.0
    if len(finite) and typical > 0 and finite.max() > 8 * typical:
        linear_to = float(f"{2 * typical:.1g}")
        axes.set_yscale("symlog", linthresh=linear_to)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        name += f"\nlogarithmic above {linear_to:g}"
    axes.margins(y=0.2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(name, fontsize=8, color=INK)
    plain(axes)


def verdict_marks(axes: Axes, kept: Bool[np.ndarray, " n"] | None, left: float = 1.02) -> None:
    """Mark kept and dropped frames along a vertical axis of frames, at ``left`` in widths of the axes."""
    if kept is not None:
        rows = np.arange(len(kept))
        beside = axes.get_yaxis_transform()
        for group, colour, marker, size in ((kept, KEPT, "o", 4), (~kept, DROPPED, "<", 16)):
            axes.scatter(
                np.full(group.sum(), left), rows[group], s=size, color=colour, marker=marker, transform=beside,
                clip_on=False, linewidths=0,
            )  # fmt: skip


def _stacked(
    width: float, height: float, n_panels: int, names: tuple[float, float]
) -> tuple[Figure, list[Axes], Axes, tuple[Axes, Axes, Axes]]:
    """Return a figure, flat axes over a large one, and beside them places for legend, bar of colours and marks.

    Args:
        width: of the axes, in inches.
        height: of the large one.
        n_panels: the number of flat ones.
        names: how much room the names at the left and at the foot of the large one take.
    """
    figure = new_figure(width + names[0] + 2.0, height + 0.95 * n_panels + names[1] + 1.1)
    sizes = {"width_ratios": [width, 0.06, 0.18], "height_ratios": [0.9] * n_panels + [height]}
    grid = figure.add_gridspec(n_panels + 1, 3, **sizes)
    left = [figure.add_subplot(grid[row, 0]) for row in range(n_panels + 1)]
    legend, marks = figure.add_subplot(grid[0, 1:]), figure.add_subplot(grid[-1, 1], sharey=left[-1])
    legend.set_axis_off()
    marks.set_axis_off()
    return figure, left[:-1], left[-1], (legend, figure.add_subplot(grid[-1, 2]), marks)


def _draw_panels(
    tops: Sequence[Axes],
    panels: Mapping[str, Float[np.ndarray, " n"]],
    inconsistency: Float[np.ndarray, " n"] | None,
    kept: Bool[np.ndarray, " n"] | None,
) -> None:
    for axes, (name, values) in zip(tops, panels.items(), strict=False):
        lollipops(axes, values, kept)
        if not (values < 0).any():
            axes.set_ylim(bottom=0)
        axes.set_ylabel(name, fontsize=8, color=INK)
        plain(axes)
    if inconsistency is not None:
        inconsistency_panel(tops[-1], inconsistency, kept)


def _draw_cells(axes: Axes, values: Float[np.ndarray, "r c"], scale: Scale) -> AxesImage:
    low, high = scale.limits(values)
    image = axes.imshow(values, cmap=scale.colormap(), vmin=low, vmax=high, aspect="auto")
    axes.spines[:].set_visible(False)
    if values.shape[1] <= _NUMBERS_FIT:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                shade = image.cmap(image.norm(value))[:3]
                light = np.dot(shade, [0.299, 0.587, 0.114]) > 0.5
                axes.text(
                    column, row, f"{round(float(value), 2) + 0.0:.2f}", ha="center", va="center", fontsize=6.5,
                    color=INK if light else "white",
                )  # fmt: skip
    return image


def _colour_bar(figure: Figure, axes: Axes, image: AxesImage, scale: Scale, values: Float[np.ndarray, "..."]) -> None:
    low, high = scale.limits(values)
    finite = values[np.isfinite(values)]
    below, above = bool((finite < low).any()), bool((finite > high).any())
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    bar = figure.colorbar(image, cax=axes, extend=extend, extendfrac=0.02)
    bar.set_label(scale.name, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
