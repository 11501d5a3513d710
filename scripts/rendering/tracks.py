"""A COLMAP model with real tracks for photos whose poses are known: extract, match, triangulate, prune."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float

from mtcm_nerfstudio.geometry.poses import colmap_from_c2w
from rendering.raycast import Camera

SHORTEST_TRACK = 3
"""Points seen in fewer photos than this are left out: many of them are chance."""

_SEED = 0


def write_colmap_model(
    images: Path, poses: Mapping[str, Float[np.ndarray, "4 4"]], camera: Camera, out: Path, max_features: int = 700
) -> pycolmap.Reconstruction:
    """Write a binary model whose poses are exactly the given ones, and return it.

    Keypoints that are part of no such track are left out: they are most of a model's bytes and nothing reads them.

    Args:
        images: the folder of the photos.
        poses: OpenGL camera-to-world matrix of each photo, by file name.
        camera: of all photos.
        out: the model's folder.
        max_features: keypoints a photo, at most.
    """
    pycolmap.set_random_seed(_SEED)
    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "database.db"
        ids = _match_features(database, images, sorted(poses), camera, max_features)
        bare = Path(scratch) / "posed"
        _write_text(bare, ids, poses, camera, {}, "")
        posed = pycolmap.Reconstruction(str(bare))
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads, options.random_seed = 1, _SEED
        full = pycolmap.triangulate_points(posed, str(database), str(images), str(Path(scratch)), options=options)
        _write_text(Path(scratch) / "pruned", ids, poses, camera, *_tracks_as_text(full))
        pruned = pycolmap.Reconstruction(str(Path(scratch) / "pruned"))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    pruned.write_binary(str(out))
    return pruned


def _match_features(
    database: Path, images: Path, names: list[str], camera: Camera, max_features: int
) -> dict[str, int]:
    """Fill a COLMAP database and return the photos' numbers in it."""
    pycolmap.Database.open(str(database)).close()
    # Listed first, photos are numbered in the order of their names; extraction numbers them as its threads finish.
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "PINHOLE"
    reader.camera_params = ",".join(repr(value) for value in (camera.focal, camera.focal, camera.cx, camera.cy))
    pycolmap.import_images(str(database), str(images), pycolmap.CameraMode.SINGLE, image_names=names, options=reader)
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.sift.max_num_features = max_features
    extraction.num_threads = 2
    pycolmap.extract_features(str(database), str(images), image_names=names, extraction_options=extraction)
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = _SEED
    pycolmap.match_exhaustive(str(database), verification_options=verification)
    with pycolmap.Database.open(str(database)) as opened:
        return {image.name: image.image_id for image in opened.read_all_images()}


def _tracks_as_text(model: pycolmap.Reconstruction) -> tuple[dict[int, str], str]:
    """Return each photo's keypoints that belong to a track, and the points with their tracks, as COLMAP's text."""
    kept: dict[int, dict[int, int]] = {image_id: {} for image_id in model.images}
    keypoints: dict[int, list[str]] = {image_id: [] for image_id in model.images}
    points = []
    long_enough = [point for _, point in sorted(model.points3D.items()) if point.track.length() >= SHORTEST_TRACK]
    for number, point in enumerate(long_enough, start=1):
        track = []
        for element in point.track.elements:
            seen = kept[element.image_id]
            seen[element.point2D_idx] = len(seen)
            x, y = model.images[element.image_id].points2D[element.point2D_idx].xy
            keypoints[element.image_id].append(f"{x:.3f} {y:.3f} {number}")
            track.append(f"{element.image_id} {seen[element.point2D_idx]}")
        place = " ".join(f"{value:.6f}" for value in point.xyz)
        colour = " ".join(str(int(value)) for value in point.color)
        points.append(f"{number} {place} {colour} {point.error:.4f} {' '.join(track)}")
    return {image_id: " ".join(entries) for image_id, entries in keypoints.items()}, "\n".join(points) + "\n"


def _write_text(
    folder: Path,
    ids: Mapping[str, int],
    poses: Mapping[str, Float[np.ndarray, "4 4"]],
    camera: Camera,
    keypoints: Mapping[int, str],
    points: str,
) -> None:
    """Write a model in COLMAP's text format, the poses with all their digits."""
    folder.mkdir()
    intrinsics = f"{camera.focal!r} {camera.focal!r} {camera.cx!r} {camera.cy!r}"
    (folder / "cameras.txt").write_text(f"1 PINHOLE {camera.width} {camera.height} {intrinsics}\n")
    lines = []
    for name, c2w in poses.items():
        numbers = " ".join(repr(float(value)) for value in np.concatenate(colmap_from_c2w(c2w)))
        lines += [f"{ids[name]} {numbers} 1 {name}", keypoints.get(ids[name], "")]
    (folder / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "points3D.txt").write_text(points)
