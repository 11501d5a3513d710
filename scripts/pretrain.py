"""Trains the checkpoint that the package ships: a transformer and a forest, on real captures whose licence allows it
and on rendered ones.

Which real captures may train, their groups and the frames of them that are faulty as they came are listed in
data/captures.json. The captures are looked for in --real and left out, with one line each, where they are absent. Known
faults are put into all of them anew at every step; frames that are faulty as they came are examples of faults. Whatever
is slow (rendering, embedding, matching) is done once and kept in the cache; a run that was stopped goes on where it was
when the same command is given again.

Probabilities and the threshold are those of captures that the network has never seen: one run for each group that is
left out, then the one that ships.

Usage:
    python scripts/pretrain.py                    all runs: one for each group that is left out, then the one that ships
    python scripts/pretrain.py --runs A B         only these
    python scripts/pretrain.py --remeasure        the networks as they are, measured and calibrated anew
    python scripts/pretrain.py --refit-forests    the transformers as they are, with other forests
    python scripts/pretrain.py --recalibrate      the networks as they are, calibrated anew
"""

import multiprocessing
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import tyro
from benchmarks.capture_list import CaptureEntry, read_capture_list
from pretraining.calibrate import calibrated, print_figures
from pretraining.drawn_variants import load_variants, save_variants
from pretraining.held_out import Measured, concat_measured, load_measured, measure, save_measured
from pretraining.sources import REASON, RENDERED_LICENCE, Source, real_sources, rendered_sources
from threadpoolctl import threadpool_limits

from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.consistency.blur_judge import BlurJudge, fit_blur_judge
from mtcm_nerfstudio.consistency.checkpoint import (
    SHIPPED,
    CheckpointCard,
    TrainingSource,
    card_file,
    card_to_json,
    load_checkpoint,
    read_card,
    save_checkpoint,
)
from mtcm_nerfstudio.consistency.forest import Forest, fit_forest
from mtcm_nerfstudio.consistency.train_consistency import EpochResult, TrainConfig, fresh_model, train
from mtcm_nerfstudio.consistency.training.forest_examples import labelled_numbers, with_unposed_copies
from mtcm_nerfstudio.consistency.training.training_capture import TrainingCapture, training_capture
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig, variants_of
from mtcm_nerfstudio.consistency.transformer_model import REASONS, ConsistencyTransformer
from mtcm_nerfstudio.evidence import keypoints, matching
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import load_embedder
from mtcm_nerfstudio.tokens.tokenise import tokens_of

Run = Literal["A", "B", "C", "D", "all"]
GROUPS: tuple[Run, ...] = ("A", "B", "C", "D")
MEASURED, EXAMPLES = "measured.npz", "forest_examples.npz"
ABOUT = (
    "Trained by scripts/pretrain.py with faults put in anew at every step, beside frames that are faulty as they came. "
    "Calibration, threshold and figures are those of captures that were left out of training."
)
VERSIONS = (keypoints.VERSION, matching.VERSION)


@dataclass(frozen=True)
class Pretrain:
    """What to train on and where to put it."""

    out: Path = Path("outputs/pretrain")
    """Folder of the runs; rendered captures go below it too."""
    real: Path = Path("../shared/captures")
    """Folder with the real captures."""
    rendered: int = 20
    """Number of rendered captures of 320 × 240 pixels."""
    larger: int = 12
    """Number of rendered captures of 640 × 480 pixels."""
    sessions: int = 12
    """Number of rendered captures of 320 × 240 pixels that were taken in two sessions."""
    runs: tuple[Run, ...] = get_args(Run)
    """Groups of real captures to leave out and measure on, one run each (with each goes every fourth rendered capture);
    "all" trains on everything, and ships once all groups were measured."""
    workers: int = 2
    """Processes to draw variants and to train in."""
    recalibrate: bool = False
    """Train nothing: calibrate the networks by what the runs that left groups out have measured."""
    refit_forests: bool = False
    """Train no transformer: fit the forests anew on the examples that the runs left, measure and calibrate."""
    remeasure: bool = False
    """Train and fit nothing but the judges of blur: measure and calibrate the networks as they are."""
    ship: bool = True
    """Write the checkpoint of the run on everything, or its calibration, into the package."""
    batches: int = 8
    """Batches of variants that are drawn of each capture, for all runs together."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=20,
            steps_per_epoch=100,
            dataset=DatasetConfig(batch_tokens=384, variants=6, without_evidence=0.05),
            warmup_steps=200,
            learning_rate=5e-4,
            patience=0,
            validation_batches=8,
        )
    )

    def run_dir(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.out / (run if run == "all" else f"without_{run}")


def main(settings: Pretrain) -> None:
    """Prepare the captures, train all runs, calibrate and ship."""
    # The matrices are small, and threads that wait for each other cost more than they give.
    torch.set_num_threads(1)
    threadpool_limits(1)
    if settings.recalibrate:
        recalibrate(settings)
        return
    entries = read_capture_list()
    sources = [
        *real_sources(settings.real, entries),
        *rendered_sources(settings.out, settings.rendered, settings.larger, settings.sessions),
    ]
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(settings.workers, mp_context=fork) as pool:
        captures = list(pool.map(partial(prepared, settings=settings), sources))
    target = refit_run if settings.refit_forests or settings.remeasure else train_run
    running = [fork.Process(target=target, args=(captures, entries, run, settings)) for run in settings.runs]
    for start in range(0, len(running), settings.workers):
        some = running[start : start + settings.workers]
        for process in some:
            process.start()
        for process in some:
            process.join()
            if process.exitcode:
                raise ValueError(f"a run ended with exit code {process.exitcode}; what it printed is above")
    if "all" in settings.runs and settings.ship:
        ship(settings)
    elif any(run != "all" for run in settings.runs):
        recalibrate(replace(settings, ship=False))


def train_run(
    captures: Sequence[TrainingCapture], entries: Mapping[str, CaptureEntry], run: Run, settings: Pretrain
) -> None:
    """Train one checkpoint and measure it on what it left out."""
    torch.set_num_threads(1)
    run_dir = settings.run_dir(run)
    held_out = [capture for i, capture in enumerate(captures) if is_left_out(capture, i, entries, run)]
    kept = [capture for capture in captures if capture not in held_out]
    print(f"{run_dir.name}: {len(kept)} captures, {sum(len(c.raw) for c in kept)} frames", flush=True)
    model = train(kept, settings.train, run_dir, first_model(kept, run_dir, settings), True, partial(_print_epoch, run))
    card = save_checkpoint(model, bare_card(kept, blur_judge_of(run_dir)), run_dir / "checkpoint", half=True)
    if held_out:
        save_measured(measure(model, card.blur_judge, held_out), run_dir / MEASURED)


def refit_run(
    captures: Sequence[TrainingCapture], entries: Mapping[str, CaptureEntry], run: Run, settings: Pretrain
) -> None:
    """Give the checkpoint of a run another blur judge and, if wanted, forest, and measure it again."""
    run_dir = settings.run_dir(run)
    model, card = load_checkpoint(run_dir / "checkpoint")
    if settings.refit_forests:
        model.set_forest(forest_of(run_dir, settings))
    blur = blur_judge_of(run_dir)
    card = replace(card, blur_weights=blur.weights, blur_offset=blur.offset)
    save_checkpoint(model, card, run_dir / "checkpoint", half=True)
    held_out = [capture for i, capture in enumerate(captures) if is_left_out(capture, i, entries, run)]
    if held_out:
        save_measured(measure(model, blur, held_out), run_dir / MEASURED)


def ship(settings: Pretrain) -> None:
    """Calibrate the run on everything by what the others measured, and write it into the package."""
    model, card = load_checkpoint(settings.run_dir("all") / "checkpoint")
    run_dir = settings.run_dir("all")
    save_checkpoint(model, calibrated(card, all_measured(settings), blur_judge_of(run_dir)), SHIPPED, half=True)
    recalibrate(settings)


def first_model(captures: Sequence[TrainingCapture], run_dir: Path, settings: Pretrain) -> ConsistencyTransformer:
    """Return a transformer with random weights and the forest that judges beside it."""
    torch.manual_seed(settings.train.seed)
    model = fresh_model(captures, settings.train.model)
    # Each capture counts by the root of its frames, as it does where the transformer draws it.
    examples = [[one for batch in capture.drawn for one in batch] for capture in captures]
    numbers, labels = zip(*(labelled_numbers(one) for one in examples), strict=True)
    weight = np.concatenate([np.full(len(label), len(label) ** -0.5) for label in labels])
    number, label = np.concatenate(numbers), np.concatenate(labels)
    run_dir.mkdir(parents=True, exist_ok=True)
    np.savez(run_dir / EXAMPLES, numbers=number.astype(np.float32), label=label, weight=weight)
    model.set_forest(forest_of(run_dir, settings))
    return model


def forest_of(run_dir: Path, settings: Pretrain) -> Forest:
    """Fit the forest of a run on its examples."""
    with np.load(run_dir / EXAMPLES, allow_pickle=False) as file:
        numbers, label, weight = with_unposed_copies(file["numbers"], file["label"], file["weight"])
    return fit_forest(numbers, label, 1 + len(REASONS), weight=weight, seed=settings.train.seed)


def blur_judge_of(run_dir: Path) -> BlurJudge:
    """Fit the blur judge of a run on its examples."""
    with np.load(run_dir / EXAMPLES, allow_pickle=False) as file:
        return fit_blur_judge(file["numbers"], file["label"], file["weight"], 1 + REASONS.index("blur"))


def prepared(source: Source, settings: Pretrain) -> TrainingCapture:
    """Make a capture ready and draw the variants that all runs share.

    Of frames that are mildly faulty as they came nothing is taken for known.
    """
    torch.set_num_threads(1)
    cache = Cache()
    capture = replace(read_capture(source.folder), name=source.name)
    donors = [read_capture(folder) for folder in source.donors]
    tokenised = tokens_of(capture, cache=cache, progress=False)
    ready = training_capture(tokenised, cache, source.licence, False, source.copies, donors)
    of_frames = [source.faults.get(name) for name in ready.raw.file_paths]
    natural = tuple(None if one is None or one.grade == "mild" else REASON[one.reason] for one in of_frames)
    mild = np.array([one is not None and one.grade == "mild" for one in of_frames])
    ready = replace(ready, natural=natural, trusted=~mild)
    made_of = (
        ready.natural,
        ready.trusted.tobytes(),
        settings.train.dataset,
        settings.batches,
        FRAME_NUMBERS,
        *VERSIONS,
    )
    file = settings.out / "drawn" / f"{source.name}-{zlib.crc32(repr(made_of).encode()):08x}.npz"
    if not file.is_file():
        rng = np.random.default_rng([settings.train.seed, zlib.crc32(source.name.encode())])
        drawn = tuple(tuple(variants_of(ready, [ready], settings.train.dataset, rng)) for _ in range(settings.batches))
        save_variants(drawn, file)
        print(f"{source.name}: {len(ready.raw)} frames, {sum(map(len, drawn))} variants", flush=True)
    return replace(ready, drawn=load_variants(file))


def is_left_out(capture: TrainingCapture, index: int, entries: Mapping[str, CaptureEntry], run: Run) -> bool:
    """Leave out a group, and every fourth rendered capture."""
    if run == "all":
        return False
    if capture.licence == RENDERED_LICENCE:
        return index % len(GROUPS) == GROUPS.index(run)
    return entries[capture.name].group == run


def bare_card(captures: Sequence[TrainingCapture], blur: BlurJudge) -> CheckpointCard:
    """Return the card of a checkpoint that is not calibrated yet."""
    return CheckpointCard(
        name=SHIPPED.name,
        embedder="efficientnet-lite0",
        embedder_version=load_embedder("efficientnet-lite0", "cpu").version,
        trained_on=tuple(TrainingSource(c.name, len(c.raw), c.licence) for c in captures),
        about=ABOUT,
        blur_weights=blur.weights,
        blur_offset=blur.offset,
    )


def all_measured(settings: Pretrain) -> Measured:
    """Read what all runs that left groups out have measured."""
    files = sorted(settings.out.glob(f"without_*/{MEASURED}"))
    if not files:
        raise ValueError(f"{settings.out}: nothing was left out yet to calibrate on; run scripts/pretrain.py first")
    return concat_measured([load_measured(file) for file in files])


def recalibrate(settings: Pretrain) -> None:
    """Calibrate the shipped checkpoint by everything that was left out, the others by what other runs left out."""
    measured = all_measured(settings)
    of_groups = [settings.run_dir(group) / "checkpoint" for group in GROUPS]
    for stem in [SHIPPED, *of_groups] if settings.ship else of_groups:
        if not card_file(stem).is_file():
            continue
        card = read_card(stem)
        # A run's own captures stay out of its calibration, so that it can judge them.
        known = {source.name for source in card.trained_on}
        others = measured if stem == SHIPPED else measured.rows(np.isin(measured.capture, list(known)))
        if not len(others.logit):
            print(f"{stem}: not calibrated, no other group was left out yet")
            continue
        run_dir = settings.run_dir("all") if stem == SHIPPED else stem.parent
        card_file(stem).write_text(card_to_json(calibrated(card, others, blur_judge_of(run_dir))), encoding="utf-8")
    print_figures(measured)


def _print_epoch(run: Run, result: EpochResult, model: ConsistencyTransformer) -> None:
    losses = ", ".join(f"{name} {value:.3f}" for name, value in result.validation.items())
    print(f"{run}, epoch {result.epoch}: training {result.training['total']:.3f}; validation {losses}", flush=True)


if __name__ == "__main__":
    with clear_errors():
        main(tyro.cli(Pretrain, description=__doc__))
