"""Drawn variants of a capture on disk, so that a training that was stopped does not draw them again."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from mtcm_nerfstudio.consistency.training.batch import Example
from mtcm_nerfstudio.evidence.frame_numbers import Evidence

Batches = tuple[tuple[Example, ...], ...]
_OF_EXAMPLES = tuple(field.name for field in fields(Example) if field.name != "evidence")
_OF_EVIDENCE = tuple(field.name for field in fields(Evidence))


def save_variants(batches: Batches, path: Path) -> None:
    """Write batches of variants to an archive of arrays."""
    arrays = {"sizes": np.array([len(batch) for batch in batches])}
    for i, example in enumerate(example for batch in batches for example in batch):
        arrays |= {f"{i}.{name}": np.asarray(getattr(example, name)) for name in _OF_EXAMPLES}
        if example.evidence is not None:
            arrays |= {f"{i}.evidence.{name}": getattr(example.evidence, name) for name in _OF_EVIDENCE}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    np.savez(part, **arrays)
    part.replace(path)


def load_variants(path: Path) -> Batches:
    """Undo ``save_variants``."""
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["sizes"])
        examples = [_example(file, i) for i in range(int(ends[-1]))]
        return tuple(tuple(examples[end - size : end]) for end, size in zip(ends, file["sizes"], strict=True))


def _example(file: Mapping[str, np.ndarray], i: int) -> Example:
    values: dict[str, Any] = {name: file[f"{i}.{name}"] for name in _OF_EXAMPLES}
    values["last_pose_known"] = bool(values["last_pose_known"])
    if f"{i}.evidence.frames" in file:
        values["evidence"] = Evidence(**{name: file[f"{i}.evidence.{name}"] for name in _OF_EVIDENCE})
    return Example(**values)
