"""COLMAP through pycolmap: features, matches, and the model that poses most images.

The database outlives an interruption: features and matches that are in it are not computed again.
"""

import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pycolmap

Matching = Literal["exhaustive", "sequential"]
CameraModel = Literal["OPENCV", "SIMPLE_RADIAL", "RADIAL", "PINHOLE", "SIMPLE_PINHOLE", "OPENCV_FISHEYE"]
Stage = Literal["features", "matches", "mapping"]
Report = Callable[[Stage, int, int], None]
"""Progress callback: (stage, steps done, steps in all)."""

SEQUENTIAL_OVERLAP = 10
ENOUGH_SHARE = 0.9
"""When COLMAP's own settings pose fewer than this share of the images, the patient ones are tried too."""


@dataclass(frozen=True)
class Job:
    """What is to be reconstructed, and how; the same job gives the same model on the same machine."""

    images: Path
    """Folder of the images."""
    work: Path
    """Folder for the database, the log and the model."""
    cameras: tuple[tuple[str, ...], ...]
    """Names of the images in groups: one camera each."""
    matching: Matching
    camera_model: CameraModel
    max_image_size: int
    """Features are looked for at this length of the longer side, in pixels."""
    max_features: int
    """At most so many features an image."""
    seed: int
    threads: int
    """Threads for features and matches; mapping has one, and is therefore the same every time."""

    @property
    def names(self) -> tuple[str, ...]:
        """All images, group after group."""
        return tuple(itertools.chain.from_iterable(self.cameras))

    @property
    def database(self) -> Path:
        """COLMAP's database."""
        return self.work / "database.db"

    @property
    def model(self) -> Path:
        """Folder of the model that poses most images."""
        return self.work / "model"

    @property
    def log(self) -> Path:
        """Path of COLMAP's log."""
        return self.work / "log.txt"


@dataclass(frozen=True)
class MappingResult:
    """Result of incremental mapping: registered images, points, errors, sizes of all models."""

    registered: tuple[str, ...]
    """Names of the images that have a pose in the largest model, sorted."""
    points: int
    observations_per_image: float
    reprojection_error_px: float
    model_sizes: tuple[int, ...]
    """Images in every separate model found, largest first; frames of different models share no world."""
    patient: bool
    """Whether it took the patient settings."""


def reconstruct(job: Job, report: Report) -> MappingResult | None:
    """Extract features, match them, map, and leave the largest model in ``job.model``.

    Returns:
        What was mapped, or None when no two images could be put together.
    """
    job.work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(job.model, ignore_errors=True)
    pycolmap.set_random_seed(job.seed)
    _import_images(job)
    report("features", 0, len(job.names))
    pycolmap.extract_features(
        str(job.database), str(job.images), image_names=job.names, extraction_options=_extraction(job)
    )
    report("matches", 0, number_of_pairs(len(job.names), job.matching))
    _match(job)
    return _map_images(job, report)


def number_of_pairs(images: int, matching: Matching) -> int:
    """Count the pairs of images that are matched."""
    if matching == "exhaustive":
        return images * (images - 1) // 2
    steps = {*range(1, SEQUENTIAL_OVERLAP + 1), *(2**k for k in range(SEQUENTIAL_OVERLAP))}
    return sum(max(0, images - step) for step in steps)


def sequential_pairings() -> tuple[pycolmap.SequentialPairingOptions, pycolmap.SequentialPairingOptions]:
    """Return COLMAP's two ways through a sequence: near neighbours, and steps that double, which close loops."""
    near, far = pycolmap.SequentialPairingOptions(), pycolmap.SequentialPairingOptions()
    near.overlap = far.overlap = SEQUENTIAL_OVERLAP
    near.quadratic_overlap, far.quadratic_overlap = False, True
    return near, far


def _import_images(job: Job) -> None:
    """List images and cameras in the database before features are: identifiers then follow the names' order.

    Extraction alone would number the images as its threads finish. The list is written to a database of another
    name first: interrupted, it would leave some images without their shared camera.
    """
    if job.database.exists():
        return
    partial = job.work / "database.partial.db"
    partial.unlink(missing_ok=True)
    pycolmap.Database.open(str(partial)).close()
    options = pycolmap.ImageReaderOptions()
    options.camera_model = job.camera_model
    for names in job.cameras:
        pycolmap.import_images(
            str(partial), str(job.images), camera_mode=pycolmap.CameraMode.SINGLE, image_names=names, options=options
        )
    partial.replace(job.database)


def _extraction(job: Job) -> pycolmap.FeatureExtractionOptions:
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size = job.max_image_size
    options.num_threads = job.threads
    options.sift.max_num_features = job.max_features
    return options


def _match(job: Job) -> None:
    """Match features and verify the matches; small blocks of pairs are committed (and can be counted) as they go."""
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = job.threads
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = job.seed
    if job.matching == "exhaustive":
        pairing = pycolmap.ExhaustivePairingOptions()
        pairing.block_size = max(4, min(50, len(job.names) // 5))
        pycolmap.match_exhaustive(str(job.database), matching, pairing, verification)
    else:
        for pairing in sequential_pairings():
            pycolmap.match_sequential(str(job.database), matching, pairing, verification)


def _map_images(job: Job, report: Report) -> MappingResult | None:
    """Map with COLMAP's own settings and, where those leave many images out, with patient ones; keep the better."""
    best = _attempt(job, report, patient=False)
    if best is None or len(best.registered) < ENOUGH_SHARE * len(job.names):
        other = _attempt(job, report, patient=True)
        if other is not None and (best is None or len(other.registered) > len(best.registered)):
            best = other
    if best is not None:
        (_attempt_folder(job, best.patient) / "best").replace(job.model)
    for patient in (False, True):
        shutil.rmtree(_attempt_folder(job, patient), ignore_errors=True)
    return best


def _attempt(job: Job, report: Report, patient: bool) -> MappingResult | None:
    folder = _attempt_folder(job, patient)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    started, image_registered = _callbacks(report, len(job.names))
    models = pycolmap.incremental_mapping(
        str(job.database),
        str(job.images),
        str(folder),
        options=_mapping(job, patient),
        initial_image_pair_callback=started,
        next_image_callback=image_registered,
    )
    if not models:
        return None
    ordered = sorted(models.values(), key=lambda model: (-model.num_reg_images(), -model.num_points3D()))
    (folder / "best").mkdir()
    ordered[0].write_binary(str(folder / "best"))
    return MappingResult(
        registered=tuple(sorted(ordered[0].images[i].name for i in ordered[0].reg_image_ids())),
        points=ordered[0].num_points3D(),
        observations_per_image=ordered[0].compute_mean_observations_per_reg_image(),
        reprojection_error_px=ordered[0].compute_mean_reprojection_error(),
        model_sizes=tuple(model.num_reg_images() for model in ordered),
        patient=patient,
    )


def _mapping(job: Job, patient: bool) -> pycolmap.IncrementalPipelineOptions:
    """Return the mapper's options.

    The patient ones are for walks straight ahead with long steps: the first pair may have a small angle and lie in
    the direction of view, and an image may join on 15 matches that fit, where COLMAP asks for 16°, a step to the
    side and 30.
    """
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1  # with more, the same matches give one of several models
    options.random_seed = job.seed
    options.min_model_size = 3
    if patient:
        options.mapper.init_min_tri_angle = 4.0
        options.mapper.init_max_forward_motion = 1.0
        options.mapper.init_min_num_inliers = 50
        options.mapper.abs_pose_min_num_inliers = 15
        options.mapper.abs_pose_min_inlier_ratio = 0.15
    return options


def _callbacks(report: Report, total: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Count registered images: two with a first pair, one more with each that joins; a new model starts over."""
    done = 0

    def started() -> None:
        nonlocal done
        done = 2
        report("mapping", done, total)

    def image_registered() -> None:
        nonlocal done
        done += 1
        report("mapping", min(done, total), total)

    return started, image_registered


def _attempt_folder(job: Job, patient: bool) -> Path:
    return job.work / ("mapping_patient" if patient else "mapping")


def camera_groups(keys: Sequence[tuple[str, object]]) -> tuple[tuple[str, ...], ...]:
    """Group names by their camera's key, groups in the order in which they first appear."""
    groups: dict[object, list[str]] = {}
    for name, key in keys:
        groups.setdefault(key, []).append(name)
    return tuple(tuple(names) for names in groups.values())
