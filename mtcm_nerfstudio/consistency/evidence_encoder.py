"""How evidence about frames and pairs enters the transformer."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from mtcm_nerfstudio.evidence.frame_numbers import Evidence
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS, PAIR_NUMBERS

_HIDDEN = 64


class EvidenceInput(NamedTuple):
    """The evidence of a batch of captures."""

    frames: Float[Tensor, "capture frame frame_number"]
    """See ``evidence.frame_numbers.FRAME_NUMBERS``; zero where not known."""
    known: Bool[Tensor, "capture frame"]
    """Frames about which there is evidence."""
    pairs: Float[Tensor, "capture frame frame pair_number"]
    """About the pair of a frame (second axis) and its partner (third), as the frame sees it."""
    compared: Bool[Tensor, "capture frame frame"]
    """Pairs that were compared."""

    def to(self, device: torch.device) -> "EvidenceInput":
        """Return the evidence on another device."""
        return EvidenceInput(*(part.to(device) for part in self))

    def without(self, hidden: Bool[Tensor, "capture frame"]) -> "EvidenceInput":
        """Return the evidence with all about some frames taken out."""
        both = ~hidden[:, :, None] & ~hidden[:, None, :]
        return EvidenceInput(self.frames, self.known & ~hidden, self.pairs, self.compared & both)


class EvidenceEmbedding(NamedTuple):
    """Evidence as additive frame states and attention biases."""

    states: Float[Tensor, "capture frame dim"]
    """To be added to the frames' first states, and to what is judged."""
    bias: Float[Tensor, "layer capture head frame frame"]
    """To be added to the attention of every layer."""


class EvidenceEncoder(nn.Module):
    """Embed evidence as frame states and attention biases; zeros for frames without evidence."""

    def __init__(self, width: int, layers: int, heads: int, frame_numbers: int, pair_numbers: int) -> None:
        """Create the layers; attention biases are initialised with zeros."""
        super().__init__()
        self.layers, self.heads = layers, heads
        self.frame = nn.Sequential(nn.Linear(frame_numbers, width), nn.GELU(), nn.Linear(width, _HIDDEN))
        self.pair = nn.Linear(pair_numbers, _HIDDEN)
        self.partner = nn.Linear(_HIDDEN, _HIDDEN, bias=False)
        self.out = nn.Sequential(nn.Linear(2 * _HIDDEN, width), nn.GELU(), nn.Linear(width, width))
        self.bias = nn.Linear(_HIDDEN, layers * heads)
        nn.init.zeros_(self.bias.weight)
        nn.init.zeros_(self.bias.bias)

    def forward(self, evidence: EvidenceInput) -> EvidenceEmbedding:
        """Read the evidence of a batch."""
        known = evidence.known[..., None]
        frame = self.frame(evidence.frames) * known
        pair = functional.gelu(self.pair(evidence.pairs) + self.partner(frame)[:, None])
        pair = pair * evidence.compared[..., None]
        pair_mean = pair.sum(dim=2) / (evidence.compared.sum(dim=2, keepdim=True) + 1.0)
        states = self.out(torch.cat([frame, pair_mean], dim=-1)) * known
        bias = self.bias(pair) * evidence.compared[..., None]
        return EvidenceEmbedding(states, bias.unflatten(-1, (self.layers, self.heads)).permute(3, 0, 4, 1, 2))


def evidence_input(evidence: Sequence[Evidence | None], length: int | None = None) -> EvidenceInput | None:
    """Pad the evidence of several captures to one length and stack it; None where no capture has any."""
    if all(one is None for one in evidence):
        return None
    count = length or max(len(one.frames) for one in evidence if one is not None)
    frames = torch.zeros(len(evidence), count, len(FRAME_NUMBERS))
    known = torch.zeros(len(evidence), count, dtype=torch.bool)
    pairs = torch.zeros(len(evidence), count, count, len(PAIR_NUMBERS))
    compared = torch.zeros(len(evidence), count, count, dtype=torch.bool)
    for row, one in enumerate(evidence):
        if one is None:
            continue
        frames[row, : len(one.frames)] = torch.from_numpy(one.frames)
        known[row, : len(one.frames)] = True
        for own, other, side in ((0, 1, 0), (1, 0, 1)):
            places = row, torch.from_numpy(one.pairs[:, own]), torch.from_numpy(one.pairs[:, other])
            pairs[places] = torch.from_numpy(one.of_pairs[:, side]).float()
            compared[places] = True
    return EvidenceInput(frames, known, pairs, compared)
