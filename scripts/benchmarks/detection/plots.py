"""Pictures of a run: ROC curves by kind of corruption, how far probabilities can be believed, every frame's score."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from sklearn.metrics import roc_curve

from benchmarks.corruptions import Kind
from benchmarks.detection.figures import Bin, auroc, mean, pooled, predictions_of_kind, reliability
from benchmarks.detection.labelled_captures import Case
from benchmarks.detection.prediction import Outcome, Prediction
from benchmarks.detection.tables import in_words
from mtcm_nerfstudio.report.plot_style import (
    ABSENT,
    CATEGORIES,
    DROPPED,
    INK,
    explanation,
    headline,
    legend_outside,
    new_figure,
    plain,
)

Panel = tuple[str, Kind | None]
"""A kind of trial, and the kind of corruption in it that counts; None: all."""

_ALARMS = np.linspace(0.0, 1.0, 401)
_MOST_ALARMS = 0.5
"""Right end of the ROC curves: more than half of the good frames is never worth dropping."""
_FEWEST_IN_BIN = 5
_COLUMNS = 5
_PANEL = 2.3
_COLOURS = (*CATEGORIES[:6], CATEGORIES[7], ABSENT)
"""Without the yellow, which is hard to see as a thin line on white."""
_BELIEF = LinearSegmentedColormap.from_list("belief", ["#F4F4F4", "#F6C9A8", DROPPED])


def roc_by_kind(outcomes: Sequence[Outcome], methods: Sequence[str], panels: Sequence[Panel]) -> Figure:
    """Draw each method's mean ROC curve in a panel for each kind; the first method's is the thickest."""
    rows = -(-(len(panels) + 1) // _COLUMNS)
    figure = new_figure(_COLUMNS * _PANEL, rows * (_PANEL + 0.25) + 0.4)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    colours = dict(zip(methods, _COLOURS, strict=False))
    for one, (trial_kind, corruption) in zip(axes, panels, strict=False):
        _roc_panel(one, outcomes, (trial_kind, corruption), colours)
        best = mean(auroc(*item, corruption) for item in predictions_of_kind(methods[0], trial_kind, outcomes))
        explanation(one, in_words(corruption or trial_kind) + (f": {best:.3f}" if best is not None else ""))
    for one in axes[len(panels) :]:
        one.set_axis_off()
    handles = [
        Line2D([], [], color=colour, linewidth=_width(name, colours), label=name) for name, colour in colours.items()
    ]
    legend_outside(axes[len(panels)], handles, left=0.0)
    figure.supxlabel("share of good frames above the threshold", fontsize=9, color=INK)
    figure.supylabel("share of faulty frames above it", fontsize=9, color=INK)
    headline(
        figure,
        f"ROC curves by kind of corruption, mean over captures and seeds; the number is {methods[0]}'s whole area",
    )
    return figure


def _roc_panel(axes: Axes, outcomes: Sequence[Outcome], panel: Panel, colours: Mapping[str, str]) -> None:
    trial_kind, corruption = panel
    axes.plot([0, 1], [0, 1], color=ABSENT, linewidth=0.6, linestyle=":")
    for method, colour in reversed(list(colours.items())):
        curves = [_roc(*item, corruption) for item in predictions_of_kind(method, trial_kind, outcomes)]
        known = [curve for curve in curves if curve is not None]
        if known:
            width = _width(method, colours)
            axes.plot(_ALARMS, np.mean(known, axis=0), color=colour, linewidth=width)
    axes.set(xlim=(-0.01, _MOST_ALARMS), ylim=(-0.01, 1.03), xticks=[0, 0.25, 0.5], yticks=[0, 0.5, 1])
    plain(axes)


def _width(method: str, colours: Mapping[str, str]) -> float:
    return 2.2 if method == next(iter(colours)) else 1.1


def _roc(case: Case, said: Prediction, kind: Kind | None) -> Float[np.ndarray, " alarm"] | None:
    faulty = case.corrupted(kind)
    if not faulty.any() or not case.good.any():
        return None
    counts = faulty | case.good
    alarms, hits, _ = roc_curve(faulty[counts], said.scores[counts])
    curve = np.interp(_ALARMS, alarms, hits)
    return np.concatenate([[0.0], curve[1:]])


def reliability_diagram(outcomes: Sequence[Outcome], methods: Sequence[str], kinds: Sequence[str]) -> Figure:
    """Draw a panel a method: how often frames are faulty that are said to be so with some probability.

    Bins with hardly any frames are left out: their shares say nothing.
    """
    figure = new_figure(3.4 * len(methods) + 1.2, 4.6)
    panels = figure.subplots(2, len(methods), squeeze=False, height_ratios=[3.0, 1.0], sharex=True)
    colours = dict(zip(kinds, CATEGORIES, strict=False))
    for column, method in enumerate(methods):
        upper, lower = panels[:, column]
        upper.plot([0, 1], [0, 1], color=ABSENT, linewidth=0.8, linestyle=":")
        for kind, colour in colours.items():
            predictions = predictions_of_kind(method, kind, outcomes)
            if predictions:
                bins = [one for one in reliability(*pooled(predictions)) if one.frames >= _FEWEST_IN_BIN]
                _reliability_line(upper, lower, bins, colour)
        upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), yticks=[0, 0.25, 0.5, 0.75, 1])
        lower.set_yscale("log")
        lower.yaxis.set_minor_formatter(NullFormatter())  # within two decades they are all named, and overlap
        lower.set_xlabel("inconsistency", fontsize=8.5, color=INK)
        explanation(upper, method)
        plain(upper)
        plain(lower)
    panels[0, 0].set_ylabel("share that is faulty", fontsize=8.5, color=INK)
    panels[1, 0].set_ylabel("frames", fontsize=8.5, color=INK)
    handles = [Line2D([], [], color=colour, marker="o", markersize=4, label=kind) for kind, colour in colours.items()]
    legend_outside(panels[0, -1], handles)
    headline(figure, "Of the frames that are said to be inconsistent with a probability, how many are")
    return figure


def _reliability_line(upper: Axes, lower: Axes, bins: Sequence[Bin], colour: str) -> None:
    said = [one.said for one in bins]
    upper.plot(said, [one.seen for one in bins], color=colour, linewidth=1.2, marker="o", markersize=4, clip_on=False)
    lower.plot(said, [one.frames for one in bins], color=colour, linewidth=0.8, marker="o", markersize=3)


def score_strips(outcomes: Sequence[Outcome], method: str) -> Figure:
    """Draw a strip a capture and kind of trial, the first seed: every frame's score, and which are faulty."""
    shown = [outcome for outcome in outcomes if outcome.case.seed == 0 and method in outcome.said]
    captures = list(dict.fromkeys(outcome.case.capture for outcome in shown))
    kinds = len(dict.fromkeys(outcome.case.kind for outcome in shown))
    figure = new_figure(12.0, len(captures) * (0.155 * kinds + 0.5) + 0.9)
    panels = figure.subplots(len(captures), 1, squeeze=False).ravel()
    drawn = None
    for axes, capture in zip(panels, captures, strict=True):
        drawn = _strip(axes, [outcome for outcome in shown if outcome.case.capture == capture], method)
        explanation(axes, capture)
    panels[-1].set_xlabel("frame, in temporal order", fontsize=8.5, color=INK)
    legend_outside(panels[0], _strip_legend())
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=list(panels[1:]) or list(panels), shrink=0.25, aspect=18, pad=0.02)
        bar.set_label("inconsistency", fontsize=8.5, color=INK)
        bar.ax.tick_params(labelsize=8, colors=INK)
    headline(figure, f"What {method} makes of every frame, one trial of each kind")
    return figure


def _strip(axes: Axes, outcomes: Sequence[Outcome], method: str):
    scores = np.stack([outcome.said[method].scores for outcome in outcomes])
    drawn = axes.imshow(scores, aspect="auto", cmap=_BELIEF, vmin=0.0, vmax=1.0, interpolation="nearest")
    for row, outcome in enumerate(outcomes):
        said, faulty = outcome.said[method], outcome.case.truth
        for among, style in (
            (faulty & said.found, {"marker": "o", "color": INK, "markersize": 2.6}),
            (faulty & ~said.found, {"marker": "x", "color": CATEGORIES[0], "markersize": 3.6, "markeredgewidth": 1.2}),
            (outcome.case.good & said.found, {"marker": "s", "color": CATEGORIES[2], "markersize": 2.6}),
            (outcome.case.natural & ~faulty, {"marker": "|", "color": ABSENT, "markersize": 4.0}),
        ):
            places = np.flatnonzero(among)
            axes.plot(places, np.full(len(places), row), linestyle="none", **style)
    axes.set_yticks(range(len(outcomes)), [in_words(outcome.case.kind) for outcome in outcomes])
    axes.set_xlim(-0.5, scores.shape[1] - 0.5)
    plain(axes, grid=False)
    axes.tick_params(labelsize=6.5, length=0)
    return drawn


def _strip_legend() -> list[Line2D]:
    return [
        Line2D([], [], linestyle="none", marker="o", color=INK, markersize=3, label="faulty, found"),
        Line2D([], [], linestyle="none", marker="x", color=CATEGORIES[0], markersize=4, label="faulty, missed"),
        Line2D([], [], linestyle="none", marker="s", color=CATEGORIES[2], markersize=3, label="good, dropped or moved"),
        Line2D([], [], linestyle="none", marker="|", color=ABSENT, markersize=5, label="faulty as it came"),
    ]
