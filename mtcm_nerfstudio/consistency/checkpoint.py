"""A trained transformer on disk: tensors in ``<stem>.safetensors``, everything else in ``<stem>.json`` beside it.

Nothing is unpickled. The JSON is written with sorted keys, so the same card gives the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mtcm_nerfstudio.consistency.blur_judge import BLUR_NUMBERS, BlurJudge
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelConfig
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS, PAIR_NUMBERS
from mtcm_nerfstudio.tokens.embedders.base import EmbedderName

SCHEMA_VERSION = 3
_FOREST = "forest."
SHIPPED = Path(__file__).parent / "weights" / "mtcm-efficientnet-lite0"
"""Stem of the checkpoint that comes with the package."""


@dataclass(frozen=True)
class TrainingSource:
    """One capture that a checkpoint learned from."""

    name: str
    frames: int
    licence: str = "unknown"


@dataclass(frozen=True)
class CheckpointCard:
    """Metadata of a checkpoint: embedder, sizes, calibration, threshold, training captures."""

    name: str
    """The checkpoint's own name."""
    embedder: EmbedderName
    """Backend that made the embeddings it was trained on."""
    embedder_version: str
    """That backend's version."""
    model: ModelConfig = field(default_factory=ModelConfig)
    calibration_scale: float = 1.0
    """Turns logits into a probability: p = sigmoid(scale · transformer's logit + forest · forest's logit + offset)
    (Platt, 1999, with two inputs); positive."""
    calibration_offset: float = 0.0
    calibration_forest: float = 0.0
    """How much the forest's logit counts; not negative."""
    blur_weights: tuple[float, ...] = ()
    """Of ``BLUR_NUMBERS``, see ``BlurJudge``; none: without that judge."""
    blur_offset: float = 0.0
    window: int = 128
    """Longest sequence of frames that it is shown at once."""
    threshold: float = 0.5
    """Frames whose calibrated inconsistency is at or above this are dropped, in (0, 1)."""
    trained_on: tuple[TrainingSource, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    """Measured figures by name."""
    about: str = ""
    """How it was trained, in words."""
    digest: str = ""
    """SHA-256 of the file of tensors; filled in when the checkpoint is saved."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.calibration_scale > 0.0:
            raise ValueError(f"the calibration's scale must be positive, got {self.calibration_scale}")
        if not self.calibration_forest >= 0.0:
            raise ValueError(f"the weight of the forest must not be negative, got {self.calibration_forest}")
        if len(self.blur_weights) not in (0, len(BLUR_NUMBERS)):
            raise ValueError(f"the blur judge has {len(BLUR_NUMBERS)} weights, got {len(self.blur_weights)}")
        if self.window < 2:
            raise ValueError(f"the window must be at least 2 frames, got {self.window}")
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(f"the threshold must lie in (0, 1), got {self.threshold}")

    @property
    def blur_judge(self) -> BlurJudge:
        """The judge of blur beside the transformer and the forest."""
        return BlurJudge(self.blur_weights, self.blur_offset)

    def require_embedder(self, name: str, version: str | None = None) -> None:
        """Refuse embeddings that the checkpoint was not trained on.

        Args:
            name: backend of the embeddings at hand.
            version: its version, where it is known.

        Raises:
            ValueError: it is another backend, or another version of it.
        """
        if name != self.embedder:
            raise ValueError(
                f"the checkpoint was trained on {self.embedder} embeddings, these are {name}: use --embedder "
                f"{self.embedder}, or train one for {name} with ns-mtcm-train --embedder {name} --init scratch"
            )
        if version is not None and version != self.embedder_version:
            raise ValueError(
                f"the checkpoint was trained on {self.embedder} version {self.embedder_version}, this is version "
                f"{version}: train again with ns-mtcm-train --init scratch, or install the version it was trained on"
            )


def save_checkpoint(
    model: ConsistencyTransformer, card: CheckpointCard, stem: Path, half: bool = False
) -> CheckpointCard:
    """Write ``<stem>.safetensors`` and ``<stem>.json`` and return the card with its digest.

    Args:
        model: its configuration replaces the card's.
        card: what to write beside the tensors.
        stem: path without suffix; its folder is made.
        half: store numbers in 16 bits, for a file half the size.
    """
    tensors = {name: _stored(name, tensor, half) for name, tensor in model.state_dict().items()}
    stem.parent.mkdir(parents=True, exist_ok=True)
    content = save(tensors)  # not save_file, which makes a file that nobody else may read
    tensor_file(stem).write_bytes(content)
    card = replace(card, model=model.config, digest=hashlib.sha256(content).hexdigest())
    card_file(stem).write_text(card_to_json(card), encoding="utf-8")
    return card


def load_checkpoint(
    path: Path | None = None, device: str | torch.device = "cpu"
) -> tuple[ConsistencyTransformer, CheckpointCard]:
    """Read a checkpoint; the model comes in evaluation mode, in 32 bits.

    Args:
        path: the stem, or either of its two files; None stands for the shipped one.
        device: where the model goes.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: a file is broken, is of another schema, or the two do not belong together.
    """
    card, stem = read_card(path), checkpoint_stem(path)
    if not tensor_file(stem).is_file():
        raise FileNotFoundError(f"{tensor_file(stem)}: no such file; a checkpoint is a .safetensors and a .json file")
    if hashlib.sha256(tensor_file(stem).read_bytes()).hexdigest() != card.digest:
        raise ValueError(
            f"{tensor_file(stem)}: not the tensors that {card_file(stem).name} describes; copy both files again"
        )
    if (card.model.frame_numbers, card.model.pair_numbers) != (len(FRAME_NUMBERS), len(PAIR_NUMBERS)):
        raise ValueError(
            f"{card_file(stem)}: was trained on other numbers of evidence than this version computes; train it again "
            "with ns-mtcm-train, or install the version that it was trained with"
        )
    model = ConsistencyTransformer(card.model)
    try:
        tensors = {name: _as_trained(name, tensor) for name, tensor in load_file(tensor_file(stem)).items()}
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{tensor_file(stem)}: cannot be read as this model's tensors ({error})") from error
    return model.eval().to(device), card


def _stored(name: str, tensor: torch.Tensor, half: bool) -> torch.Tensor:
    """Return a tensor as it is written; a forest's cuts are compared with numbers, so they keep all their bits."""
    dtype = tensor.dtype if name.startswith(_FOREST) else torch.float16 if half else torch.float32
    return tensor.detach().to("cpu", dtype).contiguous()


def _as_trained(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor if name.startswith(_FOREST) else tensor.float()


def read_card(path: Path | None = None) -> CheckpointCard:
    """Read a checkpoint's card without its tensors; arguments and errors as for ``load_checkpoint``."""
    file = card_file(checkpoint_stem(path))
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; a checkpoint is a .safetensors and a .json file")
    return card_from_json(file.read_text(encoding="utf-8"), file)


def checkpoint_stem(path: Path | None) -> Path:
    """Return the path without suffix of a checkpoint that is named by its stem or either file (None: the shipped)."""
    if path is None:
        return SHIPPED
    return path.with_suffix("") if path.suffix in (".safetensors", ".json") else path


def card_to_json(card: CheckpointCard) -> str:
    """Return the card as JSON text that is the same for the same card."""
    return json.dumps(asdict(card), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def card_from_json(text: str, file: Path) -> CheckpointCard:
    """Undo ``card_to_json``; ``file`` is for messages.

    Raises:
        ValueError: the text is no card, or one of another schema version.
    """
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: not JSON (line {error.lineno}: {error.msg})") from error
    version = entries.get("schema_version") if isinstance(entries, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{file}: schema version {version}, this program reads {SCHEMA_VERSION}: train the checkpoint again, or "
            "install the version of mtcm_nerfstudio that wrote it"
        )
    try:
        return _card(entries)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not a checkpoint's card ({error})") from error


def tensor_file(stem: Path) -> Path:
    """Return the path of a checkpoint's tensors."""
    return stem.with_name(stem.name + ".safetensors")


def card_file(stem: Path) -> Path:
    """Return the path of a checkpoint's card."""
    return stem.with_name(stem.name + ".json")


def _card(entries: Mapping[str, Any]) -> CheckpointCard:
    known = {field.name for field in fields(CheckpointCard)}
    unknown = sorted(set(entries) - known)
    if unknown:
        raise KeyError(f"unknown entry {unknown[0]}")
    card = dict(entries)
    card["model"] = ModelConfig(**entries["model"])
    card["blur_weights"] = tuple(entries.get("blur_weights", ()))
    card["trained_on"] = tuple(TrainingSource(**source) for source in entries["trained_on"])
    return CheckpointCard(**card)
