"""What was decided, in a few lines for a terminal."""

from collections import Counter
from collections.abc import Sequence

from mtcm_nerfstudio.decisions import Decisions, FrameDecision


def summary_lines(name: str, decisions: Decisions, notes: Sequence[str] = (), reused: bool = False) -> list[str]:
    """Return the summary of a capture's decisions: the counts, a line for each frame that was dropped, and notes.

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
        *(_dropped_line(frame) for frame in decisions.dropped),
        *(f"  note: {note}" for note in notes),
    ]


def _dropped_line(frame: FrameDecision) -> str:
    grounds = f"inconsistency {frame.inconsistency:.2f}" if frame.decided_by == "model" else f"by {frame.decided_by}"
    at_odds = f", most at odds with {frame.most_at_odds_with}" if frame.most_at_odds_with else ""
    return f"  dropped {frame.file_path}: {frame.reason} ({grounds}{at_odds})"
