"""Captures to train on: real ones whose licence allows it, and rendered ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.capture_list import CaptureEntry, NaturalFault
from rendered_scenes import render_many

from mtcm_nerfstudio.capture.corruptions import FaultReason

REAL_COPIES, RENDERED_COPIES = 4, 2
"""Corrupted copies that are made of each capture."""
DONORS = 4
"""Captures that lend each capture foreign frames."""
RENDERED_LICENCE = "rendered by scripts/rendered_scenes.py"
REASON: Mapping[str, FaultReason] = {
    "blur": "blur", "exposure": "exposure", "occlusion": "occlusion", "mask": "occlusion", "foreign": "foreign",
    "pose": "pose",
}  # fmt: skip
"""What a decision should say of a frame that is faulty as it came."""


@dataclass(frozen=True)
class Source:
    """A capture to train on, before it is read."""

    folder: Path
    name: str
    licence: str
    faults: Mapping[str, NaturalFault]
    """Frames that are faulty as they came, by ``file_path``."""
    copies: int
    """Corrupted copies to make."""
    donors: tuple[Path, ...]
    """Captures that lend foreign frames."""


def real_sources(folder: Path, entries: Mapping[str, CaptureEntry]) -> list[Source]:
    """Return the real captures that may train and are there; those of one group lend each other foreign frames."""
    there = [name for name, entry in entries.items() if entry.may_train and (folder / name).is_dir()]
    for name, entry in entries.items():
        if entry.may_train and name not in there:
            print(f"{folder / name}: not there, left out")
    found = []
    for name in there:
        group = [other for other in there if entries[other].group == entries[name].group and other != name]
        faults = {fault.file_path: fault for fault in entries[name].natural_faults}
        donors = tuple(folder / other for other in group[:DONORS])
        found.append(Source(folder / name, name, entries[name].licence, faults, REAL_COPIES, donors))
    return found


def rendered_sources(out: Path, small: int, larger: int, two_sessions: int) -> list[Source]:
    """Render what is not there yet; each capture lends some others its images.

    Args:
        out: folder for the rendered captures.
        small: number of captures of 320 × 240 pixels.
        larger: number of captures of 640 × 480 pixels.
        two_sessions: number of captures of 320 × 240 pixels that were taken in two sessions.
    """
    folders = [
        *render_many(out / "rendered", small),
        *render_many(out / "rendered640", larger, 200, (640, 480)),
        *render_many(out / "sessions", two_sessions, 1000, two_sessions=True),
    ]
    return [
        Source(
            folder,
            f"{folder.parent.name}_{folder.name}",
            RENDERED_LICENCE,
            rendered_faults(folder),
            RENDERED_COPIES,
            (folders[i - 4], folders[i - 8]),
        )
        for i, folder in enumerate(folders)
    ]


def rendered_faults(folder: Path) -> dict[str, NaturalFault]:
    """Return which frames of a rendered capture are faulty as they came."""
    found = json.loads((folder / "natural_faults.json").read_text(encoding="utf-8"))
    return {name: NaturalFault(name, **entry) for name, entry in found.items()}
