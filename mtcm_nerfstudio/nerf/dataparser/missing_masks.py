"""Masks for frames that have none where others have theirs."""

from collections.abc import Sequence
from pathlib import Path

from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image

from mtcm_nerfstudio.capture.images import image_size


def with_missing_masks(outputs: DataparserOutputs, derived: Path) -> DataparserOutputs:
    """Replace masks that are not on disk by white ones of the frame's size, and say so in one line.

    nerfstudio asks for a mask of every frame or of none. A white one means what no mask means: all of the frame
    counts.

    Args:
        outputs: what a stock parser gave; changed in place.
        derived: where to write the white masks.
    """
    masks = outputs.mask_filenames
    if not masks:
        return outputs
    missing = [i for i, path in enumerate(masks) if not path.is_file()]
    if missing:
        names = [outputs.image_filenames[i].name for i in missing]
        CONSOLE.print(f"No mask for {_named(names)}: all of the image counts there.", markup=False)
    for i in missing:
        size = image_size(outputs.image_filenames[i])
        if size is not None:
            masks[i] = _white(*size, derived)
    return outputs


def _white(width: int, height: int, derived: Path) -> Path:
    path = derived / "masks" / f"white_{width}x{height}.png"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (width, height), 255).save(path)
    return path


def _named(names: Sequence[str], most: int = 5) -> str:
    return f"{len(names)} frames ({', '.join(names[:most])}{' …' if len(names) > most else ''})"
