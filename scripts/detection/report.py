"""What a run says: tables with their explanations, the record of every score, pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from matplotlib.figure import Figure

from detection import plots, quality, tables
from detection.figures import Figures, figures
from detection.judgement import Outcome
from detection.methods import LOGISTIC, is_single
from detection.mtcm import REPAIR, TOKENS_ONLY
from detection.record import record
from detection.repairs import RepairFigures, repair_rows

_IN_ROC = ("glued", LOGISTIC, "epipolar share", "embedding kNN", "Laplacian variance")


@dataclass(frozen=True, eq=False)
class Measured:
    """What a run has found."""

    facts: Mapping[str, Any]
    """What a reader must know, see ``caption``."""
    outcomes: list[Outcome]
    mtcm: tuple[str, ...]
    """Names of MTCM's variants."""
    kinds: tuple[str, ...]
    """Kinds of trials, in the order in which they are shown."""
    all_kinds: str
    """The kind of the trials that tell how well methods do over all kinds of faults together."""

    @property
    def methods(self) -> list[str]:
        """All methods, in the order in which they are shown."""
        return list(dict.fromkeys(name for outcome in self.outcomes for name in outcome.said))

    @cached_property
    def figures(self) -> dict[tuple[str, str], Figures]:
        """Return every method's figures on every kind of trial that it judged."""
        found = {cell: figures(*cell, self.outcomes) for cell in product(self.methods, self.kinds)}
        return {cell: value for cell, value in found.items() if value is not None}

    @cached_property
    def repairs(self) -> dict[str, list[RepairFigures]]:
        """Return what became of wrong poses, by variant that repairs."""
        return {name: repair_rows(name, self.outcomes) for name in self.mtcm if name.endswith(REPAIR)}

    def record(self) -> str:
        """Return the JSON of the run."""
        return record(self.facts, self.figures.values(), self.repairs, self.outcomes)

    def markdown(self) -> str:
        """Return the whole report, the summary first."""
        text = ["# Finding faulty frames\n", caption(self.facts)]
        return "\n".join([*text, *(tables.markdown(*table) for table in self.tables())])

    def tables(self) -> list[tuple[str, str, tables.Rows]]:
        """Return every table with its title and what is to be known about it."""
        singles = [name for name in self.methods if is_single(name, self.mtcm)]
        found = [
            (
                "All kinds together",
                "AUROC: how often a faulty frame scores worse than a good one. AP: average precision. Recall: faulty "
                "frames found at the method's own threshold. Seconds a capture, features and matches already computed.",
                tables.summary_rows(self.figures, self.methods, self.all_kinds),
            ),
            (
                "AUROC by kind",
                "0.5 is chance. Images are spoiled in all degrees where no size is given.",
                tables.kind_rows(self.figures, self.methods, self.kinds),
            ),
            (
                "AUROC by capture",
                "All kinds together.",
                tables.capture_rows(self.outcomes, self.mtcm, singles, self.all_kinds),
            ),
            ("At the threshold", "By kind.", tables.threshold_rows(self.figures, self.methods, self.kinds)),
        ]
        explained = (
            "Medians over the repaired poses, all captures and seeds; shifts as a share of the scene's spread. *all* "
            "leaves out far poses, whose frames a rule drops while they are few."
        )
        repairs = [(f"Poses put right by {name}", explained, rows) for name, rows in self.repairs.items()]
        return [*found, *((title, text, tables.repair_table(rows)) for title, text, rows in repairs)]

    def pictures(self) -> dict[str, Figure]:
        """Return the pictures by name: ROC curves and calibration of the first checkpoint, scores of its repair."""
        tokens, main, repaired = self.mtcm[:3]
        assert tokens.endswith(TOKENS_ONLY) and repaired.endswith(REPAIR), "each checkpoint makes these three"
        mixes = [kind for kind in self.kinds if kind.startswith("mixed")]
        of_probability = [main, tokens, *(name for name in (LOGISTIC,) if name in self.methods)]
        in_roc = [main, tokens, *(name for name in _IN_ROC if name in self.methods)]
        return {
            "roc": plots.roc_by_kind(self.outcomes, in_roc),
            "reliability": plots.reliability_diagram(self.outcomes, of_probability, mixes),
            "scores": plots.score_strips(self.outcomes, repaired),
        }


def caption(facts: Mapping[str, Any]) -> str:
    """Say in words what the tables show."""
    captures = ", ".join(f"{name} ({frames} frames)" for name, frames in facts["captures"].items())
    natural = ", ".join(f"{len(frames)} of {name}" for name, frames in facts["faulty_as_they_came"].items() if frames)
    seen = {
        method: [name for name, about in per_capture.items() if about["trained_on_it"]]
        for method, per_capture in facts["checkpoints"].items()
    }
    models = ", ".join(facts["with_colmap_model"])
    lines = [
        f"Made by `{facts['command']}`.\n",
        f"Captures: {captures}. {facts['share']:.0%} of the frames faulty where nothing else is said, "
        f"{facts['seeds']} seeds; means over captures and seeds.",
        f"Frames that are faulty as they came ({natural or 'none'}; see natural_faults.json) count neither as good nor "
        "as faulty, unless a fault was put into them.",
        *(f"{method} was trained on {', '.join(names) or 'none of them'}." for method, names in seen.items()),
        "MTCM reads the evidence of matches; *tokens only* leaves it out; *repair* gives frames another pose and keeps "
        "them, which counts as found.",
        "*glued* is the larger rank of epipolar share and embedding kNN; *logistic* a regression over eight such "
        "numbers of each frame, fitted on the trials of the other captures.",
        *([f"COLMAP's numbers: {_ABOUT_COLMAP.format(models)}"] if models else []),
        *([] if quality.HAS_CLEANVISION else ["CleanVision was not installed and is left out."]),
    ]
    return "\n".join(lines) + "\n"


_ABOUT_COLMAP = (
    "of the model as it came, under the claimed poses, on {}; spoiled images are not matched anew in it, elsewhere "
    "there is no model."
)
