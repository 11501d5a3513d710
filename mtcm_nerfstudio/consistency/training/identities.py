"""Keeps the statistics of states alike across identities that are trained together."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mtcm_nerfstudio.consistency.losses import identity_loss, state_moments

_MEMORY = 0.9
"""Share of the running statistics that a new batch leaves in place."""


class IdentityMoments:
    """Running mean and deviation of each identity's states. A batch holds one identity, so it meets the others here."""

    def __init__(self, identities: Sequence[str], width: int, device: torch.device) -> None:
        """Start with no identity seen."""
        self.identities = tuple(identities)
        self._moments = torch.zeros(len(identities), 2, width, device=device)
        self._seen = torch.zeros(len(identities), dtype=torch.bool, device=device)

    def loss(
        self,
        identity: str,
        states: Float[Tensor, "capture frame dim"],
        counts: Bool[Tensor, "capture frame"],
    ) -> Float[Tensor, ""]:
        """Return how far the batch's states lie from the mean of the other identities' (0 until one was seen).

        The batch's own statistics are then remembered. Frames that do not count, faulty ones above all, are left out.
        """
        own = self.identities.index(identity)
        chosen = states[counts]
        if len(chosen) < 2:
            return states.new_zeros(())
        others = self._seen.clone()
        others[own] = False
        loss = states.new_zeros(())
        if others.any():
            mean, deviation = self._moments[others].mean(dim=0)
            loss = identity_loss(chosen, mean, deviation)
        self._remember(own, torch.stack(state_moments(chosen.detach())))
        return loss

    def state(self) -> dict[str, Tensor]:
        """Return what a run that goes on must know."""
        return {"moments": self._moments, "seen": self._seen}

    def load(self, state: dict[str, Tensor]) -> None:
        """Undo ``state``."""
        self._moments = state["moments"].to(self._moments.device)
        self._seen = state["seen"].to(self._seen.device)

    def _remember(self, own: int, moments: Float[Tensor, "two dim"]) -> None:
        memory = _MEMORY if self._seen[own] else 0.0
        self._moments[own] = memory * self._moments[own] + (1.0 - memory) * moments
        self._seen[own] = True
