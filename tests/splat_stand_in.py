"""What gsplat's rasteriser does, in plain torch and for round splats only: enough to train a few of them on a CPU."""

import torch
from torch import Tensor

_OF_COLOUR = 0.28209479177387814
"""The spherical harmonic of degree 0."""


def rasterize(
    means: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, width: int, height: int,
    **rest: Tensor,
) -> tuple[Tensor, Tensor, dict]:  # fmt: skip
    """Blend splats from front to back; returns picture (with expected depth), coverage, and what the strategy asks."""
    intrinsics = rest["Ks"][0]
    seen = means @ viewmats[0, :3, :3].T + viewmats[0, :3, 3]
    z = seen[:, 2].clamp(min=0.05)
    focal, middle = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    places = (focal * seen[:, :2] / z[:, None] + middle)[None]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    size = (focal[0] * scales.mean(dim=1) / z).clamp(min=0.7)
    away = (x[..., None] - places[0, :, 0]).square() + (y[..., None] - places[0, :, 1]).square()
    alpha = opacities * torch.exp(-0.5 * away / size.square()) * (seen[:, 2] > 0.05)
    order = seen[:, 2].argsort()
    alpha = alpha[..., order].clamp(max=0.99)
    passed = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1.0 - alpha], dim=-1), dim=-1)
    share = alpha * passed[..., :-1]
    colour = (0.5 + _OF_COLOUR * colors[:, 0]).clamp(min=0.0)[order]
    info = {
        "means2d": places,
        "radii": size.detach()[None],
        "width": width,
        "height": height,
        "n_cameras": 1,
        "gaussian_ids": None,
    }
    picture = share @ colour
    if rest["render_mode"] == "RGB+ED":
        depth = (share @ seen[order, 2])[..., None] / share.sum(dim=-1, keepdim=True).clamp(min=1e-6)
        picture = torch.cat([picture, depth], dim=-1)
    return picture[None], share.sum(dim=-1, keepdim=True)[None], info
