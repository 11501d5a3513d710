"""Calibration and threshold of a checkpoint, by captures that were left out of training."""

from dataclasses import replace

import numpy as np
from benchmarks.capture_list import read_capture_list
from jaxtyping import Float

from mtcm_nerfstudio.consistency.blur_judge import BlurJudge, either, fit_scale
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard
from mtcm_nerfstudio.consistency.training.calibration import Calibration, control_risk, fit_calibration
from mtcm_nerfstudio.verdicts.decide import CERTAIN_IN_SPITE
from pretraining.held_out import AS_IT_CAME, Measured, auroc_by_variant

MOST_DROPPED = 0.04
"""A capture's loss counts up to this share where the threshold is placed: twice what the worst capture may lose."""


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
    stays = measured.contradicted & (probability < CERTAIN_IN_SPITE)
    # What no verdict would drop costs nothing.
    cost = np.where(stays, 0.0, probability)[counts]
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
