"""Return the decisions of a capture, from its file if current, else computed; write the exports."""

from dataclasses import dataclass, replace
from pathlib import Path

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, read_card
from mtcm_nerfstudio.decisions import Decisions
from mtcm_nerfstudio.filter_settings import FilterSettings, capture_digest, other_flags, settings_record
from mtcm_nerfstudio.filtering import filter_capture, with_given_poses
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.views.decision_poses import used_poses
from mtcm_nerfstudio.views.summary import summary_lines, warnings_of
from mtcm_nerfstudio.views.write import EMBEDDINGS, write_decision_exports, write_embeddings, write_kept_poses


@dataclass(frozen=True, eq=False)
class FilterResult:
    """Decisions, and where they came from and went."""

    decisions: Decisions
    capture: Capture
    output_dir: Path
    reused: bool
    """Whether a file that was there already is current, so that nothing was computed."""
    warnings: tuple[str, ...]
    """What a person should know about these decisions, one sentence each."""


def current_decisions(
    data: Path,
    settings: FilterSettings | None = None,
    output_dir: Path | None = None,
    reset: bool = False,
    dry_run: bool = False,
    progress: bool = True,
    follow: bool = False,
) -> FilterResult:
    """Return the decisions for a capture: those in its file where they are current, else new ones.

    New decisions are written with all that goes beside them, and a person's decisions are carried over into them.

    Args:
        data: the capture's folder (or its transforms.json).
        settings: how to filter.
        output_dir: where the files go; by default ``mtcm/`` in the capture (``mtcm/<identity>/`` for an identity).
        reset: forget the decisions that are there, a person's too.
        dry_run: write nothing.
        progress: show progress bars on standard error.
        follow: where ``settings`` are the default, decisions of this capture stand that were made with other flags,
            by a checkpoint of the user's own, or from given poses. The shipped checkpoint must be today's.

    Raises:
        FileNotFoundError: there is no capture, or no checkpoint.
        ValueError: one of the files cannot be used; the message names it and says what to do.
    """
    settings = settings or FilterSettings()
    capture = read_capture(data, settings.source, settings.identity)
    card = read_card(settings.checkpoint)
    cache = Cache(read_only=dry_run)
    output_dir = output_dir or default_output_dir(data, capture)
    path = output_dir / decisions_file.FILE_NAME
    previous = decisions_file.read(path) if path.is_file() and not reset else None
    _, given = with_given_poses(capture, settings.poses)
    digest, record = capture_digest(capture, cache), settings_record(settings, card, given)
    flags = " ".join(_made_with(previous, card)) if follow and previous is not None else ""
    if previous is not None and (output_dir / EMBEDDINGS).is_file():
        followed = follow and _is_followed(previous, digest, settings, card)
        if followed or previous.is_current(digest, record):
            if not dry_run:
                write_exports(previous, capture, output_dir)
            said = (f"Decided with {flags}; ns-mtcm-filter without flags decides anew.",) if flags else ()
            return FilterResult(previous, capture, output_dir, True, (*warnings_of(previous, capture), *said))
    filtered = filter_capture(capture, settings, cache, progress, {} if previous is None else previous.manual_decisions)
    previous = _latest(path, previous)  # somebody may have decided while this was filtering
    decisions = filtered.decisions if previous is None else filtered.decisions.carrying_over(previous)
    if not dry_run:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_embeddings(filtered.states, output_dir)
        write_exports(decisions, capture, output_dir)
        # Last, so that a run that is cut short leaves no file that claims to be current.
        decisions_file.write(decisions, path)
    otherwise = flags and not _made_with(decisions, card)
    why = f"Decided anew, without {flags}: the capture, or a file beside the decisions, is not what it was."
    said = (why,) if otherwise else ()
    return FilterResult(decisions, capture, output_dir, False, (*warnings_of(decisions, capture), *said))


def _made_with(decisions: Decisions, card: CheckpointCard) -> tuple[str, ...]:
    """Name the flags that decisions were made with and that a run without any would not have."""
    checkpoint = decisions.checkpoint.split(" ")[0]
    own = () if checkpoint in (card.name, "none") else (f"--checkpoint {checkpoint}",)
    return *own, *other_flags(decisions.settings)


def _is_followed(previous: Decisions, digest: str, settings: FilterSettings, card: CheckpointCard) -> bool:
    """Tell whether decisions of the same capture stand though they were made otherwise: see ``current_decisions``."""
    if replace(settings, source="auto", identity=None) != FilterSettings() or previous.capture_digest != digest:
        return False
    of_today = settings_record(settings, card)
    shipped = previous.checkpoint.split(" ")[0] == card.name
    return not shipped or all(previous.settings.get(name) == of_today[name] for name in ("checkpoint", "calibration"))


def existing_decisions(
    data: Path, settings: FilterSettings | None = None, output_dir: Path | None = None
) -> FilterResult | None:
    """Return the decisions that lie beside a capture, however they were come by; None where there are none of it.

    Args:
        data: the capture's folder (or its transforms.json).
        settings: which capture to read; how to filter is of no account.
        output_dir: where the files are; by default as in ``current_decisions``.

    Raises:
        FileNotFoundError: there is no capture.
        ValueError: one of the files cannot be used; the message names it and says what to do.
    """
    settings = settings or FilterSettings()
    capture = read_capture(data, settings.source, settings.identity)
    output_dir = output_dir or default_output_dir(data, capture)
    path = output_dir / decisions_file.FILE_NAME
    decisions = decisions_file.read(path) if path.is_file() else None
    if decisions is None or [f.file_path for f in decisions.frames] != [f.file_path for f in capture.frames]:
        return None
    warnings = warnings_of(decisions, capture)
    if decisions.capture_digest != capture_digest(capture, Cache()):
        warnings += ("Images or poses are others than when these decisions were made; ns-mtcm-filter decides anew.",)
    return FilterResult(decisions, capture, output_dir, reused=True, warnings=warnings)


def write_exports(decisions: Decisions, capture: Capture, output_dir: Path) -> None:
    """Write what follows from the decisions into the files beside them."""
    write_decision_exports(decisions, output_dir)
    write_kept_poses(decisions, used_poses(capture, decisions), output_dir)


def default_output_dir(data: Path, capture: Capture) -> Path:
    """Return ``mtcm/`` in the capture's folder; each identity of a folder has its own below it."""
    folder = data.parent if data.is_file() else data
    return folder / "mtcm" / capture.name if capture.source == "identity" else folder / "mtcm"


def summary(result: FilterResult) -> list[str]:
    """Say in a few lines what was decided: kept, dropped by reason and by name, repaired, warnings."""
    notes = (*result.capture.notes, *result.warnings)
    return summary_lines(result.capture.name, result.decisions, notes, result.reused)


def _latest(path: Path, before: Decisions | None) -> Decisions | None:
    """Read decisions again, where there were any and they can be read."""
    try:
        return before if before is None else decisions_file.read(path)
    except (OSError, ValueError):
        return before
