"""Everything that a stopped run needs to go on to the same result, in one file that is replaced as a whole.

Random numbers are no part of it: each step draws its own from the seed and the step's number.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mtcm_nerfstudio.consistency.training.identities import IdentityMoments


@dataclass
class Progress:
    """How far a run is."""

    epoch: int = 0
    """Epochs that are finished."""
    best_loss: float = float("inf")
    """Smallest validation loss so far."""
    best_epoch: int = 0
    """The epoch that had it."""


def save_state(
    path: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    moments: IdentityMoments,
    config: str,
) -> None:
    """Write the state of a run; a run that is stopped while writing keeps the one before."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in _optimizer_tensors(model, optimizer).items()}
    tensors |= {f"moments.{name}": tensor for name, tensor in moments.state().items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    written = path.with_suffix(".part")
    save_file(tensors, written, metadata={"progress": json.dumps(asdict(progress)), "config": config})
    written.replace(path)


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, moments: IdentityMoments, config: str
) -> Progress:
    """Put a saved state into model, optimizer and moments, and return how far the run was.

    Raises:
        ValueError: the state is broken, or is that of a run with another configuration.
    """
    metadata, tensors = _read(path)
    require_same(path, json.loads(config))
    try:
        model.load_state_dict(_below(tensors, "model."))
    except RuntimeError as error:
        raise ValueError(f"{path}: is of another model than this run begins with; start the run anew") from error
    _load_optimizer(model, optimizer, _below(tensors, "optimizer."))
    moments.load(_below(tensors, "moments."))
    return Progress(**json.loads(metadata["progress"]))


def require_same(path: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError where a saved state is that of a run in which one of these was another; the message names it."""
    before = json.loads(_read(path)[0]["config"])
    changed = changed_flags({name: before.get(name) for name in config}, json.loads(json.dumps(config)))
    if changed:
        raise ValueError(f"{path}: belongs to a run with other settings ({changed[0]}); --resume needs the same ones")


def changed_flags(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Name what differs between two configurations, as ``flag: before → now``."""
    changed = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            changed += changed_flags(old, new, f"{prefix}{name}.")
        elif old != new:
            changed.append(f"{prefix}{name}: {old} → {new}")
    return changed


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a state."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as the state of a run ({error})") from error


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors by the names of the parameters that they belong to."""
    named = {}
    for name, parameter in model.named_parameters():
        for key, tensor in optimizer.state.get(parameter, {}).items():
            named[f"{name}/{key}"] = torch.as_tensor(tensor)
    return named


def _load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit("/", 1)
        parameter = parameters[name]
        # Adam's count of steps stays on the CPU; moments lie where the parameter does.
        optimizer.state[parameter][key] = tensor if key == "step" else tensor.to(parameter.device)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
