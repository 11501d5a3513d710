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

import json
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
from benchmarks.capture_list import CaptureEntry, NaturalFault, read_capture_list
from drawn_variants import load_variants, save_variants
from held_out import AS_IT_CAME, Measured, auroc_by_variant, concat_measured, load_measured, measure, save_measured
from jaxtyping import Float
from rendered_scenes import render_many
from threadpoolctl import threadpool_limits

from mtcm_nerfstudio.capture.corruptions import FaultReason
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.consistency.blur_judge import BlurJudge, either, fit_blur_judge, fit_scale
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
from mtcm_nerfstudio.consistency.training.calibration import Calibration, control_risk, fit_calibration
from mtcm_nerfstudio.consistency.training.forest_examples import labelled_numbers, with_unposed_copies
from mtcm_nerfstudio.consistency.training.training_capture import TrainingCapture, training_capture
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig, variants_of
from mtcm_nerfstudio.consistency.transformer_model import REASONS, ConsistencyTransformer
from mtcm_nerfstudio.evidence import keypoints, matching
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import load_embedder
from mtcm_nerfstudio.tokens.tokenise import tokens_of
from mtcm_nerfstudio.verdicts.decide import CERTAIN_IN_SPITE

Run = Literal["A", "B", "C", "D", "all"]
GROUPS: tuple[Run, ...] = ("A", "B", "C", "D")
REAL_COPIES, RENDERED_COPIES = 4, 2
"""Corrupted copies that are made of each capture."""
DONORS = 4
"""Captures that lend each capture foreign frames."""
RENDERED_LICENCE = "rendered by scripts/rendered_scenes.py"
MEASURED, EXAMPLES = "measured.npz", "forest_examples.npz"
MOST_DROPPED = 0.04
"""A capture's loss counts up to this share where the threshold is placed: twice what the worst capture may lose."""
ABOUT = (
    "Trained by scripts/pretrain.py with faults put in anew at every step, beside frames that are faulty as they came. "
    "Calibration, threshold and figures are those of captures that were left out of training."
)
REASON: Mapping[str, FaultReason] = {
    "blur": "blur", "exposure": "exposure", "occlusion": "occlusion", "mask": "occlusion", "foreign": "foreign",
    "pose": "pose",
}  # fmt: skip
"""What a decision should say of a frame that is faulty as it came."""
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
    sources = [*real_sources(settings.real, entries), *rendered_sources(settings)]
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


@dataclass(frozen=True)
class Source:
    """A capture to train on, before it is read."""

    folder: Path
    name: str
    licence: str
    faults: Mapping[str, NaturalFault]
    """Frames that are faulty as they came, by ``file_path``."""
    copies: int
    """Corrupted copies to make."""
    donors: tuple[Path, ...]
    """Captures that lend foreign frames."""


def real_sources(folder: Path, entries: Mapping[str, CaptureEntry]) -> list[Source]:
    """Return the real captures that may train and are there; those of one group lend each other foreign frames."""
    there = [name for name, entry in entries.items() if entry.may_train and (folder / name).is_dir()]
    for name, entry in entries.items():
        if entry.may_train and name not in there:
            print(f"{folder / name}: not there, left out")
    found = []
    for name in there:
        group = [other for other in there if entries[other].group == entries[name].group and other != name]
        faults = {fault.file_path: fault for fault in entries[name].natural_faults}
        donors = tuple(folder / other for other in group[:DONORS])
        found.append(Source(folder / name, name, entries[name].licence, faults, REAL_COPIES, donors))
    return found


def rendered_sources(settings: Pretrain) -> list[Source]:
    """Render what is not there yet; each capture lends some others its images."""
    folders = [
        *render_many(settings.out / "rendered", settings.rendered),
        *render_many(settings.out / "rendered640", settings.larger, 200, (640, 480)),
        *render_many(settings.out / "sessions", settings.sessions, 1000, two_sessions=True),
    ]
    return [
        Source(
            folder,
            f"{folder.parent.name}_{folder.name}",
            RENDERED_LICENCE,
            rendered_faults(folder),
            RENDERED_COPIES,
            (folders[i - 4], folders[i - 8]),
        )
        for i, folder in enumerate(folders)
    ]


def rendered_faults(folder: Path) -> dict[str, NaturalFault]:
    """Return which frames of a rendered capture are faulty as they came."""
    found = json.loads((folder / "natural_faults.json").read_text(encoding="utf-8"))
    return {name: NaturalFault(name, **entry) for name, entry in found.items()}


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


def calibrated(card: CheckpointCard, measured: Measured, blur: BlurJudge) -> CheckpointCard:
    """Return a card with the calibration, threshold and figures of what was measured.

    Args:
        card: of the checkpoint.
        measured: what was left out of other runs.
        blur: the checkpoint's judge of blur, as it was fitted.
    """
    calibration = fit_calibration(measured.logit, measured.forest_logit, measured.faulty)
    slope, shift = blur_scale(measured)
    probability = probability_of(measured, calibration, slope, shift)
    # Real captures alone place the threshold: rendered ones are harder. Without any, the rendered ones do.
    good = (measured.variant == AS_IT_CAME) & ~measured.faulty
    of_people = good & np.isin(measured.capture, list(read_capture_list()))
    counts = of_people if of_people.any() else good
    number = np.unique(measured.capture[counts], return_inverse=True)[1]
    excused = measured.contradicted & (probability < CERTAIN_IN_SPITE)
    # What no verdict would drop costs nothing.
    cost = np.where(excused, 0.0, probability)[counts]
    risk = control_risk(cost, number, MOST_DROPPED)
    found = auroc_by_variant(measured, probability)
    natural = (measured.variant == AS_IT_CAME) & measured.faulty
    figures = {f"auroc_{variant.replace(' ', '_')}": value for variant, value in found.items()}
    figures["good_frames_dropped"] = float((cost >= risk.threshold).mean())
    figures["captures_of_the_bound"] = int(number.max()) + 1
    figures["bound_on_good_frames_dropped"] = risk.bound
    if natural.any():
        figures["natural_faults_found"] = float((probability[natural] >= risk.threshold).mean())
    blur = blur.rescaled(slope, shift)
    return replace(
        card,
        blur_weights=blur.weights,
        blur_offset=blur.offset,
        calibration_scale=round(calibration.scale, 4),
        calibration_offset=round(calibration.offset, 4),
        calibration_forest=round(calibration.forest, 4),
        threshold=round(risk.threshold, 4),
        figures={name: round(value, 4) for name, value in figures.items()},
    )


def blur_scale(measured: Measured) -> tuple[float, float]:
    """Return slope and shift of the blur judges' logits, by the blur of real captures as they came.

    Real captures alone, since rendered blur is not distributed as natural blur is.
    """
    is_real = np.isin(measured.capture, list(read_capture_list()))
    counts = is_real & (measured.variant == AS_IT_CAME) & (~measured.faulty | (measured.natural == "blur"))
    return fit_scale(measured.blurred[counts], measured.faulty[counts])


def probability_of(
    measured: Measured, calibration: Calibration, slope: float, shift: float
) -> Float[np.ndarray, " row"]:
    """Return the calibrated probability of all judges together."""
    known, blurred = measured.blurred > 0, measured.blurred.copy()
    logit = np.log(blurred[known]) - np.log1p(-blurred[known])
    blurred[known] = 1.0 / (1.0 + np.exp(-(slope * logit + shift)))
    return either(calibration.probability(measured.logit, measured.forest_logit), blurred)


def print_figures(measured: Measured) -> None:
    """Print AUROC by capture: of the transformer, the forest and both."""
    calibration = fit_calibration(measured.logit, measured.forest_logit, measured.faulty)
    scores = {
        "transformer": measured.logit,
        "forest": measured.forest_logit,
        "both": Calibration(*calibration).probability(measured.logit, measured.forest_logit),
        "blur judge": measured.blurred,
    }
    scores["all three"] = probability_of(measured, calibration, *blur_scale(measured))
    for name, score in scores.items():
        found = auroc_by_variant(measured, score)
        print(f"{name:>12}: " + "  ".join(f"{variant} {value:.3f}" for variant, value in found.items()))


def _print_epoch(run: Run, result: EpochResult, model: ConsistencyTransformer) -> None:
    losses = ", ".join(f"{name} {value:.3f}" for name, value in result.validation.items())
    print(f"{run}, epoch {result.epoch}: training {result.training['total']:.3f}; validation {losses}", flush=True)


if __name__ == "__main__":
    with clear_errors():
        main(tyro.cli(Pretrain, description=__doc__))
