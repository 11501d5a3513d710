"""Loads a vision network through Hugging Face ``transformers``, an optional extra, with errors a user can act on."""

import importlib
import os
from pathlib import Path
from typing import Any

from mtcm_nerfstudio.tokens.embedders.base import NetworkName


def load_vision_network(name: NetworkName, extra: str, class_name: str, model: str, variable: str) -> Any:
    """Load a pretrained network, ready for use; see ``load_pretrained``."""
    return load_pretrained(name, extra, class_name, model, variable).eval()


def load_pretrained(name: NetworkName, extra: str, class_name: str, model: str, variable: str) -> Any:
    """Load a pretrained part of ``transformers`` (typed loosely: the package may be absent).

    Args:
        name: the backend, for messages.
        extra: this package's extra that brings ``transformers``.
        class_name: the part's class in ``transformers``.
        model: the hub's name of the network, or a local folder that ``save_pretrained`` wrote.
        variable: the environment variable that a user may set to such a folder.

    Raises:
        ValueError: ``transformers`` is not installed, or the network is neither on disk nor to be had from the hub.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ValueError(
            f"embedder {name} needs transformers, which is not installed: pip install 'mtcm_nerfstudio[{extra}]'"
        ) from error
    network_class = getattr(transformers, class_name)
    try:
        # The copy on disk first: without a connection the hub is asked six times before that copy is used.
        return network_class.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError):
        pass
    try:
        # transformers reads safetensors, and where a hub has none, a pickle with weights_only=True.
        return network_class.from_pretrained(model)
    except (OSError, ValueError) as error:
        where = "that folder holds no such network" if Path(model).is_dir() else "the model hub was not reached"
        raise ValueError(
            f"embedder {name} cannot load {model}: {where}. Set {variable} to a folder with its config.json and "
            "model.safetensors, or use the embedder efficientnet-lite0, which needs no download."
        ) from error


def chosen_model(model: str | Path | None, variable: str, default: str) -> str:
    """Return the network to load: the caller's, else the environment's, else the hub's usual one."""
    return str(model or os.environ.get(variable) or default)
