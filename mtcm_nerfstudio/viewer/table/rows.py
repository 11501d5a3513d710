"""What the table says: a row for each frame, and what of it changes."""

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from mtcm_nerfstudio.viewer.session import State, reason_shown

_IMAGE_QUALITY = ("blur_px", "relative_sharpness", "exposure_stops")
"""Evidence that has columns of its own."""
_LIVE = ("weight", "residual", "last", "seen")
_COLUMNS = (
    "file_path", "verdict", "reason", "decided_by", "inconsistency", "image", "pose", "time", "label", "words",
    "most_at_odds_with", "blur_px", "relative_sharpness", "exposure_stops",
)  # fmt: skip


def head(state: State) -> dict[str, Any]:
    """Return what a page is told besides the rows."""
    return {
        "selected": state.selected,
        "marked": list(state.marked),
        "threshold": state.threshold,
        "decided": state.decisions.threshold,
        "suggested": len(state.decisions.suggested),
        "message": state.message,
    }


def changes(state: State, known: dict[int, Any]) -> dict[int, dict[str, Any]]:
    """Return the rows that are others than the last time, by the frame's index, and take note in ``known``."""
    index = {frame.file_path: i for i, frame in enumerate(state.decisions.frames)}
    new = {}
    for i, frame in enumerate(state.decisions.frames):
        shown = (frame, state.verdicts[i], _live(state, i))
        if known.get(i) != shown:
            known[i] = shown
            new[i] = {
                "name": frame.file_path,
                "label": frame.label or "",
                "words": frame.words or "",
                "odds": index.get(frame.most_at_odds_with or ""),
                "evidence": dict(frame.evidence),
                **_numbers_and_verdict(state, i),
            }
    return new


def table_csv(state: State) -> str:
    """Return the table as CSV, at the threshold that is tried out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    live = [name for name in _LIVE if name in state.live]
    writer.writerow([*_COLUMNS, *live])
    for i, frame in enumerate(state.decisions.frames):
        row: Mapping[str, Any] = {**vars(frame), **_numbers_and_verdict(state, i)}
        writer.writerow(["" if row.get(name) is None else row[name] for name in (*_COLUMNS, *live)])
    return text.getvalue()


def _numbers_and_verdict(state: State, i: int) -> dict[str, Any]:
    frame, verdict = state.decisions.frames[i], state.verdicts[i]
    return {
        "verdict": verdict,
        "reason": reason_shown(frame, verdict),
        "decided_by": frame.decided_by,
        "inconsistency": frame.inconsistency,
        **vars(frame.modality),
        **{name: frame.evidence.get(name) for name in _IMAGE_QUALITY},
        **_live(state, i),
    }


def _live(state: State, i: int) -> dict[str, float | None]:
    values = {name: float(values[i]) for name, values in state.live.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
