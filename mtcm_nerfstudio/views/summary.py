"""What was decided, in a few lines for a terminal."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.decisions import UNUSABLE, Decisions, FrameDecision
from mtcm_nerfstudio.geometry.bearings import CAMERA_MODELS, has_bearings
from mtcm_nerfstudio.views.coverage import coverage_gaps
from mtcm_nerfstudio.views.decision_poses import has_plausible_pose, used_poses


def summary_lines(name: str, decisions: Decisions, notes: Sequence[str] = (), reused: bool = False) -> list[str]:
    """Return the summary of a capture's decisions: counts, a line for each frame dropped or repaired, and notes.

    Args:
        name: the capture's.
        decisions: what was decided.
        notes: what a person should know about them, one sentence each.
        reused: whether they were made earlier.
    """
    reasons = Counter(frame.reason for frame in decisions.dropped).most_common()
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons)
    dropped = f"dropped {len(decisions.dropped)} ({counted})" if counted else "dropped none"
    repaired = f", repaired {len(decisions.repaired)}" if decisions.repaired else ""
    earlier = " (decided earlier)" if reused else ""
    return [
        f"MTCM: {name}: kept {len(decisions.kept)} of {len(decisions.frames)} frames, {dropped}{repaired}{earlier}",
        *(_line("dropped", frame) for frame in decisions.dropped),
        *(_line("repaired", frame) for frame in decisions.repaired),
        *(f"  note: {note}" for note in notes),
    ]


def _line(done: str, frame: FrameDecision) -> str:
    grounds = f"inconsistency {frame.inconsistency:.2f}" if frame.decided_by == "model" else f"by {frame.decided_by}"
    at_odds = f", most at odds with {frame.most_at_odds_with}" if frame.most_at_odds_with else ""
    return f"  {done} {frame.file_path}: {frame.reason} ({grounds}{at_odds})"


def warnings_of(decisions: Decisions, capture: Capture) -> tuple[str, ...]:
    """Say what a person should look at: frames a guard-rail held back, holes in coverage, a front told by a face, no
    poses at all.

    Args:
        decisions: current ones of the capture, whose frames they list in the same order.
        capture: the capture.
    """
    names = [frame.file_path for frame in decisions.frames]
    out = []
    spared = [frame.file_path for frame in decisions.kept if frame.spared]
    if spared:
        share = 1.0 - float(decisions.settings.get("max_drop_share", 0.0))
        out.append(
            f"{len(spared)} more frames look inconsistent and stay: {_named(spared)}. The model leaves at least "
            f"{decisions.settings.get('min_frames', 0)} frames and {share:.0%} of them, and a frame that alone sees a "
            "part of the subject goes only at near certainty. Look at the capture."
        )
    fewest = int(decisions.settings.get("min_frames", 0))
    if len(decisions.kept) < fewest <= sum(frame.reason not in UNUSABLE for frame in decisions.frames):
        out.append(f"Only {len(decisions.kept)} frames are left, fewer than the {fewest} of --min-frames.")
    kept = np.array([frame.kept for frame in decisions.frames])
    for hole in coverage_gaps(used_poses(capture, decisions), kept, has_plausible_pose(decisions)):
        span = names[hole.first] if hole.first == hole.last else f"{names[hole.first]} to {names[hole.last]}"
        out.append(
            f"Without {span} a part of the subject is seen from far off only: the nearest kept frame looks "
            f"{hole.angle_degrees:.0f}° away."
        )
    if decisions.front is not None and decisions.settings.get("front") is None:
        out.append(f"The front is where {decisions.front} sees a face; --front names another frame.")
    if not any(frame.has_usable_pose for frame in capture.frames):
        out.append("No frame has a pose: frames were judged by image and time alone. Pose them with ns-mtcm-process.")
    out += _without_geometry(capture)
    return tuple(out)


def _without_geometry(capture: Capture) -> list[str]:
    """Say of which posed frames the poses could not be held against matches, since nothing tells their bearings."""
    posed = [frame for frame in capture.frames if frame.has_usable_pose]
    unknown = [frame for frame in posed if not has_bearings(frame.intrinsics)]
    if not unknown:
        return []
    models = sorted({frame.intrinsics.camera_model if frame.intrinsics else "no intrinsics" for frame in unknown})
    return [
        f"{len(unknown)} of {len(posed)} posed frames have no evidence about their poses ({', '.join(models)}): camera "
        f"models that have are {', '.join(CAMERA_MODELS)}."
    ]


def _named(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
