"""What all pictures share: palette, fonts, and files that have the same bytes for the same input.

Figures are built from ``matplotlib.figure.Figure`` and never through pyplot, so that drawing in a training loop or in
a viewer's thread keeps no figure alive and touches no state of the program around it.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from PIL import Image

from mtcm_nerfstudio.report.verdict_style import ON_LIGHT

KEPT = ON_LIGHT["kept"]
DROPPED = ON_LIGHT["dropped"]
ABSENT = "#8C8C8C"
INK = "#333333"
GRID = "#E3E3E3"
NO_DATA = "#D9D9D9"
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's colours (Color Universal Design, 2008), told apart with any kind of colour vision.
"""

DPI = 120
_FALLBACK_FONTS = (
    "Noto Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Sans Hebrew",
    "Noto Sans Thai",
    "WenQuanYi Micro Hei",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Segoe UI",
)
_NO_GLYPH = "\N{WHITE VERTICAL RECTANGLE}"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure (inches) that arranges its axes so that no label covers another."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and return its path; the same figure gives the same bytes.

    The file holds no date and no program version. It appears under its name when it is complete, so a run that is
    stopped leaves no half a picture.

    Raises:
        ValueError: ``path`` does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: pictures are written as PNG; give a name that ends in .png")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(unfinished, format="png")
    unfinished.replace(path)
    return path


def headline(figure: Figure, text: str) -> None:
    """Put the figure's title at its upper left."""
    figure.suptitle(
        printable(text), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK, fontfamily=font_families()
    )


def explanation(axes: Axes, text: str) -> None:
    """Say over the axes, in small print, how they are read."""
    axes.set_title(printable(text), loc="left", fontsize=8.5, color=INK, fontfamily=font_families())


def plain(axes: Axes, grid: bool = True) -> None:
    """Take away the ink that carries no data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ABSENT)
    axes.tick_params(colors=INK, labelsize=8, width=0.6)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis="y", color=GRID, linewidth=0.6)


@lru_cache(maxsize=1)
def font_families() -> list[str]:
    """Return DejaVu Sans (it comes with matplotlib) and those of the known wide-coverage fonts that are installed."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]


@lru_cache(maxsize=1)
def _covered() -> frozenset[int]:
    fonts = (FT2Font(font_manager.findfont(name, fallback_to_default=False)) for name in font_families())
    return frozenset(code for font in fonts for code in font.get_charmap())


def printable(text: str) -> str:
    """Return ``text`` as matplotlib can draw it: a box for each sign that no font has, dollars not read as maths."""
    drawn = "".join(sign if sign.isprintable() and ord(sign) in _covered() else _NO_GLYPH for sign in text)
    return drawn.replace("$", r"\$")


def shortened(text: str, longest: int) -> str:
    """Cut the middle out of a text that is longer than ``longest``; names differ at their ends."""
    if len(text) <= longest:
        return text
    tail = (longest - 1) * 2 // 3
    return f"{text[: longest - 1 - tail]}…{text[-tail:]}"


def legend_outside(axes: Axes, handles: Sequence[Artist], left: float = 1.01) -> None:
    """Put a legend where it covers no data: to the right of the axes, or in empty axes (``left`` 0)."""
    if handles:
        axes.legend(
            handles=list(handles),
            loc="upper left",
            bbox_to_anchor=(left, 1.0),
            prop={"family": font_families(), "size": 8},
            frameon=False,
            borderaxespad=0.0,
            handletextpad=0.4,
            alignment="left",
            labelcolor=INK,
        )
