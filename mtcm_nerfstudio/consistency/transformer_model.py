"""The consistency transformer: one token per frame in, inconsistency, modality and reason logits per frame out.

BERT-style (Devlin et al., 2019): Linear 394 → d_model, sinusoidal positional encoding over the frame's rank, pre-norm
encoder layers, masked modelling, and ELECTRA's replaced-token detection (Clark et al., 2020) as the verdict.
Attention is over all frames that it is shown; captures longer than those that a checkpoint was trained on are read in
windows of that length (``consistency.score``).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from mtcm_nerfstudio.consistency.encoder import EncoderLayer, positional_encoding
from mtcm_nerfstudio.consistency.evidence_encoder import EvidenceEmbedding, EvidenceEncoder, EvidenceInput
from mtcm_nerfstudio.consistency.forest import Forest
from mtcm_nerfstudio.consistency.neighbours import NeighbourComparison, between_neighbours
from mtcm_nerfstudio.consistency.standardisation import Standardisation
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS, PAIR_NUMBERS
from mtcm_nerfstudio.tokens.tokens import PARTS, POSE, TOKEN_DIM

MODALITIES = ("image", "pose", "time")
"""What the consistency head judges separately."""
REASONS = ("pose", "blur", "exposure", "occlusion", "foreign")
"""Why a frame does not agree, in the order of the reason head's outputs."""

_LONGEST_RANK_OFFSET = 1000


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the transformer."""

    d_model: int = 256
    """Width of a token's state."""
    layers: int = 4
    """Number of encoder layers."""
    heads: int = 8
    """Attention heads a layer; must divide the width."""
    feed_forward: int = 512
    """Width of the hidden layer of each feed-forward block."""
    dropout: float = 0.1
    """Share of activations dropped while training, in [0, 1)."""
    neighbours: int = 3
    """How many frames count as near by pose, and as alike by appearance."""
    frame_numbers: int = len(FRAME_NUMBERS)
    """Numbers of evidence about each frame."""
    pair_numbers: int = len(PAIR_NUMBERS)
    """Numbers of evidence about each pair of frames."""
    forest_trees: int = 0
    """Trees of the forest that judges the evidence numbers beside the transformer; 0: there is none."""
    forest_nodes: int = 0
    """Nodes of all its trees."""
    forest_depth: int = 0
    """Depth of its deepest tree."""
    position_limit: float = 8.0
    """Distance from the capture's centre, in its own units, towards which far positions are pulled."""

    def __post_init__(self) -> None:
        """Check that the sizes fit together."""
        for name in ("d_model", "layers", "heads", "feed_forward", "neighbours"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.d_model % (2 * self.heads):
            raise ValueError(
                f"d_model must be a multiple of twice the heads, got d_model {self.d_model} and heads {self.heads}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.heads


class ModelOutput(NamedTuple):
    """Outputs per frame; zero at padding."""

    reconstruction: Float[Tensor, "capture frame 394"]
    """Every frame's token as the others imply it, in the standardised space of ``ConsistencyTransformer.targets``."""
    next_pose: Float[Tensor, "capture 7"]
    """Pose that comes after the last frame: position (softly limited) in the capture's units, unit quaternion."""
    inconsistency_logit: Float[Tensor, "capture frame"]
    """Above zero: more likely at odds with the capture than not (before calibration)."""
    modality_logits: Float[Tensor, "capture frame 3"]
    """The same for each of ``MODALITIES``."""
    reason_logits: Float[Tensor, "capture frame 5"]
    """Which of ``REASONS`` it is, if the frame is at odds."""
    forest_logit: Float[Tensor, "capture frame"]
    """The forest's log odds that the frame is faulty; the transformer's where there is no evidence or no forest."""
    forest_reasons: Float[Tensor, "capture frame 5"]
    """The forest's probability of each reason, given that the frame is faulty; zeros where it has no opinion."""
    states: Float[Tensor, "capture frame dim"]
    """The last layer's token states, normalised."""


class ConsistencyTransformer(nn.Module):
    """The transformer with its heads. Every method takes the same arguments.

    tokens: as ``tokens.tokens`` makes them (raw, not standardised); zeros at padding.
    present: which of ``PARTS`` each frame has.
    padding: **True where there is a real frame**; real frames come first.
    masked: which parts are hidden from the network. What is hidden or absent never reaches an output.
    evidence: what matches say of frames and pairs; left out for frames of which a part is hidden, since it would tell.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        """Make a transformer with random weights."""
        super().__init__()
        self.config = config = config or ModelConfig()
        width = config.d_model
        self.standardisation = Standardisation(config.position_limit)
        self.absent = nn.Parameter(0.02 * torch.randn(TOKEN_DIM))
        self.hidden = nn.Parameter(0.02 * torch.randn(TOKEN_DIM))
        self.embed = nn.Linear(TOKEN_DIM, width)
        self.known = nn.Linear(2 * len(PARTS), width, bias=False)
        self.comparison = NeighbourComparison(width, config.neighbours)
        self.evidence = EvidenceEncoder(width, config.layers, config.heads, config.frame_numbers, config.pair_numbers)
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.heads, config.feed_forward, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.reconstruct = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, TOKEN_DIM))
        self.step_to_next_pose = nn.Linear(width, POSE.stop - POSE.start)
        self.judge = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1 + len(MODALITIES) + len(REASONS))
        )
        self.forest = Forest(config.forest_nodes, config.forest_trees, config.forest_depth, 1 + len(REASONS))
        # At first a hidden token lies between its neighbours, and the next pose where the last one is.
        for output in (self.reconstruct[-1], self.step_to_next_pose):
            assert isinstance(output, nn.Linear)
            nn.init.zeros_(output.weight)
            nn.init.zeros_(output.bias)

    def forward(
        self,
        tokens: Float[Tensor, "capture frame 394"],
        present: Bool[Tensor, "capture frame 5"],
        padding: Bool[Tensor, "capture frame"],
        masked: Bool[Tensor, "capture frame 5"],
        evidence: EvidenceInput | None = None,
    ) -> ModelOutput:
        """Return the outputs for every frame."""
        visible = _visible(present, padding, masked)
        standardised = self._standardised(tokens, visible)
        x = self._first_states(standardised, present, masked, visible)
        evidence_embedding = self._read(evidence, masked, x)
        x, allowed = x + evidence_embedding.states, _allowed(padding)
        for layer, bias in zip(self.layers, evidence_embedding.bias, strict=True):
            x = layer(x, allowed + bias)
        states = self.norm(x) * padding[..., None]
        judged = self.judge(states + evidence_embedding.states) * padding[..., None]
        inconsistency, modality, reason = judged.split([1, len(MODALITIES), len(REASONS)], dim=-1)
        forest_logit, forest_reasons = self._ask_forest(evidence, inconsistency.squeeze(-1).detach())
        return ModelOutput(
            reconstruction=(between_neighbours(standardised, visible) + self.reconstruct(states)) * padding[..., None],
            next_pose=self._next_pose(tokens, visible, padding, states),
            inconsistency_logit=inconsistency.squeeze(-1),
            modality_logits=modality,
            reason_logits=reason,
            forest_logit=forest_logit,
            forest_reasons=forest_reasons,
            states=states,
        )

    def set_forest(self, forest: Forest) -> None:
        """Set the forest whose logits are added after calibration."""
        self.forest = forest.to(self.embed.weight.device)
        self.config = replace(
            self.config, forest_trees=forest.trees, forest_nodes=len(forest.cut), forest_depth=forest.depth
        )

    def attention_weights(
        self,
        tokens: Float[Tensor, "capture frame 394"],
        present: Bool[Tensor, "capture frame 5"],
        padding: Bool[Tensor, "capture frame"],
        masked: Bool[Tensor, "capture frame 5"],
        evidence: EvidenceInput | None = None,
    ) -> Float[Tensor, "layer capture head frame frame"]:
        """Return how much each frame (second to last axis) looks at each other one, by layer and head."""
        visible = _visible(present, padding, masked)
        x = self._first_states(self._standardised(tokens, visible), present, masked, visible)
        evidence_embedding = self._read(evidence, masked, x)
        x, allowed = x + evidence_embedding.states, _allowed(padding)
        weights = []
        for layer, bias in zip(self.layers, evidence_embedding.bias, strict=True):
            assert isinstance(layer, EncoderLayer)
            x, of_layer = layer.explicit(x, allowed + bias)
            weights.append(of_layer)
        return torch.stack(weights)

    def targets(
        self,
        wanted: Float[Tensor, "capture frame 394"],
        tokens: Float[Tensor, "capture frame 394"],
        present: Bool[Tensor, "capture frame 5"],
        padding: Bool[Tensor, "capture frame"],
        masked: Bool[Tensor, "capture frame 5"],
    ) -> Float[Tensor, "capture frame 394"]:
        """Standardise tokens (``wanted``) as the reconstruction has them when the network is given ``tokens``."""
        centre = self.standardisation.centre(tokens, _visible(present, padding, masked))
        return self.standardisation(wanted, centre)

    def _standardised(
        self, tokens: Float[Tensor, "capture frame 394"], visible: Bool[Tensor, "capture frame 5"]
    ) -> Float[Tensor, "capture frame 394"]:
        """Standardise what is visible; zeros elsewhere."""
        standardised = self.standardisation(tokens, self.standardisation.centre(tokens, visible))
        return standardised.masked_fill(~visible[..., self.standardisation.part_of_entry], 0.0)

    def _first_states(
        self,
        standardised: Float[Tensor, "capture frame 394"],
        present: Bool[Tensor, "capture frame 5"],
        masked: Bool[Tensor, "capture frame 5"],
        visible: Bool[Tensor, "capture frame 5"],
    ) -> Float[Tensor, "capture frame dim"]:
        """Fill absent and masked entries with learned values and embed the tokens."""
        entries = self.standardisation.part_of_entry
        unseen = torch.where(present[..., entries], self.hidden, self.absent)
        filled = torch.where(visible[..., entries], standardised, unseen)
        parts = torch.cat([visible, present & masked], dim=-1).to(filled.dtype)
        x = self.embed(filled) + self.known(parts) + self.comparison(standardised, visible)
        return x + self._positions(x)

    def _read(
        self,
        evidence: EvidenceInput | None,
        masked: Bool[Tensor, "capture frame 5"],
        x: Float[Tensor, "capture frame dim"],
    ) -> EvidenceEmbedding:
        """Read the evidence; without any, nothing is added anywhere."""
        if evidence is None:
            return EvidenceEmbedding(torch.zeros_like(x), x.new_zeros(len(self.layers), len(x), 1, 1, 1))
        return self.evidence(evidence.without(masked.any(dim=-1)))

    @torch.no_grad()
    def _ask_forest(
        self, evidence: EvidenceInput | None, otherwise: Float[Tensor, "capture frame"]
    ) -> tuple[Float[Tensor, "capture frame"], Float[Tensor, "capture frame 5"]]:
        """Return logits and reason probabilities of the forest; ``otherwise`` and zeros for frames without evidence."""
        nothing = otherwise.new_zeros((*otherwise.shape, len(REASONS)))
        if evidence is None or not self.config.forest_trees:
            return otherwise, nothing
        probability = self.forest(evidence.frames)
        logit = torch.where(evidence.known, self.forest.logit(probability), otherwise)
        faulty = probability[..., 1:]
        share = faulty / faulty.sum(dim=-1, keepdim=True).clamp(min=1e-6)
        return logit, torch.where(evidence.known[..., None], share, nothing)

    def _positions(self, x: Float[Tensor, "capture frame dim"]) -> Float[Tensor, "frame dim"]:
        """Encode the frames' ranks. In training they start anywhere, so that only their distances can be learned."""
        start = int(torch.randint(_LONGEST_RANK_OFFSET, ())) if self.training else 0
        return positional_encoding(x.shape[1], x.shape[2], start).to(x)

    def _next_pose(
        self,
        tokens: Float[Tensor, "capture frame 394"],
        visible: Bool[Tensor, "capture frame 5"],
        padding: Bool[Tensor, "capture frame"],
        states: Float[Tensor, "capture frame dim"],
    ) -> Float[Tensor, "capture 7"]:
        """Add a step to the last pose that may be seen (to none, where there is none)."""
        rows = torch.arange(len(tokens), device=tokens.device)
        sees_pose = visible[..., PARTS.index("pose")]
        last_pose = tokens[rows, last_true(sees_pose)][:, POSE] * sees_pose.any(dim=1, keepdim=True)
        step = self.step_to_next_pose(states[rows, last_true(padding)])
        pose = self.standardisation.limit_positions(last_pose) + step
        return torch.cat([pose[:, :3], functional.normalize(pose[:, 3:], dim=-1)], dim=-1)


def last_true(flags: Bool[Tensor, "capture frame"]) -> Tensor:
    """Return the index of the last True of every row (0 where there is none)."""
    rank = torch.arange(flags.shape[1], device=flags.device)
    return (rank * flags).amax(dim=1)


def _visible(
    present: Bool[Tensor, "capture frame 5"],
    padding: Bool[Tensor, "capture frame"],
    masked: Bool[Tensor, "capture frame 5"],
) -> Bool[Tensor, "capture frame 5"]:
    return present & ~masked & padding[..., None]


def _allowed(padding: Bool[Tensor, "capture frame"]) -> Float[Tensor, "capture 1 1 frame"]:
    """Return 0 for frames that may be looked at, −inf for others: the real ones, or all of a row that has none."""
    looked_at = padding | ~padding.any(dim=1, keepdim=True)  # softmax needs one
    return torch.zeros(padding.shape, device=padding.device).masked_fill(~looked_at, -torch.inf)[:, None, None]
