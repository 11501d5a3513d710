"""Summary lines of a posed capture: registered and unregistered images, and how to register more."""

from collections.abc import Sequence

from mtcm_nerfstudio.capture.process.process_data import ProcessResult
from mtcm_nerfstudio.capture.process.sfm import ENOUGH_SHARE

_NAMED = 20


def summary(processed: ProcessResult) -> list[str]:
    """Return the lines to print: how many images have a pose, which have none, and what would help."""
    mapped, total = processed.mapped, len(processed.input_images.photos)
    lines = [
        f"COLMAP posed {len(mapped.registered)} of {total} images: {mapped.points} points, "
        f"{mapped.observations_per_image:.0f} observations an image, "
        f"mean reprojection error {mapped.reprojection_error_px:.2f} px."
    ]
    if processed.masks:
        lines.append(f"Masks: {processed.masks}.")
    if processed.input_images.unreadable:
        lines.append(f"Unreadable, left out: {_listed(processed.input_images.unreadable)}.")
    if processed.unregistered:
        lines.append(f"No pose for {len(processed.unregistered)} of {total}: {_listed(processed.unregistered)}.")
    if processed.unregistered and len(mapped.model_sizes) > 1:
        sizes = ", ".join(str(size) for size in mapped.model_sizes)
        lines.append(f"They fell apart into {len(mapped.model_sizes)} models ({sizes} images); the largest is kept.")
    if mapped.patient:
        lines.append(
            "COLMAP's usual settings posed fewer: this model takes smaller angles and fewer matches for enough. "
            "Look at its camera path before you trust it (ns-mtcm-filter scores every frame)."
        )
    if len(mapped.registered) < ENOUGH_SHARE * total:
        lines += _advice(processed)
    return lines


def _advice(processed: ProcessResult) -> list[str]:
    share = len(processed.mapped.registered) / len(processed.input_images.photos)
    lines = [f"Only {share:.0%} of the images are posed. What helps, the surest first:"]
    lines.append("  - photos that share two thirds of what they show with their neighbours, stepping sideways")
    lines.append("  - the missing stretch photographed again, or more frames of the video (--max-frames)")
    if processed.matching == "sequential":
        lines.append("  - --matching exhaustive, where the images are not in the order in which they were taken")
    lines.append("  - --max-features 16384, or --camera-model SIMPLE_RADIAL for few images")
    return lines


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more (all in transforms.json)" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
