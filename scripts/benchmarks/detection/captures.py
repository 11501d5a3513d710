"""The captures that are measured or lend foreign frames: those of ``data/captures.json``, or a reader's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.capture_list import CaptureEntry
from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.read import read_capture

EXAMPLES = "forest_examples.npz"
"""What ``scripts/pretrain.py`` leaves beside a checkpoint: the examples that its forest was fitted on."""
_SHIPPED_RUN = "all"
"""Folder of the run that made the shipped checkpoint."""


@dataclass(frozen=True, eq=False)
class BenchmarkCapture:
    """A capture, and the checkpoint that judges it."""

    capture: Capture
    group: str
    """Captures of one group lend each other no foreign frames; one that is in no list is a group of its own."""
    checkpoint: Path | None
    """Stem of a checkpoint that never saw the capture; None stands for the shipped one."""
    examples: Path
    """What the checkpoint's forest was fitted on; the file may be absent."""
    natural_faults: tuple[str, ...] = ()
    """``file_path`` of the frames that are faulty as they came."""

    @property
    def name(self) -> str:
        """The capture's name."""
        return self.capture.name

    @property
    def posed_frames(self) -> int:
        """The number of frames with a usable pose."""
        return sum(frame.has_usable_pose for frame in self.capture.frames)


def listed_captures(folder: Path, checkpoints: Path, entries: Mapping[str, CaptureEntry]) -> list[BenchmarkCapture]:
    """Return the listed captures that lie in a folder, those of one group beside each other.

    Args:
        folder: holds the captures, each in a folder of its name.
        checkpoints: holds a run for each group, as ``scripts/pretrain.py`` leaves them.
        entries: the list, by name.
    """
    found = []
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].group, item[0])):
        if not (folder / name).is_dir():
            print(f"{folder / name}: not there, left out")
            continue
        is_shipped = entry.group == "evaluation"
        run_dir = checkpoints / (_SHIPPED_RUN if is_shipped else f"without_{entry.group}")
        found.append(
            BenchmarkCapture(
                capture=replace(read_capture(folder / name), name=name),
                group=entry.group,
                checkpoint=None if is_shipped else run_dir / "checkpoint",
                examples=run_dir / EXAMPLES,
                natural_faults=(*entry.faulty_files("clear"), *entry.faulty_files("mild")),
            )
        )
    return found


def own_captures(folders: Sequence[Path], checkpoint: Path | None, checkpoints: Path) -> list[BenchmarkCapture]:
    """Return captures that a reader names, all judged by one checkpoint.

    Args:
        folders: of the captures.
        checkpoint: its stem; None stands for the shipped one.
        checkpoints: holds the run that made the shipped one.
    """
    run_dir = checkpoints / _SHIPPED_RUN if checkpoint is None else checkpoint.parent
    captures = [read_capture(folder) for folder in folders]
    return [BenchmarkCapture(capture, capture.name, checkpoint, run_dir / EXAMPLES) for capture in captures]
