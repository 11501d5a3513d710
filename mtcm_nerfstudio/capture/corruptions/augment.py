"""Image augmentations that stay valid training frames: exposure, blur, colour, JPEG quality, a small passer-by."""

import cv2
import numpy as np
from PIL import Image

from mtcm_nerfstudio.capture.corruptions.image import blurred, exposed, gaussian_kernel, line_kernel, occluded

_LARGEST_STOPS = 0.45
_LARGEST_BLUR = 0.002
"""Length of a motion blur, as a share of the longer side, that is hardly visible."""
_SMALLEST_PASSER_BY, _LARGEST_PASSER_BY = 0.003, 0.02
"""Share of the image that something small in the background covers."""


def augment_image(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return an image that is a little brighter, softer, warmer or more compressed, or has something small in it."""
    pixels = np.asarray(image.convert("RGB"))
    match int(rng.integers(5)):
        case 0:
            changed = exposed(pixels, float(rng.uniform(-_LARGEST_STOPS, _LARGEST_STOPS)))
        case 1:
            length = rng.uniform(0.0, _LARGEST_BLUR) * max(image.size)
            soft = (
                gaussian_kernel(0.5 * length + 0.3)
                if rng.random() < 0.5
                else line_kernel(length, rng.uniform(0, np.pi))
            )
            changed = blurred(pixels, soft)
        case 2:
            changed = occluded(pixels, float(rng.uniform(_SMALLEST_PASSER_BY, _LARGEST_PASSER_BY)), rng)
        case 3:
            warmth = rng.uniform(-0.06, 0.06)
            changed = np.clip(pixels * np.array([1.0 + warmth, 1.0, 1.0 - warmth]), 0, 255).astype(np.uint8)
        case _:
            noise = rng.normal(0.0, rng.uniform(0.5, 3.0), pixels.shape[:2])[..., None]
            changed = cv2.convertScaleAbs(np.clip(pixels + noise, 0, 255))
    return Image.fromarray(changed)
