"""One layer of the encoder, with attention in two ways: by the fused kernel, and step by step for its weights."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head self-attention over the frames of a capture.

    ``allowed`` is added to the scores: −inf where a frame may not be looked at, else 0 or what evidence says.
    """

    def __init__(self, width: int, heads: int) -> None:
        """Make the projections."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "capture frame dim"], allowed: Float[Tensor, "capture *heads frame"]
    ) -> Float[Tensor, "capture frame dim"]:
        """Attend with the fused kernel."""
        q, k, v = self._split(x)
        return self._merge(functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed))

    def explicit(
        self, x: Float[Tensor, "capture frame dim"], allowed: Float[Tensor, "capture *heads frame"]
    ) -> tuple[Float[Tensor, "capture frame dim"], Float[Tensor, "capture head frame frame"]]:
        """Attend step by step and return the weights as well, which the fused kernel does not."""
        q, k, v = self._split(x)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        weights = (scores + allowed).softmax(dim=-1)
        return self._merge(weights @ v), weights

    def _split(self, x: Float[Tensor, "capture frame dim"]) -> tuple[Tensor, Tensor, Tensor]:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # capture frame 3 head head_dim
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each: capture head frame head_dim
        return q, k, v

    def _merge(self, heads: Float[Tensor, "capture head frame head_dim"]) -> Float[Tensor, "capture frame dim"]:
        return self.out(heads.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Pre-norm encoder layer: attention, then a feed-forward block, each added to what came in."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        """Make the layer's parts; ``feed_forward`` is the width of the hidden layer of its second block."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, feed_forward), nn.GELU(), nn.Linear(feed_forward, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "capture frame dim"], allowed: Float[Tensor, "capture *heads frame"]
    ) -> Float[Tensor, "capture frame dim"]:
        """Run the layer."""
        x = x + self.dropout(self.attention(self.attention_norm(x), allowed))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def explicit(
        self, x: Float[Tensor, "capture frame dim"], allowed: Float[Tensor, "capture *heads frame"]
    ) -> tuple[Float[Tensor, "capture frame dim"], Float[Tensor, "capture head frame frame"]]:
        """Run the layer without the fused kernel and return its attention weights as well."""
        attended, weights = self.attention.explicit(self.attention_norm(x), allowed)
        x = x + self.dropout(attended)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), weights


def positional_encoding(frames: int, width: int, start: int = 0) -> Float[Tensor, "frame dim"]:
    """Return the sinusoidal encoding of the ranks start … start + frames − 1 (Vaswani et al., 2017, section 3.5)."""
    rank = torch.arange(start, start + frames, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    return torch.cat([torch.sin(rank * frequency), torch.cos(rank * frequency)], dim=-1)
