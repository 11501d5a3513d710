"""A place as it stands: its solids, textures and light, and the route through it if it has one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rendering.raycast import Light, Stage
from rendering.shapes import Part
from rendering.textures import Atlas


@dataclass(frozen=True, eq=False)
class Place:
    """Everything that a stage is made of, so that parts of it can be exchanged."""

    parts: tuple[Part, ...]
    atlas: Atlas
    detail_texture: int
    sky_texture: int
    light: Light
    centre: Float[np.ndarray, "3"]
    """Middle of the subject, or of the place if it has none."""
    floor: float
    """Height of the ground."""
    route: Float[np.ndarray, "corner 2"] | None = None
    """Corners of the route through the place, on the ground."""
    solid_textures: tuple[int, ...] = (4, 5, 6, 7)
    """Indices of the textures for what is added to the place."""

    @property
    def has_subject(self) -> bool:
        """Whether any part is the subject."""
        return any(part.is_subject for part in self.parts)

    def stage(self, extra: Sequence[Part] = ()) -> Stage:
        """Return the place ready to be photographed, with further parts in it."""
        return Stage([*self.parts, *extra], self.atlas, self.detail_texture, self.sky_texture, self.light)
