"""What a method says of a trial."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.detection.labelled_captures import Case, LabelledCapture

Pose = Float[np.ndarray, "4 4"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one method says of one trial."""

    scores: Float[np.ndarray, " frame"]
    """Higher is worse."""
    seconds: float
    """Features and matches already computed."""
    threshold: float | None = None
    """Where the method would drop a frame; then ``scores`` are probabilities."""
    reasons: tuple[str, ...] | None = None
    """The most likely reason of each frame, whether or not it is dropped."""
    repaired: Mapping[int, Pose] = field(default_factory=dict)
    """Frames that are kept at another pose instead of being dropped."""
    kept: Bool[np.ndarray, " frame"] | None = None
    """Frames that the verdict keeps whatever the threshold."""

    @property
    def found(self) -> Bool[np.ndarray, " frame"]:
        """Frames that are dropped or given another pose; none where there is no threshold."""
        at_odds = np.zeros(len(self.scores), dtype=bool) if self.threshold is None else self.scores >= self.threshold
        if self.kept is not None:
            at_odds &= ~self.kept
        at_odds[list(self.repaired)] = True
        return at_odds

    @property
    def dropped(self) -> Bool[np.ndarray, " frame"]:
        """Frames that go."""
        gone = self.found
        gone[list(self.repaired)] = False
        return gone


Method = Callable[[LabelledCapture], Prediction | None]
"""Judges a trial; None where it has nothing to go by."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A trial that all methods have judged."""

    case: Case
    said: dict[str, Prediction]
    signals: Float[np.ndarray, "frame 8"]
    """See ``benchmarks.detection.signals``."""
    signals_seconds: float
