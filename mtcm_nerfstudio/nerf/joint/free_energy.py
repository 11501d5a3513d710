"""What joint fine-tuning minimises, and where its minimum lies.

A frame either belongs to the scene, with the prior probability p_i that the transformer began with, and then costs what
the NeRF cannot explain of it, c_i; or it does not, and then costs b, whatever it shows. With w_i the probability, after
looking at the NeRF, that it belongs, the variational free energy of this mixture (Neal and Hinton, 1998) is

    F(w) = mean_i [ w_i c_i + (1 − w_i) b + λ KL(w_i ‖ p_i) ].

Its derivative, c_i − b + λ (logit w_i − logit p_i), is zero at

    logit w_i* = logit p_i + (b − c_i) / λ

and F is convex in w, so this is its only minimum: a sigmoid of the prior's logit, moved by how much cheaper or dearer
the frame is than a stranger. No frame's weight collapses to zero for being hard as such, since b is well above what an
ordinary frame costs. Costs are in units of the median frame's photometric loss, so neither the scene's contrast nor how
far the NeRF has come matters.

The transformer is trained by F as a function of its own output w. Since ∂F/∂w_i holds c_i once, this is the gradient of
the weighted photometric loss Σ w_i c_i, carried on into the transformer, beside its prior. So the NeRF is trained with
weights near w* at once, and the transformer comes to say them by itself: amortised variational inference.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def relative_cost(
    loss: Float[Tensor, " frame"], known: Bool[Tensor, " frame"], boundary: float
) -> Float[Tensor, " frame"]:
    """Return each frame's photometric loss in units of the median over the known ones.

    A frame of which too little is known costs what decides nothing: ``boundary``.
    """
    if not known.any():
        return torch.full_like(loss, boundary)
    return torch.where(known, loss / loss[known].median().clamp(min=1e-12), boundary)


def free_energy(
    logit: Float[Tensor, " frame"],
    prior: Float[Tensor, " frame"],
    cost: Float[Tensor, " frame"],
    boundary: float,
    temperature: float,
) -> Float[Tensor, ""]:
    """Return F of the weights sigmoid(``logit``).

    Args:
        logit: of the weights.
        prior: logit of the probability that a frame belongs to the scene, before looking at the NeRF.
        cost: see ``relative_cost``.
        boundary: b, the cost of a frame that does not belong.
        temperature: λ > 0, how many units of cost move a weight's logit by one.
    """
    weight = torch.sigmoid(logit)
    stays = weight * (functional.logsigmoid(logit) - functional.logsigmoid(prior))
    goes = (1.0 - weight) * (functional.logsigmoid(-logit) - functional.logsigmoid(-prior))
    return (weight * cost + (1.0 - weight) * boundary + temperature * (stays + goes)).mean()


def optimal_logit(
    prior: Float[Tensor, " frame"], cost: Float[Tensor, " frame"], boundary: float, temperature: float
) -> Float[Tensor, " frame"]:
    """Return the logits of the weights at which the free energy is smallest."""
    return prior + (boundary - cost) / temperature
