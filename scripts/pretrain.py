"""Trains the checkpoint that the package ships: on real captures whose licence allows it, and on rendered ones.

The real captures are looked for in --real and left out, with one line each, where they are absent. Known faults are put
into all of them anew at every step. Whatever is slow (rendering, embedding) is done once and kept; a run that was
stopped goes on where it was when the same command is given again.

To calibrate on captures that the network has never seen, leave some out first; the final run picks up what these runs
measured:

Usage:
    python scripts/pretrain.py --out outputs/pretrain --leave-out stitch boruszyn_kap
    python scripts/pretrain.py --out outputs/pretrain --leave-out skull maryrose_tankard banana
    python scripts/pretrain.py --out outputs/pretrain --ship
    python scripts/pretrain.py --out outputs/pretrain --recalibrate      the shipped network as it is, calibrated anew
"""

import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from detection.natural import read_natural_faults
from held_out import CLEAN, Measured, auroc_by_kind, false_alarms, joined, load_measured, measure, save_measured
from rendered_scenes import render_many
from threadpoolctl import threadpool_limits

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.images import UnreadableImageError, read_rgb
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.consistency.checkpoint import (
    SHIPPED,
    CheckpointCard,
    TrainingSource,
    card_file,
    card_to_json,
    read_card,
    save_checkpoint,
)
from mtcm_nerfstudio.consistency.train_consistency import EpochResult, TrainConfig, train
from mtcm_nerfstudio.consistency.training.calibration import platt_with_strangers, probabilities, threshold
from mtcm_nerfstudio.consistency.training.capture import TrainingCapture, training_capture
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import load_embedder
from mtcm_nerfstudio.tokens.tokenise import tokens_of

LICENCES = {
    "stitch": "MIT",
    "maryrose_tankard": "CC BY 4.0",
    "skull": "CC BY 4.0",
    "boruszyn_kap": "CC BY 3.0",
    "banana": "MIT",
}
"""Real captures that may train the shipped checkpoint."""
GROUPS = (("stitch", "boruszyn_kap"), ("skull", "maryrose_tankard", "banana"))
"""Real captures that are left out together, and lend foreign frames to each other only."""
REAL_WORLDS, RENDERED_WORLDS = 28, 7
"""Worlds with spoiled images that are made of each capture."""
RENDERED_LICENCE = "rendered by scripts/rendered_scenes.py"
FIGURES = "measured.npz"
ABOUT = (
    "Trained by scripts/pretrain.py with faults put in anew at every step. Calibration, threshold and figures are "
    "those of real captures that were left out of training (mean AUROC over captures, a fifth of the frames faulty)."
)
SHARPNESS_OF_A_DOUBT = 0.4
"""Frames less sharp than this share of their capture's median are not taken for faultless."""


@dataclass(frozen=True)
class Pretrain:
    """What to train on and where to put it."""

    out: Path = Path("outputs/pretrain")
    """Folder of the runs; rendered captures go below it too."""
    real: Path = Path("../shared/captures")
    """Folder with the real captures."""
    rendered: int = 24
    """Number of rendered captures of 320 × 240 pixels."""
    larger: int = 24
    """Number of rendered captures of 640 × 480 pixels."""
    leave_out: tuple[str, ...] = ()
    """Captures to measure on instead of training on them; with them goes every third rendered capture."""
    prepare_only: bool = False
    """Render, embed, spoil and match everything, and train nothing."""
    ship: bool = False
    """Write the result into the package."""
    recalibrate: bool = False
    """Train nothing: calibrate the shipped checkpoint by what the runs that left captures out have measured."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=50,
            steps_per_epoch=100,
            drawings=1200,
            warmup_steps=200,
            learning_rate=5e-4,
            patience=0,
            validation_batches=8,
        )
    )

    @property
    def run_dir(self) -> Path:
        """Folder of this run."""
        return self.out / ("leave_out_" + "_".join(self.leave_out) if self.leave_out else "all")


def main(settings: Pretrain) -> None:
    """Train one checkpoint."""
    # The matrices are small, and threads that wait for each other cost more than they give.
    torch.set_num_threads(1)
    threadpool_limits(1)
    if settings.recalibrate:
        recalibrate(settings)
        return
    cache = Cache()
    captures = [*real_captures(settings.real, cache), *rendered_captures(settings, cache)]
    if settings.prepare_only:
        return
    held_out = [capture for i, capture in enumerate(captures) if _is_left_out(capture, i, settings)]
    kept = [capture for capture in captures if capture not in held_out]
    print(f"training on {len(kept)} captures, {sum(len(c.raw) for c in kept)} frames", flush=True)
    model = train(kept, settings.train, settings.run_dir, resume=True, on_epoch=_print_epoch)
    if held_out:
        measured = measure(model, held_out, kept)
        save_measured(measured, settings.run_dir / FIGURES)
        _print_figures(measured)
        for name in settings.leave_out:
            save_checkpoint(model, checkpoint_card(measured, kept), settings.out / f"without_{name}", half=True)
    else:
        write_checkpoint(model, kept, settings)


def real_captures(folder: Path, cache: Cache) -> list[TrainingCapture]:
    """Read the real captures that are there; those of one group lend each other foreign frames."""
    captures = {}
    for name in LICENCES:
        if (folder / name).is_dir():
            captures[name] = read_capture(folder / name)
        else:
            print(f"{folder / name}: not there, left out")
    found = []
    for name, capture in captures.items():
        donors = [captures[other] for group in GROUPS if name in group for other in group if other in captures]
        donors = [donor for donor in donors if donor.name != name]
        found.append(prepared(capture, LICENCES[name], cache, REAL_WORLDS, donors))
    return found


def rendered_captures(settings: Pretrain, cache: Cache) -> list[TrainingCapture]:
    """Render what is not there yet and read it; each lends the one after the next its images."""
    if not settings.rendered:
        return []
    folders = [
        *render_many(settings.out / "rendered", settings.rendered),
        *render_many(settings.out / "rendered640", settings.larger, 200, (640, 480), 56),
    ]
    captures = [read_capture(folder) for folder in folders]
    return [
        prepared(capture, RENDERED_LICENCE, cache, RENDERED_WORLDS, [captures[i - 2], captures[i - 5]])
        for i, capture in enumerate(captures)
    ]


def prepared(capture: Capture, licence: str, cache: Cache, worlds: int, donors: list[Capture]) -> TrainingCapture:
    """Make a capture ready; frames that are blurred or else faulty as they came are not taken for faultless."""
    ready = training_capture(tokens_of(capture, cache=cache), cache, licence, worlds=worlds, donors=donors)
    sharp = np.array([sharpness(frame.image_path) for frame in capture.frames])
    natural = np.isin([frame.file_path for frame in capture.frames], read_natural_faults().get(capture.name, ()))
    return replace(ready, trusted=(sharp >= SHARPNESS_OF_A_DOUBT * np.nanmedian(sharp)) & ~natural)


def sharpness(path: Path) -> float:
    """Return the variance of the Laplacian of an image's grey values at 512 px, NaN where it cannot be read."""
    try:
        image = read_rgb(path).convert("L")
    except (UnreadableImageError, FileNotFoundError):
        return float("nan")
    image.thumbnail((512, 512))
    return float(cv2.Laplacian(np.asarray(image), cv2.CV_64F).var())


def write_checkpoint(model: ConsistencyTransformer, captures: list[TrainingCapture], settings: Pretrain) -> None:
    """Calibrate on the real captures that other runs have left out and measured, and write the checkpoint."""
    measured = all_measured(settings)
    card = checkpoint_card(measured, captures)
    stem = SHIPPED if settings.ship else settings.run_dir / SHIPPED.name
    save_checkpoint(model, card, stem, half=True)
    print(f"wrote {stem}.safetensors and .json")
    calibrate_leave_outs(settings, measured)
    _print_figures(measured)


def recalibrate(settings: Pretrain) -> None:
    """Give the shipped checkpoint and those of the runs that left captures out calibrations by what these measured."""
    measured = all_measured(settings)
    calibrate_by_others(SHIPPED, measured, also=("figures",))
    calibrate_leave_outs(settings, measured)


def all_measured(settings: Pretrain) -> Measured:
    """Read what all runs that left captures out have measured."""
    files = sorted(settings.out.glob(f"leave_out_*/{FIGURES}"))
    if not files:
        raise ValueError(f"{settings.out}: nothing was left out yet to calibrate on; run with --leave-out first")
    return joined([load_measured(file) for file in files])


def calibrate_leave_outs(settings: Pretrain, measured: Measured) -> None:
    """Calibrate the checkpoint that each real capture was left out of by all the others."""
    for name in np.unique(measured.capture[np.isin(measured.capture, list(LICENCES))]):
        calibrate_by_others(settings.out / f"without_{name}", measured.rows(measured.capture != name))


def calibrate_by_others(stem: Path, others: Measured, also: tuple[str, ...] = ()) -> None:
    """Give a checkpoint that a capture was left out of a calibration and threshold that owe nothing to it either.

    They come from all the other captures that were left out of a run, as the shipped one's come from all: those of
    one run alone are too few to place a threshold by.
    """
    card = checkpoint_card(others, [])
    shared = ("calibration_scale", "calibration_offset", "calibration_stranger", "threshold", *also)
    changed = replace(read_card(stem), **{name: getattr(card, name) for name in shared})
    card_file(stem).write_text(card_to_json(changed), encoding="utf-8")


def checkpoint_card(everything: Measured, captures: list[TrainingCapture]) -> CheckpointCard:
    """Return the card of a checkpoint that was trained on captures, calibrated on what was measured on others."""
    is_real = np.isin(everything.capture, list(LICENCES))
    if not is_real.any():
        is_real = ~is_real  # better than nothing, where no real capture is at hand
    measured, rendered = everything.rows(is_real), everything.rows(~is_real)
    scale, offset, stranger = platt_with_strangers(measured.logit, measured.strange, measured.faulty)
    measured, rendered = (with_strangers(some, stranger / scale) for some in (measured, rendered))
    probability = probabilities(measured.logit, scale, offset)
    limit = max(threshold(probability[measured.kind == CLEAN]), threshold(probability[~measured.faulty]))
    figures = {f"auroc_{kind}": value for kind, value in auroc_by_kind(measured).items()}
    figures |= {f"auroc_{kind}_of_rendered": value for kind, value in auroc_by_kind(rendered).items() if kind == "all"}
    figures["share_of_clean_frames_dropped"] = false_alarms(measured, probability, limit)
    figures["share_of_faulty_frames_dropped"] = float((probability[measured.faulty] >= limit).mean())
    return CheckpointCard(
        name=SHIPPED.name,
        embedder="efficientnet-lite0",
        embedder_version=load_embedder("efficientnet-lite0", "cpu").version,
        calibration_scale=round(scale, 4),
        calibration_offset=round(offset, 4),
        calibration_stranger=round(stranger, 4),
        threshold=round(limit, 4),
        trained_on=tuple(TrainingSource(c.name, len(c.raw), c.licence) for c in captures),
        figures={name: round(value, 3) for name, value in figures.items()},
        about=ABOUT,
    )


def with_strangers(measured: Measured, weight: float) -> Measured:
    """Return what was measured with strangeness as a part of the logits."""
    return replace(measured, logit=measured.logit + weight * measured.strange)


def _is_left_out(capture: TrainingCapture, index: int, settings: Pretrain) -> bool:
    """Leave out what was named, and every third rendered capture; from which on depends on the names."""
    if not settings.leave_out:
        return False
    if capture.licence == RENDERED_LICENCE:
        return index % 3 == zlib.crc32(settings.leave_out[0].encode()) % 3
    return capture.name in settings.leave_out


def _print_epoch(result: EpochResult, model: ConsistencyTransformer) -> None:
    losses = ", ".join(f"{name} {value:.3f}" for name, value in result.validation.items())
    print(f"epoch {result.epoch}: training {result.training['total']:.3f}; validation {losses}", flush=True)


def _print_figures(measured: Measured) -> None:
    for name in (*np.unique(measured.capture), None):
        rows = measured if name is None else measured.rows(measured.capture == name)
        found = auroc_by_kind(rows)
        print(f"{name or 'mean':>18}: " + "  ".join(f"{kind} {value:.2f}" for kind, value in found.items()))


if __name__ == "__main__":
    with clear_errors():
        main(tyro.cli(Pretrain, description=__doc__))
