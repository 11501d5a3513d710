"""What the table says: a row for each frame, and what of it changes."""

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from mtcm_nerfstudio.viewer.session import State

_LIVE = ("weight", "residual")
_COLUMNS = (
    "file_path", "verdict", "reason", "decided_by", "inconsistency", "image", "pose", "time", "label", "words",
    "most_at_odds_with",
)  # fmt: skip


def rows(state: State) -> list[dict[str, Any]]:
    """Return all rows, in the capture's order."""
    index = {frame.file_path: i for i, frame in enumerate(state.decisions.frames)}
    return [
        {
            "name": frame.file_path,
            "inconsistency": frame.inconsistency,
            **vars(frame.modality),
            "label": frame.label or "",
            "words": frame.words or "",
            "odds": index.get(frame.most_at_odds_with or ""),
            "evidence": dict(frame.evidence),
            **_changing(state, i),
        }
        for i, frame in enumerate(state.decisions.frames)
    ]


def head(state: State) -> dict[str, Any]:
    """Return what a page is told besides the rows."""
    return {
        "selected": state.selected,
        "threshold": state.threshold,
        "decided": state.decisions.threshold,
        "suggested": len(state.decisions.suggested),
        "message": state.message,
    }


def changes(state: State, known: dict[int, Any]) -> dict[int, Any]:
    """Return what is new in each row since the last time, and take note of it in ``known``."""
    new = {}
    for i in range(len(state.decisions.frames)):
        row = _changing(state, i)
        if known.get(i) != row:
            new[i] = known[i] = row
    return new


def table_csv(state: State) -> str:
    """Return the table as CSV, at the threshold that is tried out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    live = [name for name in _LIVE if name in state.live]
    writer.writerow([*_COLUMNS, *live])
    for i, frame in enumerate(state.decisions.frames):
        row: Mapping[str, Any] = {**vars(frame), **vars(frame.modality), **_changing(state, i)}
        writer.writerow(["" if row.get(name) is None else row[name] for name in (*_COLUMNS, *live)])
    return text.getvalue()


def _changing(state: State, i: int) -> dict[str, Any]:
    frame = state.decisions.frames[i]
    live = {name: _number(float(values[i])) for name, values in state.live.items()}
    verdict = state.verdicts[i]
    reason = frame.reason or ("" if verdict != "dropped" else "inconsistent")
    return {"verdict": verdict, "reason": reason, "decided_by": frame.decided_by, **live}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
