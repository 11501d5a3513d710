"""The quick hash grid against nerfstudio's own."""

import pytest
import torch
from nerfstudio.field_components.encodings import HashEncoding
from torch import nn

from mtcm_nerfstudio.nerf.hash_grid import QuickHashEncoding, quicken


def both(levels: int = 10, finest: int = 512, table: int = 15) -> tuple[HashEncoding, HashEncoding]:
    stock = HashEncoding(levels, 16, finest, table, 2, 0.5, "torch")
    quick = HashEncoding(levels, 16, finest, table, 2, 0.5, "torch")
    quick.load_state_dict(stock.state_dict())
    quicken(nn.Sequential(quick))
    assert type(quick) is QuickHashEncoding
    return stock, quick


def points() -> torch.Tensor:
    torch.manual_seed(0)
    on_the_grid = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 0.25, 0.125]])
    return torch.cat([torch.rand(500, 3), on_the_grid])


@pytest.mark.parametrize(("levels", "finest", "table"), [(10, 512, 15), (5, 64, 13), (1, 16, 5), (16, 2048, 19)])
def test_the_quick_grid_encodes_as_nerfstudio_does(levels, finest, table):
    stock, quick = both(levels, finest, table)
    torch.testing.assert_close(quick(points()), stock(points()), rtol=0, atol=1e-6)
    shaped = points()[:500].view(20, 25, 3)
    assert quick(shaped).shape == stock(shaped).shape == (20, 25, 2 * levels)
    assert quick(points()[:0]).shape == (0, 2 * levels)
    assert quick(points()[0]).shape == (2 * levels,)


def test_its_gradients_are_those_of_nerfstudio():
    stock, quick = both()
    slopes = torch.randn(503, 20)
    for encoding in (stock, quick):
        encoding.where = points().requires_grad_()
        (encoding(encoding.where) * slopes).sum().backward()
    torch.testing.assert_close(quick.hash_table.grad, stock.hash_table.grad, rtol=1e-5, atol=1e-5)
    assert stock.where.grad.abs().max() > 1.0
    torch.testing.assert_close(quick.where.grad[:500], stock.where.grad[:500], rtol=1e-4, atol=1e-3)


def test_a_grid_too_fine_for_32_bits_stays_as_it_is():
    fine = HashEncoding(2, 16, 2**20, 19, 2, 0.5, "torch")
    quicken(nn.Sequential(fine))
    assert type(fine) is HashEncoding


def test_the_parameters_keep_their_names():
    stock, quick = both()
    assert list(quick.state_dict()) == list(stock.state_dict()) == ["hash_table"]
