"""Colours of frames that people who see colours differently can tell apart.

Verdicts look as everywhere (``report/verdict_style.py``), and have a shape of their own besides; numbers go from dark
blue to yellow (cividis: Nuñez, Anderton and Renslow, 2018).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio.report.verdict_style import ON_DARK
from mtcm_nerfstudio.viewer.session import State

Rgb = tuple[int, int, int]
ColourBy = Literal["verdict", "inconsistency", "time", "label", "weight", "residual"]

VERDICTS: dict[str, Rgb] = {name: (int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for name, c in ON_DARK.items()}
CHOSEN: Rgb = (204, 121, 167)
"""Of the frame looked at."""
UNKNOWN: Rgb = (140, 140, 140)

_SHADES = 12
"""Steps between the least and the most: frames of one step are drawn together."""
_CIVIDIS: tuple[Rgb, ...] = (
    (0, 34, 78), (0, 50, 110), (43, 68, 108), (71, 86, 108), (94, 104, 112), (115, 122, 119),
    (137, 140, 120), (160, 159, 116), (184, 179, 107), (209, 200, 93), (233, 221, 74), (254, 232, 56),
)  # fmt: skip
_KINDS: tuple[Rgb, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (153, 153, 153),
)  # fmt: skip


def colours_of(state: State, by: ColourBy) -> tuple[Rgb, ...]:
    """Return every frame's colour."""
    frames = state.decisions.frames
    if by == "verdict":
        return tuple(VERDICTS[verdict] for verdict in state.verdicts)
    if by == "label":
        return kinds_of([(frame.label or "").split(",")[0] for frame in frames])
    if by == "time":
        return shades_of(np.arange(len(frames), dtype=np.float64))
    if by == "inconsistency":
        return shades_of(np.array([frame.inconsistency for frame in frames]), 0.0, 1.0)
    values = state.live.get(by)
    if values is None:
        return (UNKNOWN,) * len(frames)
    return shades_of(values, 0.0, 1.0) if by == "weight" else shades_of(values)


def shades_of(
    values: Float[np.ndarray, " n"], least: float | None = None, most: float | None = None
) -> tuple[Rgb, ...]:
    """Return a shade for each number, between the given ends or their own; grey for NaN."""
    known = values[np.isfinite(values)]
    if not len(known):
        return (UNKNOWN,) * len(values)
    low = float(known.min()) if least is None else least
    high = float(known.max()) if most is None else most
    share = np.nan_to_num((values - low) / max(high - low, 1e-12))
    steps = np.clip((share * _SHADES).astype(int), 0, _SHADES - 1).tolist()
    return tuple(_CIVIDIS[s] if np.isfinite(v) else UNKNOWN for s, v in zip(steps, values, strict=True))


def kinds_of(labels: Sequence[str]) -> tuple[Rgb, ...]:
    """Return a colour for each word, in alphabetic order; the empty word is grey."""
    order = {label: i for i, label in enumerate(sorted({label for label in labels if label}))}
    return tuple(_KINDS[order[label] % len(_KINDS)] if label else UNKNOWN for label in labels)
