"""Rays from suggested views: nobody knows what they see, but the NeRF is to be tidy there too.

They have no colour to be compared with. A model's losses on how its samples lie along a ray (nerfacto's distortion and
proposal losses: little mass in front of a surface, none spread through the air) hold for them as for any other ray.
"""

from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor


class UnseenRays:
    """Draws rays from views that are no frames, the same ones for the same seed."""

    def __init__(self, cameras: Cameras, share: float, seed: int = 0) -> None:
        """Take the views.

        Args:
            cameras: in the scene.
            share: of a batch's own number of rays that is drawn, above 0.
            seed: the rays come from a generator of their own, so the NeRF's other draws stay what they are.
        """
        self.cameras, self.share = cameras, share
        self._generator = torch.Generator().manual_seed(seed)

    def beside(self, rays: RayBundle) -> RayBundle:
        """Return a batch of rays with rays from the views after them."""
        count = max(1, round(self.share * len(rays)))
        device = rays.origins.device
        which = torch.randint(len(self.cameras), (count,), generator=self._generator)
        size = torch.cat([self.cameras.height, self.cameras.width], dim=-1).reshape(-1, 2).cpu()[which]
        places = torch.rand((count, 2), generator=self._generator) * size
        cameras = self.cameras.to(device)
        more = cameras.generate_rays(camera_indices=which[:, None].to(device), coords=places.to(device))
        return _joined(rays, more)


def of_photos(outputs: dict[str, Any], count: int) -> dict[str, Any]:
    """Return a model's outputs with what is compared to photos cut to the first ``count`` rays.

    How samples lie along the rays comes in lists, and stays whole.
    """
    return {name: value[:count] if isinstance(value, Tensor) else value for name, value in outputs.items()}


def _joined(first: RayBundle, second: RayBundle) -> RayBundle:
    """Put one bundle after another; the second counts as seen by the first camera, for models that ask."""

    def both(name: str) -> Float[Tensor, "ray _"] | None:
        one, other = getattr(first, name), getattr(second, name)
        return None if one is None or other is None else torch.cat([one, other.to(one)])

    assert first.camera_indices is not None
    nobody = torch.zeros_like(first.camera_indices[:1]).expand(len(second), 1)
    metadata = {
        key: torch.cat([value, second.metadata[key].to(value)])
        for key, value in first.metadata.items()
        if key in second.metadata
    }
    return RayBundle(
        origins=torch.cat([first.origins, second.origins]),
        directions=torch.cat([first.directions, second.directions]),
        pixel_area=torch.cat([first.pixel_area, second.pixel_area]),
        camera_indices=torch.cat([first.camera_indices, nobody]),
        nears=both("nears"),
        fars=both("fars"),
        metadata=metadata,
        times=both("times"),
    )
