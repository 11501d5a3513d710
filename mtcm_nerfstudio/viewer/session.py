"""State shared by all pages of a viewer: decisions, selected frame, preview threshold.

There is one session for a capture, whatever number of pages is open. It is told what people do, writes what they
decide into the file at once, and tells its listeners that something changed.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.decisions import UNUSABLE, Decisions, FrameDecision, VerdictName


@dataclass(frozen=True, eq=False)
class State:
    """What is to be shown at one moment."""

    decisions: Decisions
    verdicts: tuple[VerdictName, ...]
    """Of every frame, at the threshold that is tried out."""
    threshold: float
    selected: int | None
    """Index of the frame looked at."""
    marked: tuple[int, ...]
    """Indices of frames that were pointed out together; the table shows these alone."""
    place: tuple[float, float, float] | None
    """What all of them see, in the viewer's world, where that is why they are marked."""
    live: Mapping[str, Float[np.ndarray, " frame"]]
    """What a running training says of every frame, by what it is (``weight``, ``residual``: a moving average of its
    loss, ``last``: its last loss, ``seen``: in how many steps); NaN: nothing."""
    message: str
    """What the last action came to, for a person."""

    @property
    def frame(self) -> FrameDecision | None:
        """The frame looked at."""
        return None if self.selected is None else self.decisions.frames[self.selected]

    @property
    def is_preview(self) -> bool:
        """Whether another threshold is tried out than the one that was decided by."""
        return self.threshold != self.decisions.threshold


class Session:
    """Holds the state, changes it, and keeps the file in step.

    All methods may be called from any thread.
    """

    def __init__(self, path: Path, export: Callable[[Decisions], None] | None = None) -> None:
        """Open the decisions of a capture.

        Args:
            path: the ``filtered_views.json``.
            export: called with decisions that have just been written, to bring the files beside them in step.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged.
        """
        self.path, self._export = path, export
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []
        self._undo: list[tuple[FrameDecision, ...]] = []
        self._marked: tuple[int, ...] = ()
        self._place: tuple[float, float, float] | None = None
        self._stamp = decisions_file.stamp(path)
        self._decisions = decisions_file.read(path)
        self._threshold, self._selected = self._decisions.threshold, None
        self._live: dict[str, Float[np.ndarray, " frame"]] = {}
        self._message = ""
        self._state = self._made()

    @property
    def state(self) -> State:
        """What is to be shown now."""
        return self._state

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call a listener after every change; returns what ends that."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def select(self, index: int | None) -> None:
        """Look at a frame."""
        if index is not None and not 0 <= index < len(self._decisions.frames):
            raise ValueError(f"there is no frame {index} among {len(self._decisions.frames)}")
        with self._changing():
            self._selected, self._message = index, ""

    def step(self, by: int) -> None:
        """Look at the next frame in order of inconsistency (``by`` = 1), or at the one before (−1)."""
        order = worst_first(self._decisions)
        with self._changing():
            place = -1 if self._selected is None else int(np.flatnonzero(order == self._selected)[0])
            self._selected = int(order[(place + by) % len(order)]) if place >= 0 or by > 0 else int(order[-1])
            self._message = ""

    def preview_threshold(self, threshold: float) -> None:
        """Show what another threshold would keep; nothing is written."""
        with self._changing():
            self._threshold = threshold

    def decide(self, kept: bool, index: int | None = None) -> None:
        """Keep or drop a frame, for good, in a person's name.

        Args:
            kept: which of the two.
            index: of the frame; by default the one looked at.
        """
        with self._changing():
            index = self._selected if index is None else index
            if index is None:
                self._message = "Choose a frame first."
            elif self._decide(kept, (index,)):
                self._selected = index

    def decide_marked(self, kept: bool) -> None:
        """Keep or drop all marked frames, but for those that nobody can train on."""
        with self._changing():
            frames = self._decisions.frames
            some = tuple(i for i in self._marked if not (kept and frames[i].reason in UNUSABLE))
            if not some:
                self._message = "Mark frames first." if not self._marked else "None of them can be trained on."
            elif self._decide(kept, some):
                self._marked, self._place = (), None

    def mark(self, some: Sequence[int], place: tuple[float, float, float] | None = None, why: str = "") -> None:
        """Point frames out together; none of them ends that.

        Args:
            some: their indices.
            place: what they all see, in the viewer's world.
            why: in words.
        """
        with self._changing():
            self._marked, self._place = tuple(some), place
            self._message = f"{len(some)} {'frame' if len(some) == 1 else 'frames'} marked: {why}." if why else ""

    def undo(self) -> None:
        """Take back the last decision of this session, to what stood before it."""
        with self._changing():
            if not self._reload():
                return
            if not self._undo:
                self._message = "Nothing to undo."
                return
            before = {frame.file_path: frame for frame in self._undo[-1]}
            frames = tuple(before.get(frame.file_path, frame) for frame in self._decisions.frames)
            try:
                self._write(replace(self._decisions, frames=frames))
            except OSError as error:
                self._message = f"Nothing is undone: {error}."
                return
            self._undo.pop()
            changed = [i for i, frame in enumerate(frames) if frame.file_path in before]
            self._selected = changed[0]
            one = frames[changed[0]]
            told = f"{one.file_path}: back to what it was ({_verdict_text(one)})."
            self._export_and_say(told if len(changed) == 1 else f"{len(changed)} frames: back to what they were.")

    def show_live(self, live: Mapping[str, Float[np.ndarray, " frame"]]) -> None:
        """Take note of what a running training says of the frames."""
        with self._changing():
            self._live = dict(live)

    def say(self, message: str) -> None:
        """Tell people something."""
        with self._changing():
            self._message = message

    def look_again(self) -> bool:
        """Read the file if somebody else has written it; returns whether anything changed."""
        if decisions_file.stamp(self.path) == self._stamp:
            return False
        with self._changing():
            self._reload()
        return True

    def _decide(self, kept: bool, some: tuple[int, ...]) -> bool:
        """Write a decision about frames; False, with a message, where that cannot be."""
        if not self._reload():
            return False
        before = tuple(self._decisions.frames[i] for i in some)
        try:
            self._write(self._decisions.override([frame.file_path for frame in before], kept))
        except (ValueError, OSError) as error:
            self._message = f"Nothing is decided: {error}."
            return False
        self._undo.append(before)
        what = before[0].file_path if len(before) == 1 else f"{len(before)} frames"
        self._export_and_say(f"{what}: {'kept' if kept else 'dropped'}, written to {self.path.name}.")
        return True

    def _reload(self) -> bool:
        """Read what another program may have written since; False, with a message, where that cannot be taken up.

        Nothing may be written then: it would overwrite a newer decision.
        """
        stamp = decisions_file.stamp(self.path)
        if stamp == self._stamp:
            return True
        try:
            found = decisions_file.read(self.path)
        except (OSError, ValueError) as error:
            self._message = str(error)
            return False
        if [f.file_path for f in found.frames] != [f.file_path for f in self._decisions.frames]:
            self._message = f"{self.path.name} lists other frames now: open the viewer again to see them."
            return False
        if self._threshold == self._decisions.threshold:
            self._threshold = found.threshold
        if _made_from(found) != _made_from(self._decisions):
            self._undo.clear()  # what stood before was the word of another run of the filter
        self._decisions, self._stamp = found, stamp
        return True

    def _write(self, decisions: Decisions) -> None:
        self._stamp = decisions_file.write(decisions, self.path)
        self._decisions = decisions

    def _export_and_say(self, message: str) -> None:
        """Bring the files beside the decisions in step, and say what was done."""
        self._message = message
        try:
            if self._export is not None:
                self._export(self._decisions)
        except OSError as error:
            self._message += f" The files beside it could not be written: {error}."

    def _made(self) -> State:
        return State(
            self._decisions,
            tuple(verdict_at(frame, self._decisions, self._threshold) for frame in self._decisions.frames),
            self._threshold,
            self._selected,
            self._marked,
            self._place,
            self._live,
            self._message,
        )

    def _changing(self) -> "_Change":
        return _Change(self)


class _Change:
    """Hold the lock of the session, and notify the listeners on exit."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> None:
        self._session._lock.acquire()

    def __exit__(self, *failure: object) -> None:
        session = self._session
        try:
            session._state = session._made()
            listeners = list(session._listeners)
        finally:
            session._lock.release()
        for listener in listeners:
            listener()


def verdict_at(frame: FrameDecision, decisions: Decisions, threshold: float) -> VerdictName:
    """Return what becomes of a frame at a threshold; what a rule or a person decided stands at any."""
    if frame.decided_by != "model" or threshold == decisions.threshold:
        return frame.verdict
    # The evidence contradicts the reason: such a frame stays at every threshold.
    contradicted = frame.verdict == "kept" and not frame.spared and frame.inconsistency >= decisions.threshold
    if contradicted or frame.inconsistency < threshold:
        return "kept"
    return "repaired" if frame.repaired_transform_matrix is not None else "dropped"


def reason_shown(frame: FrameDecision, verdict: VerdictName) -> str:
    """Return why a frame has a verdict, also one that is only tried out; empty for a kept one."""
    if verdict == "kept":
        return ""
    return "pose" if verdict == "repaired" else frame.reason or "inconsistent"


def worst_first(decisions: Decisions) -> Int[np.ndarray, " frame"]:
    """Return the frames' indices, the most inconsistent first."""
    return np.argsort([-frame.inconsistency for frame in decisions.frames], kind="stable")


def _verdict_text(frame: FrameDecision) -> str:
    return f"{'kept' if frame.kept else f'dropped: {frame.reason}'}, by {frame.decided_by}"


def _made_from(decisions: Decisions) -> tuple[object, ...]:
    return decisions.capture_digest, decisions.settings, decisions.checkpoint, decisions.threshold
