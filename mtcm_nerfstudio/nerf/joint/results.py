"""What joint fine-tuning leaves behind in the run's folder: verdicts, refined poses, embeddings, a table of losses."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.consistency.score import MODEL_REASONS
from mtcm_nerfstudio.decisions import Decisions, FrameDecision, Matrix, write_text_atomically
from mtcm_nerfstudio.views.write import write_embeddings

JOINT_VIEWS = "joint_views.json"
FRAME_LOSSES = "frame_losses.csv"
_HEADER = (
    "file_path", "weight", "loss", "last_loss", "times_seen", "turned_degrees", "shifted", "prior_weight", "explained",
)  # fmt: skip
_MOVED_DEGREES, _MOVED = 0.05, 0.002
"""A pose that turned by less, and shifted by a smaller share of the scene's unit, is the one that it was."""


@dataclass(frozen=True, eq=False)
class JointResult:
    """What is known of every training frame at the end; row i of every array belongs to frame i."""

    names: tuple[str, ...]
    weight: Float[np.ndarray, " frame"]
    """Probability that the frame belongs to the scene, after looking at the NeRF."""
    prior: Float[np.ndarray, " frame"]
    """The same before."""
    reasons: Float[np.ndarray, "frame 5"]
    """How likely each reason is (logits), if it does not."""
    loss: Float[np.ndarray, " frame"]
    """Moving average; NaN for a frame that was never seen."""
    last_loss: Float[np.ndarray, " frame"]
    times_seen: Float[np.ndarray, " frame"]
    turned_degrees: Float[np.ndarray, " frame"]
    shifted: Float[np.ndarray, " frame"]
    """In the scene's unit."""
    c2w: Float[np.ndarray, "frame 4 4"]
    """Refined OpenGL camera-to-world matrices in the capture's world."""
    states: Float[np.ndarray, "frame 256"]

    @property
    def explained(self) -> np.ndarray:
        """Which frames the NeRF can explain."""
        return self.weight >= 0.5


def joint_decisions(decisions: Decisions, result: JointResult, refined: bool) -> Decisions:
    """Return the decisions with the joint verdicts of the training frames.

    A frame that it cannot explain is dropped, one that it can is kept, whatever the filter said; a person's word
    stands.

    Args:
        decisions: those that the run began with.
        result: of the run.
        refined: whether kept frames get their refined poses.
    """
    row_of = {name: row for row, name in enumerate(result.names)}

    def with_joint_verdict(frame: FrameDecision) -> FrameDecision:
        row = row_of.get(frame.file_path)
        if row is None or frame.decided_by == "person":
            return frame
        inconsistency = float(1.0 - result.weight[row])
        if not result.explained[row]:
            reason = frame.reason or MODEL_REASONS[int(result.reasons[row].argmax())]
            return replace(frame, kept=False, reason=reason, inconsistency=inconsistency, spared=False)
        pose = frame.repaired_transform_matrix
        if refined and (result.turned_degrees[row] > _MOVED_DEGREES or result.shifted[row] > _MOVED):
            pose = _matrix(result.c2w[row])
        reason = "pose" if pose is not None else None
        said = replace(frame, kept=True, reason=reason, inconsistency=inconsistency, spared=False)
        return replace(said, repaired_transform_matrix=pose)

    return replace(decisions, frames=tuple(map(with_joint_verdict, decisions.frames)))


def write_result(folder: Path, decisions: Decisions, result: JointResult) -> list[str]:
    """Write everything into a run's folder and return what to tell the user, a line each.

    The run's own ``filtered_views.json`` gets the joint verdicts and keeps the poses that the run began with, from
    which its corrections count; ``joint_views.json`` holds the refined ones.
    """
    verdicts = joint_decisions(decisions, result, refined=False)
    decisions_file.write(verdicts, folder / decisions_file.FILE_NAME)
    decisions_file.write(joint_decisions(decisions, result, refined=True), folder / JOINT_VIEWS)
    write_text_atomically(folder / FRAME_LOSSES, loss_table(result))
    write_embeddings(_rows_of(decisions, result), folder)
    return list(verdict_changes(decisions, verdicts))


def loss_table(result: JointResult) -> str:
    """Return the CSV of every frame's training loss, the worst first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for i in np.argsort(-np.nan_to_num(result.loss, nan=-1.0), kind="stable"):
        numbers = (result.weight, result.loss, result.last_loss)
        after = (result.turned_degrees, result.shifted, result.prior)
        writer.writerow(
            [
                result.names[i],
                *(_number(values[i]) for values in numbers),
                int(result.times_seen[i]),
                *(_number(values[i]) for values in after),
                "yes" if result.explained[i] else "no",
            ]
        )
    return text.getvalue()


def verdict_changes(before: Decisions, after: Decisions) -> Sequence[str]:
    """Return messages that name the frames whose verdict joint fine-tuning has changed."""
    was = {frame.file_path: frame.kept for frame in before.frames}
    gone = [frame.file_path for frame in after.dropped if was[frame.file_path]]
    back = [frame.file_path for frame in after.kept if not was[frame.file_path]]
    lines = []
    if gone:
        lines.append(f"MTCM: kept by the filter, not explained by the NeRF: {', '.join(gone)}")
    if back:
        lines.append(f"MTCM: dropped by the filter, explained by the NeRF after all: {', '.join(back)}")
    return lines or ["MTCM: the NeRF agrees with the filter about every training frame"]


def metrics_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return a CSV of the metrics of evaluation images, by file name."""
    columns = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *columns])
    for image, metrics in rows.items():
        writer.writerow([image, *(_number(metrics[name]) if name in metrics else "" for name in columns)])
    return text.getvalue()


def _rows_of(decisions: Decisions, result: JointResult) -> Float[np.ndarray, "frame 256"]:
    row_of = {name: row for row, name in enumerate(result.names)}
    out = np.full((len(decisions.frames), result.states.shape[1]), np.nan)
    for i, frame in enumerate(decisions.frames):
        if frame.file_path in row_of:
            out[i] = result.states[row_of[frame.file_path]]
    return out


def _matrix(pose: Float[np.ndarray, "4 4"]) -> Matrix:
    return tuple(tuple(float(value) for value in row) for row in pose)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
