"""Captures with known faults in their training frames, and evaluation frames that nothing is wrong with."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.corruptions import Fault, FaultKind, inject, plan_faults

MIXED: tuple[FaultKind, ...] = (
    "swap", "pose_10", "pose_3", "motion_blur", "defocus", "exposure", "occluder", "foreign",
)  # fmt: skip
"""Without three: after a far pose training on all frames gives nothing at all to compare with, after a moved cluster
dropping leaves a hole where evaluation looks, and a turn of 1° is less than two pixels here (it is among ``SMALL``)."""
SMALL: tuple[FaultKind, ...] = ("pose_3", "pose_1")

_EVERY = 6
"""Every so manyth frame is for evaluation."""
_FIRST_SEED = 9_000_000
_VERSION = "1"


@dataclass(frozen=True)
class Case:
    """One capture with one draw of faults, on disk beside the same capture without them."""

    name: str
    seed: int
    clean: Path
    faulty: Path
    faults: tuple[Fault, ...]
    file_paths: tuple[str, ...]
    evaluation: frozenset[str]

    @property
    def faulty_names(self) -> frozenset[str]:
        """Names of the frames with a fault."""
        return frozenset(self.file_paths[fault.frame] for fault in self.faults)


def make_case(
    capture: Capture, foreign: Capture, kinds: Sequence[FaultKind], share: float, seed: int, folder: Path
) -> Case:
    """Write a capture with faults, and without, unless they are there already.

    Args:
        capture: as it came; frames without a pose or an image are left out.
        foreign: lends foreign images.
        kinds: of faults.
        share: of the training frames that get one, in [0, 1].
        seed: decides everything.
        folder: where both copies go, in a folder named by what is done to them.
    """
    usable = replace(capture, frames=tuple(f for f in capture.frames if f.has_usable_pose and f.image_path.is_file()))
    train = np.flatnonzero(np.arange(len(usable)) % _EVERY)
    rng = np.random.default_rng([_FIRST_SEED + seed, *f"{capture.name}:{':'.join(kinds)}:{share}".encode()])
    c2w = np.stack([frame.c2w for frame in usable.frames if frame.c2w is not None])
    planned = plan_faults(len(train), kinds, share, rng, c2w[train])
    faults = tuple(replace(fault, frame=int(train[fault.frame])) for fault in planned)
    made_of = f"{_VERSION}:{capture.name}:{foreign.name}:{faults}"
    stem = folder / f"{capture.name}_{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    evaluation = frozenset(frame.file_path for frame in usable.frames[::_EVERY])
    for name, some in (("clean", ()), ("faulty", faults)):
        if not (stem / name / "transforms.json").is_file():
            inject(usable, some, foreign, stem / name)
            _split(stem / name / "transforms.json", evaluation)
    names = tuple(frame.file_path for frame in usable.frames)
    return Case(capture.name, seed, stem / "clean", stem / "faulty", faults, names, evaluation)


def _split(path: Path, evaluation: Collection[str]) -> None:
    """Say in a transforms.json which frames are for training and which for evaluation."""
    record = json.loads(path.read_text(encoding="utf-8"))
    names = [frame["file_path"] for frame in record["frames"]]
    record["train_filenames"] = [name for name in names if name not in evaluation]
    record["val_filenames"] = record["test_filenames"] = [name for name in names if name in evaluation]
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
