"""Makes the sample in data/: one rendered walk around a figure, with known faults, in every layout that is read.

    data/sample/           transforms.json, sparse/0 (a COLMAP model), images/, masks/, faults.json (the truth)
    data/{raw_images,masks,metadata,embeddings}/<identity>/    the same frames in the identity layout

Usage:
    python scripts/make_sample_capture.py                 make it anew in data/
    python scripts/make_sample_capture.py --out /tmp/x    make it somewhere else
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pycolmap
import tyro
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from rendered_scenes import draw_recipe, render_frames
from rendering import files
from rendering.gallery import build_gallery, gallery_path
from rendering.paths import smooth_noise
from rendering.raycast import Camera, developed
from rendering.tracks import write_colmap_model

from mtcm_nerfstudio.capture.corruptions import Fault, apply_image_fault, faulted_poses
from mtcm_nerfstudio.capture.corruptions.image import ImageFaultKind
from mtcm_nerfstudio.capture.images import read_rgb
from mtcm_nerfstudio.geometry.poses import colmap_from_c2w
from mtcm_nerfstudio.tokens.embedders import load_embedder

DATA = Path(__file__).resolve().parents[1] / "data"
IDENTITY = "Étude 1"
"""The sample's name as an identity: with a space and a letter that is not ASCII, as people's names have them."""
SEED = 7
FRAMES = 52
CAMERA = Camera(width=400, height=300, focal=340.0, cx=200.0, cy=150.0)
EXPOSURE = 0.95
NOISE = 0.006
JPEG_QUALITY = 85
START = datetime(2024, 5, 31, 14, 12, 0, 250000)
FOREIGN_SEED = 8
"""The rendered scene that the foreign frame comes from."""

FAULTS = (
    Fault(frame=5, kind="motion_blur", severity=0.7, seed=1),
    Fault(frame=12, kind="swap", severity=0.5, seed=2),
    Fault(frame=19, kind="occluder", severity=0.8, seed=3),
    Fault(frame=25, kind="exposure", severity=0.8, seed=5),
    Fault(frame=31, kind="foreign", severity=0.5, seed=4),
    Fault(frame=37, kind="swap", severity=0.5, seed=2),
    Fault(frame=43, kind="defocus", severity=0.8, seed=6),
)
"""None is on a frame that nerfstudio evaluates on by default (every tenth, or every eighth from a COLMAP model), so
that a PSNR with and without these frames means the same."""

_IMAGE_FAULTS: dict[str, ImageFaultKind] = {
    "motion_blur": "motion_blur",
    "defocus": "defocus",
    "exposure": "exposure",
    "occluder": "occluder",
}


@dataclass(frozen=True, eq=False)
class Shots:
    """The walk as it is written out, faults included."""

    names: tuple[str, ...]
    pixels: tuple[UInt8[np.ndarray, "height width 3"], ...]
    masks: tuple[Bool[np.ndarray, "height width"], ...]
    c2w: Float[np.ndarray, "frame 4 4"]
    seconds: Float[np.ndarray, " frame"]


def take_shots() -> Shots:
    """Render the walk and put the faults in."""
    stage, clean_poses = build_gallery(SEED), gallery_path(SEED, FRAMES)
    rng = np.random.default_rng([SEED, 12])
    exposure = EXPOSURE * 2.0 ** (0.05 * smooth_noise(rng, FRAMES, 4.0)[:, 0])
    seconds = np.round(np.cumsum(rng.uniform(0.45, 0.8, FRAMES)), 3)
    pixels, masks = [], []
    for pose, brightness in zip(clean_poses, exposure, strict=True):
        linear, mask = stage.render(pose, CAMERA)
        pixels.append(developed(linear, brightness, NOISE, rng))
        masks.append(mask)
    for fault in FAULTS:
        pixels[fault.frame], masks[fault.frame] = _corrupt_frame(pixels[fault.frame], masks[fault.frame], fault)
    names = tuple(f"frame_{number:03d}.jpg" for number in range(1, FRAMES + 1))
    return Shots(names, tuple(pixels), tuple(masks), faulted_poses(clean_poses, FAULTS), seconds)


def _corrupt_frame(pixels: np.ndarray, mask: np.ndarray, fault: Fault) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask of a faulty frame; what an occluder hides is no longer the subject."""
    if fault.kind == "foreign":
        shots = render_frames(draw_recipe(FOREIGN_SEED), FRAMES, (CAMERA.width, CAMERA.height))
        _, foreign = next(shots)
        return foreign.pixels, foreign.mask
    if fault.kind not in _IMAGE_FAULTS:
        return pixels, mask
    kind = _IMAGE_FAULTS[fault.kind]
    faulty = np.asarray(apply_image_fault(Image.fromarray(pixels), kind, fault.severity, fault.rng()))
    hidden = np.abs(faulty.astype(int) - pixels).max(axis=2) > 12
    return faulty, mask & ~hidden if kind == "occluder" else mask


def write_images(shots: Shots, images: Path, masks: Path) -> None:
    """Write JPEGs with EXIF, and masks beside them."""
    for name, pixels, mask, seconds in zip(shots.names, shots.pixels, shots.masks, shots.seconds, strict=True):
        tags = files.exif(CAMERA, files.taken_at(START, float(seconds)))
        files.save_photo(images / name, pixels, JPEG_QUALITY, tags)
        files.save_mask((masks / name).with_suffix(".png"), mask)


def write_capture(shots: Shots, out: Path) -> pycolmap.Reconstruction:
    """Write ``sample/``: photos, transforms.json, the COLMAP model and the truth.

    The masks are there but not listed in transforms.json: nerfstudio would train on the subject alone.
    """
    write_images(shots, out / "images", out / "masks")
    record = files.transforms(CAMERA, [f"images/{name}" for name in shots.names], shots.c2w)
    files.write_json(out / "transforms.json", record)
    truth = [
        {"file_path": f"images/{shots.names[fault.frame]}", "reason": fault.reason, **asdict(fault)} for fault in FAULTS
    ]
    files.write_json(out / "faults.json", {"schema_version": 1, "faults": truth})
    poses = dict(zip(shots.names, shots.c2w, strict=True))
    return write_colmap_model(out / "images", poses, CAMERA, out / "sparse" / "0")


def write_identity(shots: Shots, sample: Path, data: Path, identity: str) -> None:
    """Write the identity layout, with the same files for photos and masks."""
    shutil.copytree(sample / "images", data / "raw_images" / identity)
    shutil.copytree(sample / "masks", data / "masks" / identity)
    metadata = data / "metadata" / identity
    files.write_json(metadata / "poses.json", {"images": _colmap_poses(shots), "cameras": {"1": _colmap_camera()}})
    files.write_json(metadata / "exif.json", dict(zip(shots.names, _exif_entries(shots), strict=True)))
    write_embeddings(data / "raw_images" / identity, shots.names, data / "embeddings" / identity)


def _colmap_poses(shots: Shots) -> dict[str, dict[str, object]]:
    entries = {}
    for name, c2w in zip(shots.names, shots.c2w, strict=True):
        wxyz, translation = colmap_from_c2w(c2w)
        entries[name] = {"qvec": wxyz.tolist(), "tvec": translation.tolist(), "camera_id": 1}
    return entries


def _colmap_camera() -> dict[str, object]:
    params = [CAMERA.focal, CAMERA.focal, CAMERA.cx, CAMERA.cy]
    return {"model": "PINHOLE", "width": CAMERA.width, "height": CAMERA.height, "params": params}


def _exif_entries(shots: Shots) -> list[dict[str, object]]:
    taken = [files.taken_at(START, float(seconds)).replace(tzinfo=timezone.utc) for seconds in shots.seconds]
    return [
        {"timestamp": moment.timestamp(), "focal_length": CAMERA.focal, "focal_length_unit": "px"} for moment in taken
    ]


def write_embeddings(images: Path, names: Sequence[str], out: Path) -> None:
    """Write one ``.npy`` of 384 numbers a photo, and which backend made them."""
    embedder = load_embedder("efficientnet-lite0", device="cpu")
    out.mkdir(parents=True)
    for name, vector in zip(names, embedder.embed([read_rgb(images / name) for name in names]), strict=True):
        np.save((out / name).with_suffix(".npy"), vector)
    files.write_json(out / "backend.json", {"backend": embedder.name, "version": embedder.version})


def make_sample(out: Path = DATA, identity: str = IDENTITY) -> None:
    """Make the sample anew.

    Args:
        out: the folder of all data; only the sample in it is replaced.
        identity: name of the sample in the identity layout.
    """
    sample = out / "sample"
    folders = [out / part / identity for part in ("raw_images", "masks", "metadata", "embeddings")]
    for folder in (sample, *folders):
        shutil.rmtree(folder, ignore_errors=True)
    shots = take_shots()
    model = write_capture(shots, sample)
    write_identity(shots, sample, out, identity)
    size = sum(path.stat().st_size for folder in (sample, *folders) for path in folder.rglob("*") if path.is_file())
    print(f"{FRAMES} frames, {len(FAULTS)} of them faulty: {json.dumps([fault.kind for fault in FAULTS])}")
    print(f"{model.num_points3D()} points, mean error {model.compute_mean_reprojection_error():.2f} px")
    print(f"{size / 1e6:.2f} MB in {sample} and {', '.join(folder.parent.name for folder in folders)}/{identity}")


if __name__ == "__main__":
    tyro.cli(make_sample, description=__doc__)
