"""A whole training run: captures on disk → tokens → training examples → transformer → ``logs/`` (design §7)."""

import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.identity import list_identities
from mtcm_nerfstudio.capture.read import SourceChoice, detect_source, read_capture
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, TrainingSource, load_checkpoint, save_checkpoint
from mtcm_nerfstudio.consistency.score import score_frames
from mtcm_nerfstudio.consistency.train_consistency import (
    EpochResult,
    TrainConfig,
    fresh_model,
    require_free,
    require_names_and_frames,
    train,
)
from mtcm_nerfstudio.consistency.training.calibration import fit_calibration, held_out_frames
from mtcm_nerfstudio.consistency.training.forest_examples import forest_from_examples
from mtcm_nerfstudio.consistency.training.training_capture import (
    TrainingCapture,
    completeness,
    missing_names,
    training_capture,
)
from mtcm_nerfstudio.consistency.training.training_plots import write_report
from mtcm_nerfstudio.consistency.transformer_dataset import evidence_of
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.decisions import Decisions
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import load_embedder
from mtcm_nerfstudio.tokens.embedders.base import EmbedderName
from mtcm_nerfstudio.tokens.embedders.precomputed import VERSION as PRECOMPUTED_VERSION
from mtcm_nerfstudio.tokens.tokenise import TokenisedCapture, tokens_of

CHECKPOINT = "checkpoint"
"""Stem of the checkpoint in ``logs/``."""
_CALIBRATION_BATCHES = 8
_IN_DOUBT = 0.5
"""Share of the threshold from which on a frame is no example of a good one."""
_PACKAGES = ("mtcm_nerfstudio", "torch", "numpy", "safetensors", "lightning-fabric", "pillow", "scikit-learn", "tyro")


@dataclass(frozen=True)
class RunSettings:
    """What to train on, from where, and into which folder."""

    data: tuple[Path, ...]
    """Captures: folders with a transforms.json, a COLMAP model, or photos; or a folder in the identity layout."""
    identities: tuple[str, ...] = ()
    """Identities of the identity layout to train on. Default: all."""
    source: SourceChoice = "auto"
    """Which layout to read, where a folder has several."""
    embedder: EmbedderName | None = None
    """Image embedding. Default: that of the checkpoint that training starts from, else efficientnet-lite0."""
    init: str = "shipped"
    """Where to start: shipped (the checkpoint of the package), scratch (random weights), or a checkpoint's path."""
    output_dir: Path = Path("outputs/mtcm-train")
    """Folder of the run; everything goes to logs/ in it."""
    resume: bool = False
    """Go on with the run in that folder. It ends as if it had never been stopped."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    """How to train."""

    @property
    def logs(self) -> Path:
        """The folder that training writes to."""
        return self.output_dir / "logs"


WriteViews = Callable[[Capture, Path, Path], Decisions]
"""Filters a capture with a checkpoint, writes the decisions to a file and returns them."""


def run_training(settings: RunSettings, write_views: WriteViews) -> Path:
    """Train, write everything that a run writes, and return the stem of its checkpoint.

    Args:
        settings: what to train on and how.
        write_views: the rest of the line, which lies above this room.

    Raises:
        FileNotFoundError: a capture or checkpoint is not there.
        ValueError: it cannot be used; the message names it.
    """
    console = Console(stderr=True)
    start, card = starting_point(settings)
    cache = Cache()
    captures = read_captures(settings)
    require_names_and_frames([(capture.name, len(capture)) for capture in captures])
    require_free(settings.logs, settings.train, [capture.name for capture in captures], settings.resume)
    tokenised = [tokens_of(capture, card.embedder, cache) for capture in captures]
    for one in tokenised:
        console.print(completeness(one))
        for line in missing_names(one):
            console.print(f"  {line}", markup=False, highlight=False)
    ready = []
    for one in tokenised:
        donors = [other.capture for other in tokenised if other is not one]
        ready.append(_trusted(training_capture(one, cache, donors=donors), one, start, card))
    if len(ready) == 1:
        console.print("  one capture alone lends no foreign frames: name others with --data to train on these as well")
    start = start or _fresh_start(ready, settings.train)
    run = _Run(settings, card, tokenised, ready, write_views)
    run.write_settings()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=settings.train.steps)
        best = train(
            ready,
            settings.train,
            settings.logs,
            start,
            settings.resume,
            on_epoch=lambda result, model: run.epoch(result, model, bar.console),
            on_step=lambda step, loss: bar.update(task, completed=step + 1, description=f"loss {loss:.3f}"),
        )
    return run.checkpoint(best)


def starting_point(settings: RunSettings) -> tuple[ConsistencyTransformer | None, CheckpointCard]:
    """Return the model to start from (None: random weights), and the card of the checkpoint to be."""
    if settings.init == "scratch":
        embedder = settings.embedder or "efficientnet-lite0"
        return None, CheckpointCard(name=CHECKPOINT, embedder=embedder, embedder_version=embedder_version(embedder))
    model, card = load_checkpoint(None if settings.init == "shipped" else Path(settings.init))
    card.require_embedder(settings.embedder or card.embedder, embedder_version(card.embedder))
    return model, card


def _fresh_start(ready: Sequence[TrainingCapture], config: TrainConfig) -> ConsistencyTransformer:
    """Return a transformer with random weights and a forest that is fitted on examples of the captures."""
    torch.manual_seed(config.seed)
    model = fresh_model(ready, config.model)
    forest = forest_from_examples(ready, config.dataset, config.seed)
    if forest is not None:
        model.set_forest(forest)
    return model


def embedder_version(name: EmbedderName) -> str:
    """Return the version of a backend."""
    return PRECOMPUTED_VERSION if name == "precomputed" else load_embedder(name, "cpu").version


def read_captures(settings: RunSettings) -> list[Capture]:
    """Read every capture and identity that the settings name; errors are those of ``run_training``."""
    if not settings.data:
        raise ValueError("name at least one capture: --data CAPTURE")
    captures = []
    for data in settings.data:
        if not data.exists():
            raise FileNotFoundError(f"{data}: no such file or folder")
        layout = settings.source
        if layout == "auto" and data.is_dir():
            layout = "identity" if settings.identities else detect_source(data)
        if layout == "identity":
            names = settings.identities or tuple(list_identities(data))
            captures += [read_capture(data, "identity", name) for name in names]
        else:
            captures.append(read_capture(data, layout))
    return captures


class _Run:
    """What the callbacks of a run share."""

    def __init__(
        self,
        settings: RunSettings,
        card: CheckpointCard,
        tokenised: Sequence[TokenisedCapture],
        ready: Sequence[TrainingCapture],
        write_views: WriteViews,
    ) -> None:
        self.settings, self.card, self.tokenised, self.ready = settings, card, tokenised, ready
        self.write_views = write_views

    def write_settings(self) -> None:
        """Write the configuration and the versions of what the run depends on."""
        logs = self.settings.logs
        logs.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self.settings), indent=2, default=str, ensure_ascii=False)
        (logs / "config.json").write_text(text + "\n", encoding="utf-8")
        (logs / "versions.json").write_text(json.dumps(versions(), indent=2) + "\n", encoding="utf-8")

    def epoch(self, result: EpochResult, model: ConsistencyTransformer, console: Console) -> None:
        """Say how the epoch went and, every so often and at the end, write its pictures and files."""
        training, validation = result.training["total"], result.validation["total"]
        console.print(f"epoch {result.epoch}: loss {training:.3f}, validation {validation:.3f}", highlight=False)
        every = self.settings.train.report_every
        if result.is_last or (every and result.epoch % every == 0):
            checkpoint = self.checkpoint(model)
            for one in self.tokenised:
                self._report(one, model, checkpoint, result.epoch)

    def checkpoint(self, model: ConsistencyTransformer) -> Path:
        """Calibrate a model and write it as the checkpoint of the run."""
        train_config = self.settings.train
        seen = held_out_frames(model, self.ready, train_config.dataset, train_config.seed, _CALIBRATION_BATCHES)
        calibration = fit_calibration(seen.logit, seen.forest_logit, seen.faulty)
        card = replace(
            self.card,
            name=CHECKPOINT,
            calibration_scale=calibration.scale,
            calibration_offset=calibration.offset,
            calibration_forest=calibration.forest,
            trained_on=tuple(TrainingSource(c.name, len(c.raw), c.licence) for c in self.ready),
            figures={},
            about=f"Trained by ns-mtcm-train, starting from {Path(self.settings.init).name}.",
        )
        stem = self.settings.logs / CHECKPOINT
        save_checkpoint(model, card, stem)
        return stem

    def _report(self, one: TokenisedCapture, model: ConsistencyTransformer, checkpoint: Path, epoch: int) -> None:
        folder = self.settings.logs if len(self.tokenised) == 1 else self.settings.logs / one.capture.name
        folder.mkdir(parents=True, exist_ok=True)
        decisions = self.write_views(one.capture, checkpoint, folder / f"filtered_views_epoch{epoch}.json")
        ready = self.ready[self.tokenised.index(one)]
        evidence = evidence_of(ready.with_copy(0), one.tokens)
        images = tuple(frame.image_path for frame in one.capture.frames)
        write_report(model, one.tokens, folder, epoch, decisions, evidence, images)


def versions() -> dict[str, str]:
    """Return the versions of what a run depends on."""
    found = {"python": platform.python_version(), "platform": sys.platform}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _trusted(
    ready: TrainingCapture, tokenised: TokenisedCapture, model: ConsistencyTransformer | None, card: CheckpointCard
) -> TrainingCapture:
    """Drop the label of frames whose initial inconsistency is above half the threshold."""
    if model is None:
        return ready
    scores = score_frames(model, card, ready.raw, evidence_of(ready.with_copy(0), tokenised.tokens))
    return replace(ready, trusted=ready.trusted & (scores.inconsistency < _IN_DOUBT * card.threshold))
