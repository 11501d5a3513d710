"""Trains the consistency transformer. Each step is a function of the seed and its number, so a run that is stopped
goes on, from the state it wrote after its last whole epoch, to the same result.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch.utils.tensorboard import SummaryWriter

from mtcm_nerfstudio.consistency.losses import Losses, LossWeights
from mtcm_nerfstudio.consistency.training.batch import Batch
from mtcm_nerfstudio.consistency.training.identities import IdentityMoments
from mtcm_nerfstudio.consistency.training.objective import compute_losses, mean_losses
from mtcm_nerfstudio.consistency.training.state import Progress, load_state, require_same, save_state
from mtcm_nerfstudio.consistency.training.training_capture import TrainingCapture
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig, make_batch
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelConfig, ModelOutput

STATE_FILE = "state.safetensors"
BEST_FILE = "best.safetensors"
_FEWEST_FRAMES = 4


@dataclass(frozen=True)
class TrainConfig:
    """How the transformer is trained."""

    epochs: int = 40
    """Epochs to train for."""
    steps_per_epoch: int = 25
    """Batches in an epoch; every batch holds one identity."""
    drawings: int = 0
    """Batches to draw; once all were seen they come round again in another order, which is several times quicker than
    drawing new ones. 0: a new one at every step."""
    learning_rate: float = 3e-4
    """Largest learning rate, reached after the warm-up."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises from 0; after them it falls to 0 along half a cosine."""
    weight_decay: float = 0.01
    """Of AdamW."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    patience: int = 10
    """Stop after this many epochs without a smaller validation loss; 0: never."""
    validation_batches: int = 4
    """Batches, never trained on, that the validation loss is the mean over."""
    report_every: int = 10
    """Write pictures and files every so many epochs, and after the last; 0: after the last only."""
    seed: int = 0
    """Decides the weights at the start and every random choice."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes of a transformer that is trained from nothing."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    """How examples are drawn."""
    weights: LossWeights = field(default_factory=LossWeights)
    """How much each loss counts."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("epochs", "steps_per_epoch", "validation_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("drawings", "warmup_steps", "patience", "report_every", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def steps(self) -> int:
        """Steps of a run that is not stopped early."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True)
class EpochResult:
    """What an epoch came to; losses are means over its batches, unweighted."""

    epoch: int
    """Counted from 1."""
    training: dict[str, float]
    validation: dict[str, float]
    learning_rate: float
    is_last: bool


EpochEnd = Callable[[EpochResult, ConsistencyTransformer], None]
StepEnd = Callable[[int, float], None]


def train(
    captures: Sequence[TrainingCapture],
    config: TrainConfig,
    run_dir: Path,
    model: ConsistencyTransformer | None = None,
    resume: bool = False,
    on_epoch: EpochEnd | None = None,
    on_step: StepEnd | None = None,
) -> ConsistencyTransformer:
    """Train on captures and return the model of the best epoch.

    Args:
        captures: one identity or many, all embedded by one backend.
        config: how.
        run_dir: gets the state to resume from and TensorBoard's scalars.
        model: where to start; by default random weights, and scales learned from the captures.
        resume: go on with the run in ``run_dir`` (a run that has not written a state yet starts over).
        on_epoch: called after each epoch with the model as it is then, in evaluation mode.
        on_step: called after each step with its number and its loss.

    Raises:
        ValueError: nothing to train on; or ``run_dir`` holds a run and ``resume`` was not asked for, or one with
            other settings.
    """
    require_trainable(captures)
    require_free(run_dir, config, [capture.name for capture in captures], resume)
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    run = _Run(captures, config, run_dir, model or fresh_model(captures, config.model))
    with SummaryWriter(str(run_dir), purge_step=run.progress.epoch * config.steps_per_epoch) as writer:
        while not finished(run.progress, config):
            result = run.epoch(on_step)
            _log(writer, result, config)
            if on_epoch:
                on_epoch(result, run.model.eval())
            # Last, so that an epoch whose pictures were cut short is run again, to the same result.
            run.save()
    return run.best_model()


def require_free(run_dir: Path, config: TrainConfig, names: Sequence[str], resume: bool) -> None:
    """Raise ValueError where a folder holds a run that is not to be, or can not be, gone on with."""
    state = run_dir / STATE_FILE
    if state.exists() and not resume:
        raise ValueError(f"{run_dir}: holds a run already; go on with it by --resume, or choose another --output-dir")
    if state.exists():
        require_same(state, _settings(config, names))


def fresh_model(captures: Sequence[TrainingCapture], config: ModelConfig) -> ConsistencyTransformer:
    """Return a transformer with random weights that knows how widely each number of these embeddings varies."""
    model = ConsistencyTransformer(config)
    model.standardisation.learn_scale(torch.from_numpy(np.concatenate([_centred(capture) for capture in captures])))
    return model


@torch.no_grad()
def validate(model: ConsistencyTransformer, captures: Sequence[TrainingCapture], config: TrainConfig) -> Losses:
    """Return the mean losses over batches that are the same in every epoch and never trained on."""
    model.eval()
    device = next(model.parameters()).device
    losses = []
    for step in range(config.validation_batches):
        batch = make_batch(captures, config.dataset, config.seed, step, "validation").to(device)
        output = model(batch.tokens, batch.present, batch.padding, batch.masked, batch.evidence)
        losses.append(compute_losses(model, output, batch))
    return mean_losses(losses)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the rate of a step: a linear rise, then half a cosine down to zero at the run's end."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


def drawing(step: int, config: TrainConfig) -> int:
    """Return the number of the batch that a step trains on."""
    if not config.drawings:
        return step
    round_, place = divmod(step, config.drawings)
    return int(np.random.default_rng([config.seed, round_]).permutation(config.drawings)[place])


def finished(progress: Progress, config: TrainConfig) -> bool:
    """Tell whether all epochs are done, or the validation loss has not become smaller for too long."""
    waited = progress.epoch - progress.best_epoch
    return progress.epoch >= config.epochs or (config.patience > 0 and waited >= config.patience)


def require_trainable(captures: Sequence[TrainingCapture]) -> None:
    """Raise ValueError where there is nothing to learn from; the message names the capture."""
    if not captures:
        raise ValueError("there is no capture to train on")
    embedders = sorted({capture.raw.embedder for capture in captures})
    if len(embedders) > 1:
        raise ValueError(f"captures must share one embedder to be trained together, got {', '.join(embedders)}")
    require_names_and_frames([(capture.name, len(capture.raw)) for capture in captures])
    for capture in captures:
        if not np.isfinite(capture.raw.embeddings).all(axis=1).any():
            raise ValueError(f"{capture.name}: not one frame has an embedding")


def require_names_and_frames(named: Sequence[tuple[str, int]]) -> None:
    """Raise ValueError where captures share a name or one is too short; what can be told before any work is done.

    Args:
        named: the name of each capture, and how many frames it has.
    """
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two captures are called {twice!r}: rename the folder of one")
    for name, frames in named:
        if frames < _FEWEST_FRAMES:
            raise ValueError(f"{name}: {frames} frames are too few, {_FEWEST_FRAMES} are needed")


class _Run:
    """A run under way: model, optimizer, statistics, and how far it is."""

    def __init__(
        self, captures: Sequence[TrainingCapture], config: TrainConfig, run_dir: Path, model: ConsistencyTransformer
    ) -> None:
        """Set up, and take up the state in ``run_dir`` where there is one."""
        self.captures, self.config, self.run_dir, self.model = captures, config, run_dir, model
        self.fabric = Fabric(accelerator=config.accelerator, devices=1)
        self.optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        self.wrapped, self.wrapped_optimizer = self.fabric.setup(model, self.optimizer)
        names = [capture.name for capture in captures]
        self.moments = IdentityMoments(names, model.config.d_model, self.fabric.device)
        self.record = _record(config, captures)
        self.progress = Progress()
        self.drawn: dict[int, Batch] = {}
        if (run_dir / STATE_FILE).exists():
            self.progress = load_state(run_dir / STATE_FILE, model, self.optimizer, self.moments, self.record)

    def epoch(self, on_step: StepEnd | None) -> EpochResult:
        """Train for one epoch, validate, and remember the model if it is the best so far."""
        first = self.progress.epoch * self.config.steps_per_epoch
        losses = []
        for step in range(first, first + self.config.steps_per_epoch):
            losses.append(self.step(step))
            if on_step:
                on_step(step, float(losses[-1].total(self.config.weights)))
        validation = validate(self.model, self.captures, self.config)
        self.progress.epoch += 1
        total = float(validation.total(self.config.weights))
        if total < self.progress.best_loss:
            self.progress.best_loss, self.progress.best_epoch = total, self.progress.epoch
            self._save_best()
        return EpochResult(
            epoch=self.progress.epoch,
            training=_numbers(mean_losses(losses), self.config),
            validation=_numbers(validation, self.config),
            learning_rate=learning_rate(first + self.config.steps_per_epoch - 1, self.config),
            is_last=finished(self.progress, self.config),
        )

    def step(self, step: int) -> Losses:
        """Train on one batch."""
        self.model.train()
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, step]).generate_state(1)[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config)
        batch = self.batch(drawing(step, self.config)).to(self.fabric.device)
        output = ModelOutput(*self.wrapped(batch.tokens, batch.present, batch.padding, batch.masked, batch.evidence))
        losses = compute_losses(self.model, output, batch, self.moments)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(losses.total(self.config.weights))
        self.fabric.clip_gradients(self.wrapped, self.wrapped_optimizer, max_norm=self.config.clip_norm)
        self.wrapped_optimizer.step()
        return Losses(*(loss.detach() for loss in losses))

    def batch(self, number: int) -> Batch:
        """Draw a batch, or remember it where batches come round again."""
        batch = self.drawn.get(number)
        if batch is None:
            batch = make_batch(self.captures, self.config.dataset, self.config.seed, number)
            if self.config.drawings:
                self.drawn[number] = batch
        return batch

    def save(self) -> None:
        """Write what the run needs to go on from here."""
        file = self.run_dir / STATE_FILE
        save_state(file, self.progress, self.model, self.optimizer, self.moments, self.record)

    def best_model(self) -> ConsistencyTransformer:
        """Return the model of the epoch with the smallest validation loss, in evaluation mode."""
        self.model.load_state_dict(load_file(self.run_dir / BEST_FILE))
        return self.model.eval()

    def _save_best(self) -> None:
        part = self.run_dir / (BEST_FILE + ".part")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}, part)
        part.replace(self.run_dir / BEST_FILE)


def _settings(config: TrainConfig, names: Sequence[str]) -> dict[str, Any]:
    """Return what must be the same for a run to be gone on with, as far as it is known before anything is read."""
    return {**asdict(config), "captures": list(names)}


def _record(config: TrainConfig, captures: Sequence[TrainingCapture]) -> str:
    """Return everything that must be the same for a run to be gone on with: settings, embedder, frames and poses."""
    contents = {
        f"contents of {one.name}": sha256(
            repr((one.raw.embedder, one.raw.file_paths, one.raw.c2w.tobytes(), one.raw.timestamps.tobytes())).encode()
        ).hexdigest()[:12]
        for one in captures
    }
    return json.dumps({**_settings(config, [one.name for one in captures]), **contents}, sort_keys=True)


def _centred(capture: TrainingCapture) -> Float32[np.ndarray, "known 384"]:
    known = capture.raw.embeddings[np.isfinite(capture.raw.embeddings).all(axis=1)]
    return (known - np.median(known, axis=0)).astype(np.float32)


def _numbers(losses: Losses, config: TrainConfig) -> dict[str, float]:
    return {
        **{name: float(loss) for name, loss in losses._asdict().items()},
        "total": float(losses.total(config.weights)),
    }


def _log(writer: SummaryWriter, result: EpochResult, config: TrainConfig) -> None:
    step = result.epoch * config.steps_per_epoch
    for name, value in result.training.items():
        writer.add_scalar(f"training/{name}", value, step)
    for name, value in result.validation.items():
        writer.add_scalar(f"validation/{name}", value, step)
    writer.add_scalar("learning_rate", result.learning_rate, step)
