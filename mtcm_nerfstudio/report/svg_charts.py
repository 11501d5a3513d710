"""Drawings of the page, as SVG that takes its colours from the page's style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float

_WIDTH, _HEIGHT = 520.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 10.0, 38.0
_BINS = 25
_MARK = {
    "kept": '<circle class="kept" cx="{x:.1f}" cy="{y:.1f}" r="4.2">{tip}</circle>',
    "repaired": '<rect class="repaired" x="{a:.1f}" y="{b:.1f}" width="8" height="8">{tip}</rect>',
    "dropped": '<path class="dropped" d="M{a:.1f} {b:.1f}l8 8m0-8l-8 8">{tip}</path>',
    "suggested": '<path class="suggested" d="M{x:.1f} {b:.1f}l4.8 8.2h-9.6z">{tip}</path>',
}


@dataclass(frozen=True, eq=False)
class Scatter:
    """Cameras as marks in a plane."""

    title: str
    x_label: str
    y_label: str
    x: Float[np.ndarray, " n"]
    """NaN where a camera has no place."""
    y: Float[np.ndarray, " n"]
    verdicts: tuple[str, ...]
    """"kept", "repaired", "dropped" or "suggested"."""
    names: tuple[str, ...]
    links: tuple[str | None, ...]
    """Where in the page each mark leads."""
    equal: bool = False
    """Whether a unit is as long across as it is upwards."""


def scatter_svg(scatter: Scatter) -> str:
    """Draw cameras; kept ones first, so that they cover none of the others."""
    there = np.isfinite(scatter.x) & np.isfinite(scatter.y)
    if not there.any():
        return ""
    (left, right), (low, high) = _limits(scatter.x[there]), _limits(scatter.y[there])
    if scatter.equal:
        left, right, low, high = _widened(left, right, low, high)
    x = _LEFT + (scatter.x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
    y = _HEIGHT - _BOTTOM - (scatter.y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
    parts = [_axes(left, right, low, high, scatter.x_label, scatter.y_label)]
    for verdict, mark in _MARK.items():
        for i in np.flatnonzero(there):
            if scatter.verdicts[i] == verdict:
                tip = f"<title>{escape(scatter.names[i])}</title>"
                drawn = mark.format(x=x[i], y=y[i], a=x[i] - 4, b=y[i] - 4, tip=tip)
                link = scatter.links[i]
                parts.append(f'<a href="#{link}">{drawn}</a>' if link else drawn)
    return _svg(scatter.title, parts)


def histogram_svg(inconsistency: Float[np.ndarray, " n"], threshold: float) -> str:
    """Draw how many frames have which inconsistency, and where the threshold lies; heights as logarithms."""
    counts, edges = np.histogram(inconsistency, _BINS, (0.0, 1.0))
    top = float(np.log1p(counts.max()))
    width, height = (_WIDTH - _LEFT - _RIGHT) / _BINS, _HEIGHT - _TOP - _BOTTOM
    parts = [_axes(0.0, 1.0, None, None, "inconsistency", "frames")]
    for count, edge in zip(counts.tolist(), edges.tolist(), strict=False):
        if count:
            tall = height * float(np.log1p(count)) / top * 0.92
            side = "dropped-bar" if edge >= threshold else "kept-bar"
            x, y = _LEFT + edge * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - tall
            parts.append(
                f'<rect class="{side}" x="{x + 1:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{tall:.1f}"/>'
            )
            parts.append(f'<text class="count" x="{x + width / 2:.1f}" y="{y - 4:.1f}">{count}</text>')
    at = _LEFT + threshold * (_WIDTH - _LEFT - _RIGHT)
    parts.append(f'<path class="threshold" d="M{at:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
    anchor, offset = ("end", -5) if threshold > 0.8 else ("start", 5)
    parts.append(
        f'<text class="tick" style="text-anchor:{anchor}" x="{at + offset:.1f}" y="{_TOP + 10}">'
        f"threshold {threshold:.2f}</text>"
    )
    return _svg("Inconsistency of all frames", parts)


def _svg(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )


def _axes(left: float, right: float, low: float | None, high: float | None, x_label: str, y_label: str) -> str:
    bottom = _HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}"/>']
    for value in _ticks(left, right):
        x = _LEFT + (value - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15}">{value:g}</text>')
    if low is not None and high is not None:
        for value in _ticks(low, high):
            y = bottom - (value - low) / (high - low) * (bottom - _TOP)
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
            parts.append(f'<text class="tick up" x="{_LEFT - 6}" y="{y + 4:.1f}">{value:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="label" x="{middle:.1f}" y="{_HEIGHT - 6}">{escape(x_label)}</text>')
    parts.append(
        f'<text class="label" transform="translate(12 {(_TOP + bottom) / 2:.1f}) rotate(-90)">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _limits(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    spare = 0.06 * (high - low) or 0.5 * max(abs(high), 1.0) * 0.1
    return low - spare, high + spare


def _widened(left: float, right: float, low: float, high: float) -> tuple[float, float, float, float]:
    """Widen the limits until a unit has one length both ways."""
    across, upwards = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    unit = max((right - left) / across, (high - low) / upwards)
    more_x, more_y = unit * across - (right - left), unit * upwards - (high - low)
    return left - more_x / 2, right + more_x / 2, low - more_y / 2, high + more_y / 2


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers within limits."""
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(float(m * power) for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = int(np.ceil(low / step - 1e-9))
    return [round(k * step, 10) for k in range(first, int(np.floor(high / step + 1e-9)) + 1)]
