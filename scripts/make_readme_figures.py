"""Brings what the README shows up to date with the shipped checkpoint: the picture of the sample, with every frame's
score and what was made of the frames with known faults, and the tables that it takes from data/results/.

Usage:
    python scripts/make_readme_figures.py                         the sample in data/, and the tables
    python scripts/make_readme_figures.py --capture DIR --out picture.png --no-tables    a picture of another capture
"""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mtcm_nerfstudio.capture.images import read_rgb
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decision_files import current_decisions
from mtcm_nerfstudio.decisions import Decisions, FrameDecision
from mtcm_nerfstudio.report.frame_axis import inconsistency_panel, name_frames, verdict_legend
from mtcm_nerfstudio.report.plot_style import DROPPED, INK, KEPT, headline, new_figure, save_figure

_IN_WORDS = {"swap": "another frame's pose", "foreign": "from another scene", "exposure": "badly exposed"}
_REPOSITORY = Path(__file__).resolve().parents[1]
_DATA = _REPOSITORY / "data"
_TABLE = re.compile(r"<!-- from (data/results/\w+\.md)(?:: (.+?))? -->\n.*?<!-- end -->", flags=re.DOTALL)


@dataclass(frozen=True)
class Figures:
    """Filter a capture whose faults are known, draw what came of it, and copy the table of results."""

    capture: Path = _DATA / "sample"
    """A capture with a faults.json."""
    out: Path = _DATA / "results" / "sample_verdicts.png"
    """Where the picture goes."""
    tables: bool = True
    """Copy the tables of the results that the README names into it."""

    def run(self) -> None:
        """Filter into a temporary folder, write the picture and refresh the table."""
        truth = {fault["file_path"]: fault["kind"] for fault in json.loads(self._faults.read_text())["faults"]}
        with tempfile.TemporaryDirectory() as folder:
            decisions = current_decisions(self.capture, output_dir=Path(folder)).decisions
        save_figure(draw(self.capture, decisions, truth), self.out)
        with Image.open(self.out) as drawn:
            drawn.quantize(256).save(self.out)  # a third of the size, and no difference to be seen
        print(self.out)
        if self.tables:
            readme = _REPOSITORY / "README.md"
            readme.write_text(with_tables(readme.read_text("utf-8"), _REPOSITORY), "utf-8")
            print(readme)

    @property
    def _faults(self) -> Path:
        return self.capture / "faults.json"


def with_tables(readme: str, repository: Path) -> str:
    """Put tables between the marks that name them: a result's first one, or the first below a heading of it."""

    def filled(marks: re.Match[str]) -> str:
        source = marks[1] if marks[2] is None else f"{marks[1]}: {marks[2]}"
        text = (repository / marks[1]).read_text("utf-8") + "\n"
        *_, below = ("", "", text) if marks[2] is None else text.partition(f"## {marks[2]}\n")
        table = re.search(r"(?:^\|.*\n)+", below, flags=re.MULTILINE)
        if table is None:
            raise ValueError(f"{source}: no such table for README.md")
        return f"<!-- from {source} -->\n\n{table[0]}\n<!-- end -->"

    return _TABLE.sub(filled, readme)


def draw(capture: Path, decisions: Decisions, truth: dict[str, str]) -> Figure:
    """Draw the scores of all frames above the frames with a known fault (``truth``: its kind by file path)."""
    figure = new_figure(11.0, 4.8)
    rows = figure.add_gridspec(2, len(truth), height_ratios=[1.25, 1.0])
    draw_scores(figure.add_subplot(rows[0, :]), decisions)
    for column, (file_path, kind) in enumerate(truth.items()):
        show(figure.add_subplot(rows[1, column]), capture, decisions.by_file_path()[file_path], kind)
    headline(figure, "The sample: every frame's score, and the frames with a known fault")
    return figure


def draw_scores(axes: Axes, decisions: Decisions) -> None:
    """Draw every frame's inconsistency in temporal order, and the threshold."""
    inconsistency = np.array([frame.inconsistency for frame in decisions.frames])
    kept = np.array([frame.kept for frame in decisions.frames])
    inconsistency_panel(axes, inconsistency, kept)
    axes.axhline(decisions.threshold, color=INK, linewidth=0.8, linestyle="--")
    where = axes.get_yaxis_transform()
    says = "dropped or\nrepaired from\nhere up"
    axes.text(1.012, decisions.threshold, says, transform=where, fontsize=8, va="center", color=INK)
    name_frames(axes, [frame.file_path for frame in decisions.frames], 9.5, kept)
    verdict_legend(axes, kept)
    axes.set_xlim(-0.5, len(kept) - 0.5)


def show(axes: Axes, capture: Path, frame: FrameDecision, kind: str) -> None:
    """Show one frame with its fault above it and the verdict below, in the colour of the verdict."""
    colour = KEPT if frame.kept else DROPPED
    axes.imshow(np.asarray(read_rgb(capture / frame.file_path)))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)
    axes.set_title(
        f"{Path(frame.file_path).stem}\n{_IN_WORDS.get(kind, kind.replace('_', ' '))}", fontsize=8, color=INK
    )
    verdict = {"kept": "kept", "repaired": "pose repaired", "dropped": f"dropped: {frame.reason}"}[frame.verdict]
    axes.set_xlabel(f"{verdict}\n{frame.inconsistency:.2f}", fontsize=8, color=colour)


def entrypoint() -> None:
    """Run the command line."""
    with clear_errors():
        tyro.cli(Figures, description=__doc__).run()


if __name__ == "__main__":
    entrypoint()
