"""Masks of the subject, made by a segmentation network through rembg (the ``masks`` extra)."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from mtcm_nerfstudio.capture.images import read_rgb

DEFAULT_MODEL = "u2net"


@runtime_checkable
class MaskSession(Protocol):
    """What is used of rembg's session objects."""

    def predict(self, img: Image.Image, *args: Any, **kwargs: Any) -> list[Image.Image]:
        """Return soft masks of the image's subject, of the image's size, white where the subject is."""
        ...


def open_session(model: str = DEFAULT_MODEL) -> MaskSession:
    """Load a segmentation network of rembg's by name, or from a local ``.onnx`` file (U²-Net's input and output).

    rembg fetches a network's weights the first time it is asked for by name.

    Raises:
        ValueError: rembg is not installed, knows no such network, or cannot fetch the weights.
        FileNotFoundError: the local file is not there.
    """
    if model.endswith(".onnx") and not Path(model).expanduser().is_file():
        raise FileNotFoundError(f"{model}: no such mask network")
    try:
        from rembg import new_session
    except (ImportError, SystemExit) as error:  # rembg leaves the process when it finds no onnxruntime
        raise ValueError("masks need rembg: pip install 'mtcm_nerfstudio[masks]'") from error
    if model.endswith(".onnx"):
        return _loaded(lambda: new_session("u2net_custom", model_path=model), model)
    return _loaded(lambda: new_session(model), model)


def write_masks(
    session: MaskSession, images: Path, names: Sequence[str], masks: Path, advance: Callable[[int], None]
) -> list[str]:
    """Write one black-and-white mask for each image; masks that are already there stay.

    Returns:
        The masks' names relative to ``masks``, in the order of ``names``.
    """
    mask_names = names_of_masks(names)
    for done, (name, mask_name) in enumerate(zip(names, mask_names, strict=True), start=1):
        if not (masks / mask_name).is_file():
            _write_png(subject_mask(session, read_rgb(images / name)), masks / mask_name)
        advance(done)
    return mask_names


def subject_mask(session: MaskSession, image: Image.Image) -> Image.Image:
    """Return the mask of an image's subject: mode L, 255 where the network is more sure than not, else 0.

    Several subjects are one mask: their union.
    """
    soft = [np.asarray(mask.convert("L").resize(image.size)) for mask in session.predict(image)]
    union = np.max(soft, axis=0) if soft else np.zeros((image.height, image.width), dtype=np.uint8)
    return Image.fromarray(np.where(union > 127, 255, 0).astype(np.uint8))


def names_of_masks(names: Sequence[str]) -> list[str]:
    """Name each image's mask: ``0001.png`` for ``0001.jpg``, or ``0001.jpg.png`` where two images share a stem."""
    short = [PurePosixPath(name).with_suffix(".png").as_posix() for name in names]
    return [name if short.count(name) == 1 else f"{full}.png" for name, full in zip(short, names, strict=True)]


def _write_png(mask: Image.Image, path: Path) -> None:
    """Write through a temporary name, so that a mask is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    mask.save(partial, format="PNG")
    partial.replace(path)


def _loaded(load: Callable[[], MaskSession], model: str) -> MaskSession:
    """Load a network; whatever goes wrong inside rembg, pooch or onnxruntime reaches the user as one line."""
    try:
        return load()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"mask network {model!r} cannot be loaded ({reason[:200]}). With no internet, --mask-model takes an .onnx"
        ) from error
