"""What a training run keeps of the decisions it was trained on, and how the run is found again.

A run's folder holds a copy of ``filtered_views.json`` and, beside it, ``training_views.json``: which frames were in
which split. Whoever opens the run later (``ns-eval``, ``ns-render``, ``ns-viewer``, ``ns-export``, resuming) reads
these two, so neither an edit of the capture's decisions nor an image that has gone changes a trained model's frames,
orientation or scale.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.capture.capture import Source
from mtcm_nerfstudio.decisions import Decisions, write_text_atomically
from mtcm_nerfstudio.nerf.dataparser.frame_subset_parser import Split

TRAINING_VIEWS = "training_views.json"
_SCHEMA_VERSION = 1
_LOADING_FLAGS = ("--load-dir", "--load-checkpoint")


@dataclass(frozen=True)
class TrainingViews:
    """The frames that a run trains on and is evaluated on."""

    source: Source
    """The layout that the capture was read from."""
    model: str | None
    """The COLMAP model's folder, relative to the capture, where there is one."""
    splits: Mapping[Split, tuple[str, ...]]
    """Frames by split, by the names that decisions have for them; a split that nerfstudio refuses is left out."""
    on_trial: tuple[str, ...] = ()
    """Frames that were dropped and are trained on all the same, after the kept ones."""


def write_record(folder: Path, decisions: Decisions, views: TrainingViews) -> None:
    """Write the copy of the decisions and the frames of each split into a run's folder."""
    decisions_file.write(decisions, folder / decisions_file.FILE_NAME)
    record = {"schema_version": _SCHEMA_VERSION, **asdict(views)}
    write_text_atomically(folder / TRAINING_VIEWS, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def read_training_views(folder: Path) -> TrainingViews | None:
    """Read the frames of each split from a run's folder; None where it holds none.

    Raises:
        ValueError: the file is damaged or of another schema version; the message names it.
    """
    path = folder / TRAINING_VIEWS
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema_version"] != _SCHEMA_VERSION:
            raise ValueError(f"schema_version is {record['schema_version']!r}, this program reads {_SCHEMA_VERSION}")
        splits = {split: tuple(names) for split, names in record["splits"].items()}
        return TrainingViews(record["source"], record["model"], splits, tuple(record.get("on_trial", ())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read as a run's frames ({error})") from error


def resumed_decisions(arguments: Sequence[str]) -> Path | None:
    """Return the decisions of the run that a command line resumes (``--load-dir``, ``--load-checkpoint``), if any.

    nerfstudio tells a dataparser nothing of the run it works for, so this is read where the user wrote it.
    """
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        flag, has_value, value = argument.partition("=")
        if flag.replace("_", "-") not in _LOADING_FLAGS:
            continue
        loaded = Path(value if has_value else following).absolute()
        for folder in (loaded, *list(loaded.parents)[:2]):
            if (folder / TRAINING_VIEWS).is_file():
                return folder / decisions_file.FILE_NAME
    return None


def point_config_at(config_file: Path, decisions_path: Path) -> None:
    """Make a run's config.yml name the run's own decisions, so that whatever opens the run reads those.

    nerfstudio writes config.yml before it builds the dataparser, so the file is rewritten, the same way.
    """
    if not config_file.is_file():
        return
    # Written by nerfstudio in this very process, with classes by name: only yaml.Loader reads it back.
    config: Any = yaml.load(config_file.read_text("utf8"), Loader=yaml.Loader)
    datamanager = config.pipeline.datamanager
    datamanager.dataparser.decisions = decisions_path
    if hasattr(datamanager, "decisions"):  # the mtcm methods have the flag there
        datamanager.decisions = decisions_path
    write_text_atomically(config_file, yaml.dump(config))
