"""The panel beside the scene: what is shown, how it is coloured, and the frame looked at with its buttons."""

from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from mtcm_nerfstudio.report.verdict_style import SIGNS
from mtcm_nerfstudio.viewer.colours import VERDICTS
from mtcm_nerfstudio.viewer.scene_nodes import DisplaySettings
from mtcm_nerfstudio.viewer.session import Session, State, reason_shown
from mtcm_nerfstudio.viewer.thumbnail_cache import ThumbnailCache

_ALWAYS = ("verdict", "inconsistency", "time", "label")
_SIDE = 360


class Panel:
    """Owns the controls; what people do with them goes to the session, or changes how things look."""

    def __init__(
        self,
        gui: Any,
        session: Session,
        thumbnails: ThumbnailCache,
        on_look: Callable[[], None],
        on_go: Callable[[Any], None],
        table: str | None,
        thumbnails_at_start: bool,
    ) -> None:
        """Build the controls.

        Args:
            gui: viser's, inside whatever container they go to.
            session: that they speak to.
            thumbnails: of the frames.
            on_look: called when something is to be drawn otherwise.
            on_go: called with a page's handle that is to fly to the frame looked at (None: every page).
            table: address of the page with the table, where there is one.
            thumbnails_at_start: whether cameras show their pictures until somebody says otherwise.
        """
        self._session, self._thumbnails, self._on_look = session, thumbnails, on_look
        state = session.state
        self._counts = gui.add_markdown(counts(state))
        self._threshold = gui.add_slider("Threshold", 0.0, 1.0, 0.01, round(state.threshold, 2))
        self._preview = gui.add_markdown("")
        self._colour = gui.add_dropdown("Colour by", _colourings(state), initial_value="verdict")
        with gui.add_folder("Show"):
            self._groups = {name: gui.add_checkbox(f"{SIGNS[name]} {name}", True) for name in VERDICTS}
            self._images = gui.add_checkbox("pictures", thumbnails_at_start)
            self._names = gui.add_checkbox("names", False)
            self._points = gui.add_checkbox("points", True)
        with gui.add_folder("Frame", expand_by_default=table is not None):
            self._frame = gui.add_markdown(about(state, thumbnails), image_root=Path())
            if table is not None:  # else this is a part of the table's page, which has them
                self._buttons(gui, on_go)
            self._message = gui.add_markdown("")
        if table is not None:
            gui.add_markdown(f"[All frames in a table]({table})")
        self._threshold.on_update(self._dragged)
        for handle in (*self._groups.values(), self._images, self._names, self._points, self._colour):
            handle.on_update(lambda _: on_look())

    def _buttons(self, gui: Any, on_go: Callable[[Any], None]) -> None:
        session = self._session
        # Not a button group: viser 0.2.7 passes over a click on the button that was clicked last.
        for words, colour, act in (
            ("Keep", "green", lambda event: session.decide(True)),
            ("Drop", "red", lambda event: session.decide(False)),
            ("Undo", "gray", lambda event: session.undo()),
            ("Next worst", None, lambda event: session.step(1)),
            ("Previous", None, lambda event: session.step(-1)),
            ("Go there", None, lambda event: on_go(event.client)),
        ):
            gui.add_button(words, color=colour).on_click(act)

    def _dragged(self, event: Any) -> None:
        """Preview the threshold of the slider, unless ``draw`` has set it."""
        if event.client is not None:
            self._session.preview_threshold(self._chosen_threshold())

    @property
    def look(self) -> DisplaySettings:
        """What is to be drawn, and how."""
        groups = frozenset(name for name, handle in self._groups.items() if handle.value)
        return DisplaySettings(groups, self._colour.value, self._points.value, self._images.value, self._names.value)

    def draw(self, state: State) -> None:
        """Bring what is written in step with a state."""
        _write(self._counts, counts(state))
        _write(self._preview, preview_text(state))
        _write(self._frame, about(state, self._thumbnails))
        _write(self._message, state.message)
        if abs(self._chosen_threshold() - state.threshold) > 1e-9:
            self._threshold.value = round(state.threshold, 2)
        if tuple(self._colour.options) != _colourings(state):
            self._colour.options = _colourings(state)

    def _chosen_threshold(self) -> float:
        """Return what the slider says; where it stands at the decisions' own threshold, exactly that."""
        own = self._session.state.decisions.threshold
        return own if self._threshold.value == round(own, 2) else float(self._threshold.value)


def counts(state: State) -> str:
    """Return how many frames have which verdict."""
    found = Counter(state.verdicts)
    parts = [f"{SIGNS[name]} {found[name]} {name}" for name in ("kept", "repaired", "dropped")]
    return "**" + " · ".join([*parts, f"{SIGNS['suggested']} {len(state.decisions.suggested)} suggested"]) + "**"


def preview_text(state: State) -> str:
    """Return the command that applies the preview threshold; empty if there is none."""
    if not state.is_preview:
        return ""
    return f"Tried out, not written. To decide so: `ns-mtcm-filter --threshold {state.threshold:.2f}`"


def about(state: State, thumbnails: ThumbnailCache) -> str:
    """Describe the frame looked at: pictures, why, and the numbers behind it."""
    frame = state.frame
    if frame is None or state.selected is None:
        return "Click a camera, or *Next worst*."
    names = {one.file_path: i for i, one in enumerate(state.decisions.frames)}
    other = names.get(frame.most_at_odds_with or "")
    verdict = state.verdicts[state.selected]
    reason = reason_shown(frame, verdict)
    why = f": {reason}" if reason else ""
    lines = [
        f"**{_plain(frame.file_path)}**",
        "",
        f"{SIGNS[verdict]} {verdict}{why} (decided by {frame.decided_by})",
        "",
        _image(thumbnails, state.selected),
    ]
    if other is not None:
        lines += [
            "",
            f"most at odds with {_plain(state.decisions.frames[other].file_path)}",
            "",
            _image(thumbnails, other),
        ]
    rows = [("inconsistency", frame.inconsistency), *vars(frame.modality).items()]
    rows += [(name, float(values[state.selected])) for name, values in state.live.items()]
    numbers = " · ".join(f"{name} {value:.2f}" for name, value in rows if value is not None and value == value)
    return "\n".join([*lines, "", numbers, "", _plain(frame.label or "")])


def _colourings(state: State) -> tuple[str, ...]:
    return (*_ALWAYS, *(name for name in ("weight", "residual") if name in state.live))


def _image(thumbnails: ThumbnailCache, index: int) -> str:
    data = thumbnails.jpeg(index, _SIDE)
    if data is None:
        return "*(the image cannot be read)*"
    return f"![frame](data:image/jpeg;base64,{b64encode(data).decode('ascii')})"


def _plain(text: str) -> str:
    """Return text as Markdown that says just that."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|<>~" else c for c in escape(text, quote=False))


def _write(handle: Any, text: str) -> None:
    if handle.content != text:
        handle.content = text
