"""Which frames go into which split: evaluation first and whatever their verdict, then training on what was kept."""

from collections.abc import Mapping
from dataclasses import dataclass

from mtcm_nerfstudio.capture.images import UnreadableImageError, image_size, read_rgb
from mtcm_nerfstudio.decisions import FrameDecision, Reason
from mtcm_nerfstudio.nerf.dataparser.frame_subset_parser import SPLITS, FrameSubsetParser, Split


@dataclass(frozen=True)
class ChosenSplits:
    """The frames of each split, by the names that decisions have for them."""

    splits: Mapping[Split, tuple[str, ...]]
    """A split that nerfstudio refuses is left out."""
    lost_to_evaluation: Mapping[str, Reason]
    """Frames that the stock parser would evaluate on and nobody can, with the reason."""
    on_trial: tuple[str, ...]
    """Training frames that the model dropped and that nerfstudio could use."""


def choose_splits(parser: FrameSubsetParser, decisions: Mapping[str, FrameDecision]) -> ChosenSplits:
    """Split a capture's frames as the stock parser would, then take out what cannot or shall not be used.

    Training loses every frame that was dropped, evaluation only those that cannot be used: no image that opens, or
    no finite pose.
    """
    broken: dict[str, Reason] = {}
    for name in parser.file_paths():
        reason = _why_unusable(parser, decisions, name)
        if reason is not None:
            broken[name] = reason
    splits: dict[Split, tuple[str, ...]] = {}
    lost: dict[str, Reason] = {}
    on_trial: tuple[str, ...] = ()
    for split in SPLITS:
        try:
            members = parser.split(split)
        except RuntimeError:  # the capture names other splits but not this one: nerfstudio says so if it is asked for
            continue
        usable = [name for name in parser.file_paths() if name in members and name not in broken]
        if split == "train":
            decided = {name: decisions[name] for name in usable if name in decisions}
            splits[split] = tuple(name for name, frame in decided.items() if frame.kept)
            on_trial = tuple(n for n, frame in decided.items() if not frame.kept and frame.decided_by == "model")
        else:
            splits[split] = tuple(usable)
            lost.update({name: broken[name] for name in members if name in broken})
    return ChosenSplits(splits, dict(sorted(lost.items())), on_trial)


def _why_unusable(parser: FrameSubsetParser, decisions: Mapping[str, FrameDecision], name: str) -> Reason | None:
    """Say why nerfstudio could not use a frame, or None where it can.

    The filter has decoded every image already; a manual decision replaces the reason, so its image is decoded again.
    """
    decision = decisions.get(name)
    if not parser.has_usable_pose(name):
        return "invalid pose"
    if decision is not None and decision.reason in ("missing image", "unreadable image"):
        return decision.reason
    path = parser.image_path(name)
    if not path.is_file():
        return "missing image"
    if decision is None or decision.decided_by == "person":
        return None if _decodes(parser, name) else "unreadable image"
    return None if image_size(path) else "unreadable image"


def _decodes(parser: FrameSubsetParser, name: str) -> bool:
    try:
        read_rgb(parser.image_path(name))
    except UnreadableImageError:
        return False
    return True
