"""Numbers about single frames that anyone could compute: the baselines, and what the logistic regression is made of.

All of them are higher for worse.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler

from benchmarks.detection.labelled_captures import LabelledCapture
from mtcm_nerfstudio.evidence.keypoints import GLOBAL_STATISTICS
from mtcm_nerfstudio.geometry.poses import nearest_rotation, rotation_angle_degrees
from mtcm_nerfstudio.tokens.tokens import POSE, assemble_tokens

PerFrame = Float[np.ndarray, " frame"]

_NEIGHBOURS = 5
_LARGEST = 6.0


def random_numbers(labelled: LabelledCapture) -> PerFrame:
    return np.random.default_rng([labelled.case.seed, *labelled.capture.encode()]).random(len(labelled))


def unsharpness(labelled: LabelledCapture) -> PerFrame:
    return -labelled.looks.sharpness


def bad_quality(labelled: LabelledCapture) -> PerFrame:
    return 1.0 - labelled.looks.cleanvision


def brightness_deviation(labelled: LabelledCapture) -> PerFrame:
    brightness = labelled.matched.table.frames.statistics[:, GLOBAL_STATISTICS.index("log2 brightness")]
    return np.nan_to_num(np.abs(brightness - np.nanmedian(brightness)))


def embedding_against_pose_neighbours(labelled: LabelledCapture) -> PerFrame:
    """Median distance of a frame's embedding from those of the frames at the nearest claimed poses."""
    pose = assemble_tokens(labelled.raw).tokens[:, POSE].astype(np.float64)
    away = np.linalg.norm(pose[:, None, :3] - pose[None, :, :3], axis=-1)
    turned = 2.0 * np.arccos(np.clip(np.abs(pose[:, 3:] @ pose[:, 3:].T), 0.0, 1.0))
    return _embedding_against_nearest(labelled, away + turned)


def embedding_against_time_neighbours(labelled: LabelledCapture) -> PerFrame:
    steps = np.abs(np.subtract.outer(np.arange(len(labelled)), np.arange(len(labelled))))
    return _embedding_against_nearest(labelled, steps.astype(np.float64))


def _embedding_against_nearest(labelled: LabelledCapture, distance: Float[np.ndarray, "frame frame"]) -> PerFrame:
    distance = distance.copy()
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(_NEIGHBOURS, len(distance) - 1)]
    embeddings = labelled.raw.embeddings
    return np.median(np.linalg.norm(embeddings[:, None] - embeddings[nearest], axis=-1), axis=1)


def isolation_forest(labelled: LabelledCapture) -> PerFrame:
    tokens = _standardised_tokens(labelled)
    return -IsolationForest(random_state=labelled.case.seed).fit(tokens).score_samples(tokens)


def local_outlier_factor(labelled: LabelledCapture) -> PerFrame:
    factor = LocalOutlierFactor(n_neighbors=min(20, len(labelled) - 1))
    return -factor.fit(_standardised_tokens(labelled)).negative_outlier_factor_


def _standardised_tokens(labelled: LabelledCapture) -> Float[np.ndarray, "frame 394"]:
    return StandardScaler().fit_transform(assemble_tokens(labelled.raw).tokens)


def pose_jump(labelled: LabelledCapture) -> PerFrame:
    """How far a camera is from half-way between the one before and the one after: units of the capture plus radians.

    The first and the last are compared with the one beside them and the next but one.
    """
    frame = assemble_tokens(labelled.raw).canonical_frame
    c2w = frame.to_capture(labelled.raw.c2w.astype(np.float64))
    before, after = np.arange(len(c2w)) - 1, np.arange(len(c2w)) + 1
    before[0], after[-1] = 2, len(c2w) - 3
    half_way = nearest_rotation(c2w[before, :3, :3] + c2w[after, :3, :3])
    away = np.linalg.norm(c2w[:, :3, 3] - 0.5 * (c2w[before, :3, 3] + c2w[after, :3, 3]), axis=1)
    return away + np.radians(rotation_angle_degrees(c2w[:, :3, :3], half_way))


def outlier_ratio(labelled: LabelledCapture) -> PerFrame:
    """Share of a frame's verified matches that do not obey the claimed poses, the mean over its pairs."""
    return 1.0 - labelled.evidence.number("inlier ratio")


def few_matches(labelled: LabelledCapture) -> PerFrame:
    return -labelled.evidence.number("most matches")


def max_rank_fusion(labelled: LabelledCapture) -> PerFrame:
    """The larger rank, as a share of the frames, of the outlier ratio and of the embedding against pose neighbours."""
    ranks = [rankdata(values) for values in (outlier_ratio(labelled), embedding_against_pose_neighbours(labelled))]
    return np.maximum(*ranks) / len(labelled)


def few_observations(labelled: LabelledCapture) -> PerFrame | None:
    return None if labelled.model is None else -labelled.model.observations.astype(np.float64)


def reprojection_error(labelled: LabelledCapture) -> PerFrame | None:
    return None if labelled.model is None else labelled.model.errors(labelled.raw.c2w)


SIGNALS: Mapping[str, Callable[[LabelledCapture], PerFrame]] = {
    "sharpness": lambda labelled: -np.log(np.maximum(labelled.looks.sharpness, 1e-6)),
    "brightness": brightness_deviation,
    "embedding, pose neighbours": embedding_against_pose_neighbours,
    "embedding, time neighbours": embedding_against_time_neighbours,
    "local outlier factor": local_outlier_factor,
    "pose smoothness": pose_jump,
    "inlier ratio": outlier_ratio,
    "matches": few_matches,
}
"""What the logistic regression is fitted on."""


def signals_of(labelled: LabelledCapture) -> Float[np.ndarray, "frame 8"]:
    """Return every signal of every frame, as robust deviations from the capture's median."""
    return np.column_stack([_deviation(signal(labelled)) for signal in SIGNALS.values()])


def _deviation(values: PerFrame) -> PerFrame:
    off = values - np.median(values)
    typical = 1.4826 * np.median(np.abs(off)) + 1e-3 * np.abs(values).max() + 1e-9
    return np.clip(off / typical, -_LARGEST, _LARGEST)
