"""Tables and pictures of what every remedy is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student

from benchmarks.detection.tables import markdown
from benchmarks.nerf.methods import AGAINST_SHARE, ALL, CLEAN, ORACLE
from mtcm_nerfstudio.report.plot_style import CATEGORIES, DROPPED, INK, KEPT, new_figure, plain


@dataclass(frozen=True)
class Row:
    """One NeRF."""

    capture: str
    seed: int
    share: float
    """Of the training frames that got a fault."""
    method: str
    spoiled: list[str]
    dropped: list[str]
    repaired: list[str]
    psnr: float
    ssim: float
    curve: dict[str, float]
    of_images: dict[str, float]
    seconds_per_step: float
    train_frames: int
    weights: dict[str, float] = field(default_factory=dict)


def report(about: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return everything as Markdown."""
    captures, methods = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("capture", "method"))
    settings = about["settings"]
    explained = (
        f"Evaluation frames as they came, never spoiled. {settings['share']:.0%} of the training frames faulty "
        f"({settings['faults']}), {settings['seeds']} draws of faults a capture; mean ± standard error over captures "
        "and draws. *Recovered*: (method − all frames) / (oracle drop − all frames), of the means. *Δ*: difference to "
        "all frames, pair by pair, with the 95 % interval of its mean (Student's t)."
    )
    table = [["method", "PSNR", "SSIM", "Δ to all frames", "recovered", *captures]]
    for method in methods:
        own = [row for row in rows if row.method == method]
        per_capture = [_mean([row.psnr for row in own if row.capture == capture]) for capture in captures]
        table.append(
            [
                method,
                _with_error([row.psnr for row in own]),
                f"{_mean([row.ssim for row in own]):.3f}",
                _paired(rows, method, ALL),
                _recovered(rows, method),
                *(f"{value:.2f}" for value in per_capture),
            ]
        )
    head = (
        f"# What faulty frames cost a NeRF, and what remedies give back\n\nMade by `{about['command']}`: the tiny "
        f"nerfacto, {settings['steps']} steps of {settings['rays']} rays, images at a longer side of "
        f"{settings['longest_side']} px. LPIPS is absent: its weights cannot be had without internet.\n"
    )
    return "\n".join([head, markdown("Methods", explained, table)])


def draw_figures(rows: Sequence[Row], joint: str, share: float) -> dict[str, Figure]:
    """Return learning curves, what joint training made of every frame, and what other shares of faults come to."""
    found = {"shares": _against_share(rows)} if len({row.share for row in rows}) > 1 else {}
    rows = [row for row in rows if row.share == share]
    found["curves"] = _curves(rows)
    if any(row.weights for row in rows if row.method == joint):
        found["weights"] = _weights([row for row in rows if row.method == joint])
    return found


def differences(rows: Sequence[Row], method: str, other: str) -> list[float]:
    """Return the differences in PSNR of two methods, one for each capture and draw that both were tried on."""
    of = {(row.capture, row.seed): row.psnr for row in rows if row.method == other}
    return [
        row.psnr - of[row.capture, row.seed] for row in rows if row.method == method and (row.capture, row.seed) in of
    ]


def _paired(rows: Sequence[Row], method: str, other: str) -> str:
    found = np.array(differences(rows, method, other))
    if not len(found):
        return "–"
    if len(found) < 2:
        return f"{found[0]:+.2f}"
    half = student.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found))
    return f"{found.mean():+.2f} ± {half:.2f}"


def _recovered(rows: Sequence[Row], method: str) -> str:
    gained, possible = (_mean(differences(rows, one, ALL)) for one in (method, ORACLE))
    return f"{gained / possible:.2f}" if possible > 0 and not np.isnan(gained) else "–"


def _with_error(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.2f}"


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _curves(rows: Sequence[Row]) -> Figure:
    captures = list(dict.fromkeys(row.capture for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    figure = new_figure(3.4 * len(captures) + 2.2, 3.2)
    panels = figure.subplots(1, len(captures), squeeze=False)[0]
    for panel, capture in zip(panels, captures, strict=True):
        for i, method in enumerate(methods):
            curves = [row.curve for row in rows if row.capture == capture and row.method == method]
            steps = sorted({int(step) for curve in curves for step in curve})
            means = [_mean([curve[str(step)] for curve in curves if str(step) in curve]) for step in steps]
            bound = method in (CLEAN, ORACLE)  # what the others are measured by
            colour = INK if bound else CATEGORIES[i % len(CATEGORIES)]
            again = "-" if i < len(CATEGORIES) else "-."  # a colour that comes round again looks otherwise
            line = {CLEAN: "--", ORACLE: ":"}.get(method, again)
            panel.plot(steps, means, line, color=colour, linewidth=1.3, label=method)
        panel.set_xlabel("step")
        panel.set_title(capture, fontsize=9)
        plain(panel)
    panels[0].set_ylabel("PSNR of evaluation rays, dB")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=7)
    return figure


def _against_share(rows: Sequence[Row]) -> Figure:
    """Draw the mean PSNR of methods against the share of faulty frames, of draws that were tried at all of them."""
    captures = list(dict.fromkeys(row.capture for row in rows))
    all_shares = {row.share for row in rows}
    figure = new_figure(2.9 * len(captures) + 1.8, 2.9)
    panels = figure.subplots(1, len(captures), squeeze=False, sharex=True)[0]
    for panel, capture in zip(panels, captures, strict=True):
        of_capture = [row for row in rows if row.capture == capture]
        everywhere = set.intersection(*({row.seed for row in of_capture if row.share == at} for at in all_shares))
        for i, method in enumerate(AGAINST_SHARE):
            own = [row for row in of_capture if row.method == method and row.seed in everywhere]
            shares = sorted({row.share for row in own})
            means = [_mean([row.psnr for row in own if row.share == share]) for share in shares]
            line = {CLEAN: "--", ORACLE: ":"}.get(method, "-")
            colour = INK if method in (CLEAN, ORACLE) else (DROPPED if method == ALL else CATEGORIES[i % 3])
            panel.plot([100 * share for share in shares], means, line, marker="o", markersize=3, color=colour,
                       linewidth=1.3, label=method)  # fmt: skip
        panel.set_xlabel("faulty training frames, %")
        panel.set_title(capture, fontsize=9)
        plain(panel)
    panels[0].set_ylabel("PSNR, dB")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=7)
    return figure


def _weights(rows: Sequence[Row]) -> Figure:
    """Draw a strip of all frames' weights at the end for each capture and draw, faulty frames marked."""
    figure = new_figure(7.0, 0.45 * len(rows) + 1.0)
    panel = figure.subplots()
    for y, row in enumerate(rows):
        for name, weight in row.weights.items():
            faulty = name in row.spoiled and name not in row.repaired
            panel.plot(weight, y, "x" if faulty else "|", color=DROPPED if faulty else KEPT, markersize=6)
    panel.set_yticks(range(len(rows)), [f"{row.capture}, draw {row.seed}" for row in rows])
    panel.set_xlabel("weight at the end (× faulty and not repaired, | the others)")
    plain(panel)
    return figure
