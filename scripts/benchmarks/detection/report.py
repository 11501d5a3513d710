"""What a run has found: tables with their explanations, the record of every score, pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from matplotlib.figure import Figure

from benchmarks.corruptions import KINDS, REASON_OF, Kind
from benchmarks.detection import plots, quality, tables
from benchmarks.detection.figures import Figures, figures
from benchmarks.detection.forests import FORESTS, MOST_EXAMPLES
from benchmarks.detection.labelled_captures import CLEAN, MOVED_RUN, CorruptionSetting
from benchmarks.detection.methods import EMBEDDING_KNN, FUSION, INLIER_RATIO, LOGISTIC, SHARPNESS, single_baselines
from benchmarks.detection.mtcm import MTCM, PARTS, REPAIR, TOKENS_ONLY
from benchmarks.detection.prediction import Outcome
from benchmarks.detection.record import record
from benchmarks.detection.repairs import RepairFigures, repair_rows
from benchmarks.detection.tables import Rows

Table = tuple[str, str, Rows]
"""Title, explanation, rows."""

_IN_ROC = (*FORESTS, LOGISTIC, FUSION, INLIER_RATIO, EMBEDDING_KNN, SHARPNESS)


@dataclass(frozen=True, eq=False)
class Measured:
    """What a run has found."""

    facts: Mapping[str, Any]
    """What a reader must know, see ``caption``."""
    outcomes: list[Outcome]
    kinds: tuple[CorruptionSetting, ...]
    """In the order in which they are shown; the first is that of the main table."""

    @property
    def main(self) -> str:
        """The kind of the trials that the main table shows."""
        return self.kinds[0].name

    @property
    def methods(self) -> list[str]:
        """All methods, in the order in which they are shown."""
        return list(dict.fromkeys(name for outcome in self.outcomes for name in outcome.said))

    @property
    def shown(self) -> list[str]:
        """All methods but MTCM's parts, which have a table of their own."""
        return [name for name in self.methods if name not in PARTS]

    @property
    def corruptions(self) -> list[Kind]:
        """The kinds of corruption that are mixed."""
        return [kind for kind in KINDS if kind in self.kinds[0].faults]

    @cached_property
    def figures(self) -> dict[tuple[str, str], Figures]:
        """Return every method's figures on every kind of trial that it judged."""
        names = [kind.name for kind in self.kinds]
        found = {cell: figures(*cell, self.outcomes) for cell in product(self.methods, names)}
        return {cell: value for cell, value in found.items() if value is not None}

    @cached_property
    def repairs(self) -> list[RepairFigures]:
        """Return what became of wrong poses."""
        return repair_rows(REPAIR, self.outcomes)

    def record(self) -> str:
        """Return the JSON of the run."""
        return record(self.facts, self.figures.values(), self.repairs, self.outcomes)

    def markdown(self) -> str:
        """Return the whole report, the main table first."""
        text = ["# Finding faulty frames\n", caption(self.facts)]
        return "\n".join([*text, *(tables.markdown(*table) for table in self.tables())])

    def tables(self) -> list[Table]:
        """Return every table with its title and what is to be known about it."""
        mixes = [kind.name for kind in self.kinds if kind.name.startswith("mixed")]
        ranked = [(f"All kinds, {mix}", _ABOUT_RANKING, self._ranking(self.shown, mix)) for mix in mixes]
        names = [kind.name for kind in self.kinds]
        return [
            *ranked,
            ("What MTCM is made of", _ABOUT_PARTS, self._ranking([MTCM, *PARTS], self.main)),
            (
                "AUROC by kind",
                "Frames with each kind of corruption against the good frames of the same trial, the kinds mixed.",
                tables.kind_rows(self.figures, self.methods, self.main, self.corruptions),
            ),
            ("Moved runs", _ABOUT_RUNS, self._ranking(self.methods, MOVED_RUN)),
            *self._alone(),
            (
                "AUROC by capture",
                "All kinds mixed. The best single baseline is chosen for each capture, with hindsight.",
                tables.capture_rows(
                    self.outcomes, self.facts["groups"], [MTCM, *FORESTS], single_baselines(), self.main
                ),
            ),
            ("At the threshold", _ABOUT_THRESHOLD, tables.threshold_rows(self.figures, [MTCM, REPAIR], names)),
            ("Poses put right", _ABOUT_REPAIRS, tables.repair_table(self.repairs)),
        ]

    def draw_figures(self) -> dict[str, Figure]:
        """Return the pictures by name: ROC curves, calibration, and the scores with repaired poses."""
        known = set(self.methods)
        probabilities = [name for name in (MTCM, TOKENS_ONLY, LOGISTIC) if name in known]
        mixes = [kind.name for kind in self.kinds if kind.name.startswith("mixed")]
        panels = [(self.main, None), *((self.main, kind) for kind in KINDS if kind in self.corruptions)]
        curves = [MTCM, *(name for name in _IN_ROC if name in known)]
        return {
            "roc": plots.roc_by_kind(self.outcomes, curves, [*panels, (MOVED_RUN, None)]),
            "reliability": plots.reliability_diagram(self.outcomes, probabilities, mixes),
            "scores": plots.score_strips(self.outcomes, REPAIR),
        }

    def _ranking(self, methods: list[str], kind: str) -> Rows:
        return tables.ranking_rows(self.figures, methods, kind)

    def _alone(self) -> list[Table]:
        """Return the table of the trials with one kind of corruption each, where there are any."""
        alone = [kind.name for kind in self.kinds if kind.name in REASON_OF and kind.name != MOVED_RUN]
        if not alone:
            return []
        about = "AUROC where a capture has this kind of corruption only."
        return [("One kind alone", about, tables.alone_rows(self.figures, self.methods, alone))]


def caption(facts: Mapping[str, Any]) -> str:
    """Say in words what the tables show."""
    captures = ", ".join(f"{name} ({frames} frames)" for name, frames in facts["captures"].items())
    natural = ", ".join(f"{len(frames)} of {name}" for name, frames in facts["faulty_as_they_came"].items() if frames)
    seen = [name for name, about in facts["checkpoints"].items() if about["trained_on_it"]]
    models = ", ".join(facts["with_colmap_model"])
    lines = [
        f"Made by `{facts['command']}`.\n",
        f"Captures: {captures}. {facts['share']:.0%} of the frames are corrupted where nothing else is said, by "
        "scripts/benchmarks/corruptions.py, which training does not use; foreign frames come from captures of other "
        f"groups. {facts['seeds']} seeds; means over captures and seeds.",
        f"Frames that are faulty as they came ({natural or 'none'}; listed in data/captures.json) count neither as "
        "good nor as faulty, unless they were corrupted.",
        f"The checkpoints were trained on {', '.join(seen)}." if seen else "No checkpoint was trained on its captures.",
        "MTCM is a transformer, a forest and a judge of blur together; *repair* gives frames another pose and keeps "
        f"them, which counts as found. *{' and '.join(FORESTS)}* are scikit-learn's, fitted on the examples that "
        f"MTCM's forest was fitted on, of more than {MOST_EXAMPLES:,} on evenly spread ones.",
        f"*{FUSION}* is the larger rank of inlier ratio and embedding kNN; *{LOGISTIC}* a regression over eight such "
        "numbers of each frame, fitted on the trials of the other captures.",
        *([f"COLMAP's numbers: {_ABOUT_COLMAP.format(models)}"] if models else []),
        *([] if quality.HAS_CLEANVISION else ["CleanVision was not installed and is left out."]),
    ]
    return "\n".join(lines) + "\n"


_ABOUT_RANKING = (
    "AUROC: how often a faulty frame scores worse than a good one of its trial. Recall: faulty frames above one "
    "threshold for all captures that this share of all good frames exceeds. Seconds a capture, features and matches "
    "already computed."
)
_ABOUT_PARTS = (
    "The transformer and the forest alone, and a transformer that is shown no evidence; columns as above. MTCM's "
    "forest sees the evidence only, so *tokens only* has none."
)
_ABOUT_RUNS = "A run of consecutive frames moved together, nothing else; columns as above."
_ABOUT_THRESHOLD = (
    f"What MTCM's own threshold makes of the frames, the mean over trials; *{CLEAN}*: captures as they came. A frame "
    "that was given another pose counts as found."
)
_ABOUT_REPAIRS = (
    "Medians over the repaired poses, all captures and seeds; shifts as a share of the capture's spread. What else was "
    "moved: in the trials that hold such poses, and in all of them."
)
_ABOUT_COLMAP = (
    "of the model as it came, under the claimed poses, on {}; corrupted images are not matched anew in it, elsewhere "
    "there is no model."
)
