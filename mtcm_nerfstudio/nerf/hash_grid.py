"""nerfstudio's hash grid in torch, two to three times as fast on a CPU: the same table, the same numbers.

nerfstudio's own (``HashEncoding.pytorch_fwd``) is most of what a step of the tiny method takes. It multiplies and
divides 64-bit integers for each of a cell's eight corners, and its gradient is scattered entry by entry. Here each
axis is hashed once, with the low bits of the primes, and features are gathered and scattered one at a time, so that
both run over contiguous numbers.
"""

from itertools import product
from typing import Any

import torch
from jaxtyping import Float, Int32
from nerfstudio.field_components.encodings import HashEncoding
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_PRIMES = (1, 2_654_435_761, 805_459_861)
"""Of the axes (Müller et al., Instant Neural Graphics Primitives, 2022, section 3), as in nerfstudio."""
_CORNERS = tuple(product((0, 1), repeat=3))
_LARGEST = 31
"""Bits of a product that a 32-bit integer can hold."""


class QuickHashEncoding(HashEncoding):
    """A ``HashEncoding`` whose torch path is quick. Only made from one that is there, see ``quicken``."""

    def pytorch_fwd(self, in_tensor: Float[Tensor, "*bs 3"]) -> Float[Tensor, "*bs output_dim"]:
        """Encode points in [0, 1]³. Beside a GPU nerfstudio's own path is as good: this one is made for a CPU."""
        if in_tensor.is_cuda:
            return super().pytorch_fwd(in_tensor)
        rows, weights = _corners(self, in_tensor.reshape(-1, 3))
        features = _Gather.apply(self.hash_table, rows.flatten(1), weights.flatten(1))
        by_level = features.unflatten(1, (-1, self.num_levels)).permute(1, 2, 0)  # point level feature
        return by_level.reshape(*in_tensor.shape[:-1], self.get_out_dim())


def quicken(model: nn.Module) -> None:
    """Let all hash grids below a module that run in torch run the quick way; their parameters stay what they are."""
    for module in model.modules():
        if type(module) is HashEncoding and module.tcnn_encoding is None and _fits(module):
            module.__class__ = QuickHashEncoding


def _fits(encoding: HashEncoding) -> bool:
    """Tell whether the products of cells and low bits of primes stay within 32-bit integers."""
    return encoding.log2_hashmap_size + int(encoding.scalings.max()).bit_length() <= _LARGEST


def _corners(
    encoding: HashEncoding, points: Float[Tensor, "point 3"]
) -> tuple[Int32[Tensor, "8 point level"], Float[Tensor, "8 point level"]]:
    """Return the rows of the table at the corners of each point's cell, and the trilinear weights."""
    scaled = points[:, :, None] * encoding.scalings.to(points.device)  # point axis level
    low = scaled.detach().floor()
    share = scaled - low
    size = encoding.hash_table_size
    # Low bits of a product depend on low bits alone.
    primes = torch.tensor([prime % size for prime in _PRIMES], dtype=torch.int32, device=points.device)[:, None]
    hashed = [side.to(torch.int32) * primes for side in (low, scaled.detach().ceil())]
    weight = [1.0 - share, share]
    first_row = encoding.hash_offset.to(points.device, torch.int32)
    rows, weights = [], []
    for x, y, z in _CORNERS:
        rows.append(((hashed[x][:, 0] ^ hashed[y][:, 1] ^ hashed[z][:, 2]) & (size - 1)) + first_row)
        weights.append(weight[x][:, 0] * weight[y][:, 1] * weight[z][:, 2])
    return torch.stack(rows), torch.stack(weights)


class _Gather(torch.autograd.Function):
    """Weighted sums of rows of a table."""

    @staticmethod
    def forward(
        ctx: Any, table: Float[Tensor, "row feature"], rows: Int32[Tensor, "8 k"], weights: Float[Tensor, "8 k"]
    ) -> Float[Tensor, "feature k"]:
        """Return Σ_corner weight · table[row], a contiguous row for each feature."""
        ctx.save_for_backward(table, rows, weights)
        out = weights.new_zeros(table.shape[1], rows.shape[1])
        for column, values in zip(out, table.T.contiguous(), strict=True):
            for row, weight in zip(rows, weights, strict=True):
                column.addcmul_(values.index_select(0, row), weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator hides the names)
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, None, Tensor | None]:
        """Return the gradients by the table and by the weights, where they are asked for."""
        (gradient,) = gradients
        table, rows, weights = ctx.saved_tensors
        by_table = by_weights = None
        if ctx.needs_input_grad[0]:
            by_feature = table.new_zeros(table.shape[1], table.shape[0])
            for column, of_feature in zip(by_feature, gradient, strict=True):
                column.index_add_(0, rows.flatten(), (weights * of_feature).flatten().to(table.dtype))
            by_table = by_feature.T
        if ctx.needs_input_grad[2]:
            by_weights = torch.zeros_like(weights)
            for values, of_feature in zip(table.T.contiguous(), gradient, strict=True):
                by_weights += values.index_select(0, rows.flatten()).view_as(weights) * of_feature
        return by_table, None, by_weights
