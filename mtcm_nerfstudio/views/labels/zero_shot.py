"""What a picture shows, by the likeliest of given phrases: CLIP's zero-shot classification (Radford et al., 2021).

Needs the extra ``clip``.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.capture.images import UnreadableImageError, read_rgb
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders.base import network_input
from mtcm_nerfstudio.tokens.embedders.clip import CLIP_MEAN, CLIP_STD, HUB_MODEL, MODEL_VARIABLE
from mtcm_nerfstudio.tokens.embedders.hub import chosen_model, load_pretrained
from mtcm_nerfstudio.tokens.embedders.network import torch_device, weights_digest
from mtcm_nerfstudio.tokens.progress import progress_bars

_PROMPT = "a photo of {}"
_BATCH = 16


def classify_images(
    frames: Sequence[Frame],
    phrases: Sequence[str],
    cache: Cache,
    progress: bool = True,
    model: str | Path | None = None,
) -> tuple[str | None, ...]:
    """Return, for every frame, the phrase that its picture goes with best; None where it cannot be read.

    Args:
        frames: of a capture.
        phrases: to choose from, for instance "the front of a person".
        cache: where answers are kept, by the images' contents.
        progress: show a progress bar.
        model: a folder or hub name; default: ``$MTCM_CLIP_MODEL``, else ``openai/clip-vit-base-patch32``.

    Raises:
        ValueError: ``transformers`` or CLIP cannot be had.
    """
    asker = _ZeroShotClassifier(phrases, str(chosen_model(model, MODEL_VARIABLE, HUB_MODEL)))
    there = {i: cache.content_digest(f.image_path) for i, f in enumerate(frames) if f.image_path.is_file()}
    known = {i: cache.get(asker.kind, digest) for i, digest in there.items()}
    unknown = [i for i, answer in known.items() if answer is None]
    starts = range(0, len(unknown), _BATCH)
    for start in progress_bars(progress)(starts, "Finding words", len(starts)):
        batch = unknown[start : start + _BATCH]
        images = {i: image for i in batch if (image := _read(frames[i])) is not None}
        if images:
            found = dict(zip(images, asker.phrase_logits(list(images.values())), strict=True))
            cache.put_many(asker.kind, {there[i]: one for i, one in found.items()})
            known |= found
    best = {i: phrases[int(np.argmax(answer))] for i, answer in known.items() if answer is not None}
    return tuple(best.get(i) for i in range(len(frames)))


class _ZeroShotClassifier:
    """CLIP with the phrases read already."""

    def __init__(self, phrases: Sequence[str], source: str) -> None:
        device = torch_device("auto")
        self._network = load_pretrained("clip-vit-b32", "clip", "CLIPModel", source, MODEL_VARIABLE).eval().to(device)
        tokenizer = load_pretrained("clip-vit-b32", "clip", "CLIPTokenizerFast", source, MODEL_VARIABLE)
        prompts = [_PROMPT.format(phrase) for phrase in phrases]
        self._text = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt").to(device)
        asked = hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:12]
        self.kind = f"words:{weights_digest(self._network)}:{asked}"

    def phrase_logits(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "image phrase"]:
        """Return the logits of all phrases for each image."""
        side = self._network.config.vision_config.image_size
        pixels = torch.from_numpy(network_input(images, side, CLIP_MEAN, CLIP_STD))
        with torch.inference_mode():
            output = self._network(pixel_values=pixels.to(self._text["input_ids"].device), **self._text)
        return output.logits_per_image.float().cpu().numpy()


def _read(frame: Frame) -> Image.Image | None:
    try:
        return read_rgb(frame.image_path)
    except UnreadableImageError:
        return None
