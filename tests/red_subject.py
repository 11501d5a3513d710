"""A session of rembg's interface that needs no network."""

import numpy as np
from PIL import Image


class RedIsTheSubject:
    """A small session of rembg's interface: soft masks from colour, one for each half of the image."""

    def __init__(self) -> None:
        self.seen = 0

    def predict(self, img: Image.Image, *args, **kwargs) -> list[Image.Image]:
        self.seen += 1
        red = np.asarray(img).astype(int)
        soft = np.clip(red[..., 0] - red[..., 1:].max(axis=-1), 0, 255).astype(np.uint8)
        left, right = soft.copy(), soft.copy()
        left[:, img.width // 2 :] = 0
        right[:, : img.width // 2] = 0
        return [Image.fromarray(left), Image.fromarray(right)]
