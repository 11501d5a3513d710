"""What to do about faulty frames before and while a NeRF trains: MTCM's ways, and everybody else's."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.quality import laplacian_variance
from benchmarks.nerf.cases import Case
from mtcm_nerfstudio.capture.images import read_rgb
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.decisions import Decisions, FrameDecision
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.filtering import filter_capture
from mtcm_nerfstudio.tokens.cache import Cache

CLEAN, ALL, ORACLE = "clean capture", "all frames", "oracle drop"
FILTER, REPAIR, JOINT = "MTCM filter", "MTCM filter + repair", "MTCM filter + repair + joint"
AGAINST_SHARE = (CLEAN, ALL, ORACLE, REPAIR)
"""Methods that are tried at other shares of faults as well."""
JOINT_ALONE = "MTCM joint on all frames"


@dataclass(frozen=True, eq=False)
class Plan:
    """A NeRF to train: on which frames, and how."""

    capture: Path
    decisions: Decisions
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the tiny method's: see ``benchmarks.nerf.training``."""


Method = Callable[[Case], Plan]


def methods(checkpoint: Path | None) -> dict[str, Method]:
    """Return every method by name.

    Args:
        checkpoint: of MTCM's transformer; None is the shipped one.
    """

    @cache
    def filtered(case: Case, repair: bool) -> Decisions:
        settings = FilterSettings(checkpoint=checkpoint, repair=repair)
        return filter_capture(read_capture(case.faulty), settings, Cache(), progress=False).decisions

    joint = {"joint": True, "on_trial": True, "checkpoint": checkpoint}
    return {
        CLEAN: lambda case: Plan(case.clean, _keeping(case, case.file_paths)),
        ALL: lambda case: Plan(case.faulty, _keeping(case, case.file_paths)),
        "random drop": lambda case: _dropping(case, _random(case)),
        "sharpest frames": lambda case: _dropping(case, _sharpness(case)),
        "camera optimizer": lambda case: Plan(case.faulty, _keeping(case, case.file_paths), {"camera_optimizer": True}),
        "trimmed loss": lambda case: Plan(case.faulty, _keeping(case, case.file_paths), {"trimmed": True}),
        FILTER: lambda case: Plan(case.faulty, filtered(case, repair=False)),
        REPAIR: lambda case: Plan(case.faulty, filtered(case, repair=True)),
        JOINT: lambda case: Plan(case.faulty, filtered(case, repair=True), joint),
        JOINT_ALONE: lambda case: Plan(case.faulty, _keeping(case, case.file_paths), joint),
        f"{CLEAN}, joint": lambda case: Plan(case.clean, _keeping(case, case.file_paths), joint),
        ORACLE: lambda case: Plan(case.faulty, _keeping(case, set(case.file_paths) - case.faulty_names)),
    }


def _keeping(case: Case, kept: Collection[str]) -> Decisions:
    """Return decisions that keep some frames of a case; evaluation frames stay whatever is decided about them."""
    frames = tuple(
        FrameDecision(name, inconsistency=0.0 if name in kept else 1.0, kept=name in kept, decided_by="rule",
                      reason=None if name in kept else "manual")
        for name in case.file_paths
    )  # fmt: skip
    return Decisions("", {}, "none", "none", 0.5, frames)


def _dropping(case: Case, score: Mapping[str, float]) -> Plan:
    """Drop as many training frames as are faulty, those with the lowest scores."""
    train = [name for name in case.file_paths if name not in case.evaluation]
    worst = sorted(train, key=lambda name: score[name])[: len(case.faulty_names)]
    return Plan(case.faulty, _keeping(case, set(case.file_paths) - set(worst)))


def _random(case: Case) -> dict[str, float]:
    scores = np.random.default_rng([1, case.seed]).random(len(case.file_paths))
    return dict(zip(case.file_paths, scores.tolist(), strict=True))


def _sharpness(case: Case) -> dict[str, float]:
    """Return the variance of every image's Laplacian, as sharp-frames measures it."""
    return {name: laplacian_variance(read_rgb(case.faulty / name)) for name in case.file_paths}
