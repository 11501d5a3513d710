"""Apply manual decisions during training: a dropped frame gets weight 0 at once.

The viewer writes into the capture's decisions, and so does ``ns-mtcm-view`` or an editor; a run looks at the file now
and then. A frame of its training set that a person drops gets weight 0, and its weight back when it is kept again. What
is sampled cannot change while nerfstudio trains, so a frame that is not in the training set has to wait for the next
run.
"""

import time
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.decisions import Decisions

_SECONDS = 1.0
"""Least time from one look at the file to the next."""


class ManualDecisions:
    """Polls the decisions file for manual decisions about the training frames."""

    def __init__(self, path: Path, names: tuple[str, ...], begun_with: Decisions, weighted: bool = False) -> None:
        """Begin with what holds at the start of a run.

        Args:
            path: of the capture's decisions; they need not be there.
            names: of the training frames.
            begun_with: the decisions that the run trains by.
            weighted: whether the transformer weights frames, so that those which a person kept need a word for them.
        """
        self.path, self.names = path, names
        self._begun = begun_with.manual_decisions
        self._at_first = {name: 1.0 for name, kept in self._begun.items() if kept and weighted}
        self.overrides = torch.tensor([self._at_first.get(name, torch.nan) for name in names])
        """0 where a person dropped a training frame since, 1 where one was put back or taken off trial, or kept before
        where frames are weighted, else NaN."""
        self._known = {frame.file_path for frame in begun_with.kept}
        self._stamp: decisions_file.Stamp | None = None  # what was decided before the first step is heard, too
        self._last = 0.0

    @property
    def active(self) -> bool:
        """Whether any training frame has a manual decision."""
        return bool(self.overrides.isfinite().any())

    def poll(self) -> list[str]:
        """Look at the file, if it is time to and it has changed; returns what to tell the user."""
        now = time.monotonic()
        if now - self._last < _SECONDS:
            return []
        self._last = now
        stamp = decisions_file.stamp(self.path)
        if stamp == self._stamp or stamp is None:
            return []
        self._stamp = stamp
        try:
            decisions = decisions_file.read(self.path)
        except (OSError, ValueError) as error:
            return [f"MTCM: {error}"]
        return self._update_overrides(decisions)

    def weights(self, weight: Float[Tensor, " frame"]) -> Float[Tensor, " frame"]:
        """Return the frame weights with manual decisions applied."""
        overrides = self.overrides.to(weight)
        return torch.where(overrides.isfinite(), overrides, weight)

    def _update_overrides(self, decisions: Decisions) -> list[str]:
        told, persons, dropped = [], decisions.manual_decisions, {frame.file_path for frame in decisions.dropped}
        for row, name in enumerate(self.names):
            before, now = (
                float(self.overrides[row]),
                self._at_first.get(name, torch.nan) if name in persons else torch.nan,
            )
            if name in persons and persons[name] != self._begun.get(name):
                now = float(persons[name])
            elif name in self._begun and name not in persons and name in dropped:  # taken back
                now = 0.0
            if before == now or (before != before and now != now):
                continue
            self.overrides[row] = now
            told.append(f"MTCM: {name} {_status_text(before, now)} in this training")
        for name, kept in persons.items():
            if kept and name not in self.names and name not in self._known and not self._begun.get(name):
                self._known.add(name)
                told.append(f"MTCM: {name} is kept from the next run on: start training again to use it")
        return told


def _status_text(before: float, now: float) -> str:
    """Return the message for a changed override: 1 kept, 0 dropped, NaN none."""
    if now == 0:
        return "no longer counts"
    return "counts again" if now == 1 or before == 0 else "is for the transformer to weigh again"
