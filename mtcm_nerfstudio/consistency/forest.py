"""A forest of decision trees on the evidence numbers of each frame, stored as arrays and read with torch.

Extremely randomised trees (Geurts et al., 2006) are fitted by scikit-learn; here they are only arrays, so that a
checkpoint holds no pickle and reads the same everywhere.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.ensemble import ExtraTreesClassifier
from torch import Tensor, nn

LARGEST_LOGIT = 8.0
"""Logits of a forest are kept within this: leaves that saw one class only are no certainty."""


@dataclass(frozen=True)
class ForestConfig:
    """How a forest is fitted."""

    trees: int = 120
    min_samples_leaf: int = 36
    """Fewest examples in a leaf."""
    max_features: float = 0.3
    """Share of the numbers that each split may choose from, in (0, 1]."""


class Forest(nn.Module):
    """Decision trees as buffers; an empty forest returns probability 0."""

    feature: Tensor
    cut: Tensor
    below: Tensor
    above: Tensor
    share: Tensor

    def __init__(self, nodes: int, trees: int, depth: int, classes: int) -> None:
        """Make room for ``nodes`` nodes in all.

        Args:
            nodes: of all trees together.
            trees: number of trees; their roots are the first nodes.
            depth: of the deepest tree.
            classes: the first is that of good frames.
        """
        super().__init__()
        self.trees, self.depth = trees, depth
        self.register_buffer("feature", torch.zeros(nodes, dtype=torch.uint8))
        self.register_buffer("cut", torch.zeros(nodes))
        self.register_buffer("below", torch.zeros(nodes, dtype=torch.int32))
        self.register_buffer("above", torch.zeros(nodes, dtype=torch.int32))
        self.register_buffer("share", torch.zeros(nodes, classes, dtype=torch.float16))

    def forward(self, numbers: Float[Tensor, "*frame number"]) -> Float[Tensor, "*frame class"]:
        """Return the probability of every class for each frame: the mean over all trees' leaves."""
        flat = numbers.reshape(-1, numbers.shape[-1])
        node = torch.arange(self.trees, device=flat.device).expand(len(flat), -1)
        row = torch.arange(len(flat), device=flat.device)[:, None]
        for _ in range(self.depth):
            goes_below = flat[row, self.feature[node].long()] <= self.cut[node]
            node = torch.where(goes_below, self.below[node], self.above[node]).long()
        return self.share[node].float().mean(dim=1).reshape(*numbers.shape[:-1], self.share.shape[1])

    def logit(self, probability: Float[Tensor, "*frame class"]) -> Float[Tensor, "*frame"]:
        """Return the log odds that a frame is faulty."""
        return torch.logit(1.0 - probability[..., 0], eps=1e-6).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


def fit_forest(
    numbers: Float[np.ndarray, "frame number"],
    label: Int[np.ndarray, " frame"],
    classes: int,
    config: ForestConfig | None = None,
    weight: Float[np.ndarray, " frame"] | None = None,
    seed: int = 0,
) -> Forest:
    """Fit a forest.

    Args:
        numbers: evidence of each frame.
        label: 0 for good frames, else 1 + the number of the reason.
        classes: number of labels that there may be.
        config: how.
        weight: how much each frame counts.
        seed: decides the splits.
    """
    config = config or ForestConfig()
    assert numbers.shape[1] <= 256, "a node stores its number's column in one byte"
    found = ExtraTreesClassifier(
        config.trees,
        min_samples_leaf=config.min_samples_leaf,
        max_features=config.max_features,  # pyright: ignore[reportArgumentType]
        class_weight="balanced_subsample",
        random_state=seed,
        n_jobs=-1,
        bootstrap=True,
    ).fit(numbers, label, sample_weight=weight)
    return _as_arrays(found, classes)


def _as_arrays(found: ExtraTreesClassifier, classes: int) -> Forest:
    """Put all trees into one set of arrays: roots first, then the other nodes of each tree; a leaf leads to itself."""
    trees = [one.tree_ for one in found.estimators_]
    starts = len(trees) + np.concatenate([[0], np.cumsum([tree.node_count - 1 for tree in trees])])
    forest = Forest(int(starts[-1]), len(trees), max(tree.max_depth for tree in trees), classes)
    labels = np.asarray(found.classes_, dtype=int)
    for number, tree in enumerate(trees):
        place = np.concatenate([[number], starts[number] + np.arange(tree.node_count - 1)])
        leaf = tree.children_left < 0
        below, above = (np.where(leaf, place, place[child]) for child in (tree.children_left, tree.children_right))
        share = np.zeros((tree.node_count, classes))
        share[:, labels] = tree.value[:, 0] / tree.value[:, 0].sum(axis=1, keepdims=True)
        index = torch.from_numpy(place)
        forest.feature[index] = torch.from_numpy(np.maximum(tree.feature, 0).astype(np.uint8))
        forest.cut[index] = torch.from_numpy(tree.threshold.astype(np.float32))
        forest.below[index], forest.above[index] = (torch.from_numpy(side.astype(np.int32)) for side in (below, above))
        forest.share[index] = torch.from_numpy(share.astype(np.float16))
    return forest
