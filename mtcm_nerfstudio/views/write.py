"""The files beside ``filtered_views.json``: the kept names, embeddings, suggested poses and tables."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio.decisions import Decisions, FrameDecision, write_text_atomically
from mtcm_nerfstudio.views.decision_poses import suggested_poses

KEPT = "filtered_images.txt"
EMBEDDINGS = "pose_embeddings.npy"
SUGGESTED = "suggested_poses.npy"
KEPT_POSES = "kept_poses.npy"
TABLE = "filtered_views.csv"
SUGGESTED_TABLE = "suggested_views.csv"

_COLUMNS = (
    "file_path",
    "kept",
    "reason",
    "decided_by",
    "inconsistency",
    "image",
    "pose",
    "time",
    "label",
    "words",
    "most_at_odds_with",
    "repaired",
    "blur_px",
    "relative_sharpness",
    "exposure_stops",
)

_SUGGESTED_COLUMNS = ("row", "label", "gain", "x", "y", "z", "seen_best_by")


def write_decision_exports(decisions: Decisions, folder: Path) -> None:
    """Write what follows from the decisions alone: ``filtered_images.txt``, ``suggested_poses.npy`` and the tables."""
    write_text_atomically(folder / KEPT, "".join(f"{frame.file_path}\n" for frame in decisions.kept))
    write_text_atomically(folder / TABLE, _table(_COLUMNS, [_row(frame) for frame in decisions.frames]))
    write_text_atomically(folder / SUGGESTED_TABLE, _table(_SUGGESTED_COLUMNS, _suggested_rows(decisions)))
    _save_atomically(folder / SUGGESTED, suggested_poses(decisions))


def write_embeddings(states: Float[np.ndarray, "frame 256"], folder: Path) -> None:
    """Write ``pose_embeddings.npy`` (float32), row i belonging to entry i of ``frames``; NaN where it was not read."""
    _save_atomically(folder / EMBEDDINGS, states.astype(np.float32))


def write_kept_poses(decisions: Decisions, c2w: Float[np.ndarray, "frame 4 4"], folder: Path) -> None:
    """Write ``kept_poses.npy``: camera-to-world of every kept frame in the capture's world, repaired where it was.

    Args:
        decisions: current ones.
        c2w: that training uses, NaN where there is none, one for each of ``decisions.frames``.
        folder: where the other files are.
    """
    kept = np.array([frame.kept for frame in decisions.frames], dtype=bool)
    _save_atomically(folder / KEPT_POSES, c2w[kept])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    return text.getvalue()


def _suggested_rows(decisions: Decisions) -> list[list[str]]:
    return [
        [
            str(i),
            view.label or "",
            f"{view.gain:.6f}",
            *(f"{row[3]:.9g}" for row in view.transform_matrix[:3]),
            " ".join(view.seen_best_by),
        ]
        for i, view in enumerate(decisions.suggested)
    ]


def _row(frame: FrameDecision) -> list[str]:
    scores = (frame.inconsistency, frame.modality.image, frame.modality.pose, frame.modality.time)
    return [
        frame.file_path,
        "yes" if frame.kept else "no",
        frame.reason or "",
        frame.decided_by,
        *("" if score is None else f"{score:.6f}" for score in scores),
        frame.label or "",
        frame.words or "",
        frame.most_at_odds_with or "",
        "yes" if frame.verdict == "repaired" else "no",
        *(f"{frame.evidence[name]:.3f}" if name in frame.evidence else "" for name in _COLUMNS[-3:]),
    ]


def _save_atomically(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
