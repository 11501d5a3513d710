"""Renders random captures: many different scenes, camera paths and ways to name files, with exact poses.

They are what the shipped checkpoint is pretrained on, beside real captures.

Usage:
    python scripts/rendered_scenes.py --out outputs/rendered --count 30
    python scripts/rendered_scenes.py --out outputs/rendered --count 4 --frames 60 --size 640 480
"""

import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import tyro
from jaxtyping import Bool, Float, UInt8
from scenes import files, paths, stages
from scenes.raycast import Camera, developed
from scenes.stages import Look, Surroundings

Naming = Literal["padded", "unpadded", "shuffled"]
"""``frame_0007.jpg``; ``IMG_7.jpg``; or names in no order, where only EXIF tells the time."""

_EVERYWHERE = ("orbit", "arc", "two_loops", "spiral", "sweep", "scattered")
COMBINATIONS: tuple[tuple[Surroundings, str], ...] = (
    *itertools.product(("room", "outdoor", "tabletop"), _EVERYWHERE),
    *itertools.product(("plain",), ("orbit", "arc", "two_loops", "spiral")),
    ("street", "walk"),
    ("field", "aerial"),
    ("street", "walk"),
    ("field", "aerial"),
    ("outdoor", "orbit"),
)
"""Surroundings with the paths that fit into them: 27, visited in steps of 8 so that few scenes already differ."""


@dataclass(frozen=True)
class Recipe:
    """Everything that is drawn for a scene before its geometry."""

    seed: int
    path: str
    look: Look
    focal_over_width: float
    brightness: float
    """Median linear brightness of the pictures, in (0, 1)."""
    noise: float
    """Sensor noise at medium brightness, of 1."""
    exposure_drift: float
    """Deviation of the automatic exposure along the path, in stops."""
    softness_px: float
    """How soft the softest ordinary frames are, for a picture 320 px wide."""
    naming: Naming
    has_exif: bool
    jpeg_quality: int


@dataclass(frozen=True, eq=False)
class Photograph:
    """One rendered frame."""

    pixels: UInt8[np.ndarray, "height width 3"]
    mask: Bool[np.ndarray, "height width"]
    c2w: Float[np.ndarray, "4 4"]
    seconds: float
    """Since the first frame."""


def draw_recipe(seed: int) -> Recipe:
    """Draw a recipe; consecutive seeds go through all combinations of surroundings and path."""
    rng = np.random.default_rng([seed, 1])
    surroundings, path = COMBINATIONS[seed * 8 % len(COMBINATIONS)]
    poor = surroundings == "plain" or rng.random() < 0.15
    look = Look(
        surroundings=surroundings,
        contrast=rng.uniform(0.1, 0.35) if poor else rng.uniform(0.7, 1.1),
        subject_contrast=rng.uniform(0.6, 1.1),
        subject_size=rng.uniform(0.45, 1.0),
    )
    naming: Naming = get_args(Naming)[int(rng.choice(3, p=[0.5, 0.3, 0.2]))]
    return Recipe(
        seed=seed,
        path=path,
        look=look,
        focal_over_width=rng.uniform(0.65, 1.15),
        brightness=float(np.exp(rng.uniform(np.log(0.06), np.log(0.35)))),
        noise=rng.uniform(0.003, 0.02),
        exposure_drift=rng.uniform(0.02, 0.25),
        softness_px=rng.uniform(0.0, 0.7),
        naming=naming,
        has_exif=naming == "shuffled" or rng.random() < 0.7,
        jpeg_quality=int(rng.integers(80, 97)),
    )


def photographs(recipe: Recipe, frames: int, size: tuple[int, int]) -> Iterator[tuple[Camera, Photograph]]:
    """Yield the frames of a recipe in the order in which they are taken; ``size`` is (width, height) in pixels."""
    rng = np.random.default_rng([recipe.seed, 2])
    stage, centre = stages.build(rng, recipe.look)
    width, height = size
    shift = rng.uniform(-0.01, 0.01, 2) * width
    camera = Camera(width, height, recipe.focal_over_width * width, width / 2 + shift[0], height / 2 + shift[1])
    c2w = paths.hand_held(recipe.path, rng, frames, centre)
    preview = Camera(32, 24, recipe.focal_over_width * 32, 16.0, 12.0)
    light = [stage.photograph(pose, preview, supersampling=1)[0] for pose in c2w[:: max(1, frames // 12)]]
    exposure = recipe.brightness / max(float(np.median(np.stack(light))), 1e-4)
    drift = exposure * 2.0 ** (recipe.exposure_drift * paths.smooth_noise(rng, frames, 4.0)[:, 0])
    softness = recipe.softness_px * width / 320.0 * rng.beta(1.0, 3.0, frames)
    seconds = np.cumsum(rng.uniform(0.25, 0.45, frames)) * rng.uniform(0.5, 4.0)
    for i in range(frames):
        linear, mask = stage.photograph(c2w[i], camera)
        if softness[i] > 0.05:
            linear = cv2.GaussianBlur(linear, (0, 0), softness[i])
        yield camera, Photograph(developed(linear, drift[i], recipe.noise, rng), mask, c2w[i], float(seconds[i]))


def file_stems(recipe: Recipe, frames: int) -> list[str]:
    """Return the frames' names without ending, in the order in which they are taken."""
    if recipe.naming == "padded":
        return [f"frame_{i + 1:05d}" for i in range(frames)]
    if recipe.naming == "unpadded":
        return [f"IMG_{i + 1}" for i in range(frames)]
    numbers = np.random.default_rng([recipe.seed, 3]).permutation(16**4)[:frames]
    return [f"{number:04x}" for number in numbers]


def render_scene(
    seed: int, out_dir: Path, frames: int = 50, size: tuple[int, int] = (320, 240), recipe: Recipe | None = None
) -> Path:
    """Render one capture with masks into ``out_dir`` unless it is there already, and return ``out_dir``.

    Args:
        seed: the same seed gives the same files, up to versions of the libraries.
        out_dir: gets ``transforms.json`` (written last), ``images/`` and ``masks/``.
        frames: how many frames the path has.
        size: width and height in pixels.
        recipe: what to render; drawn from the seed by default.
    """
    if (out_dir / "transforms.json").exists():
        return out_dir
    recipe = recipe or draw_recipe(seed)
    stems = file_stems(recipe, frames)
    start = datetime(2024, 5, 1, 10, 0, 0)
    poses, camera = [], None
    for stem, (camera, shot) in zip(stems, photographs(recipe, frames, size), strict=True):
        tags = files.exif(camera, files.taken_at(start, shot.seconds)) if recipe.has_exif else None
        files.save_photo(out_dir / "images" / f"{stem}.jpg", shot.pixels, recipe.jpeg_quality, tags)
        files.save_mask(out_dir / "masks" / f"{stem}.png", shot.mask)
        poses.append(shot.c2w)
    if camera is None:
        raise ValueError(f"--frames must be at least 1, got {frames}")
    order = np.argsort(stems) if recipe.naming == "shuffled" else np.arange(frames)
    record = files.transforms(
        camera,
        [f"images/{stems[i]}.jpg" for i in order],
        np.stack([poses[i] for i in order]),
        [f"masks/{stems[i]}.png" for i in order],
    )
    files.write_json(out_dir / "transforms.json", record)
    return out_dir


def render_many(
    out: Path,
    count: int = 30,
    seed: int = 0,
    size: tuple[int, int] = (320, 240),
    frames: int = 50,
    workers: int = 2,
) -> list[Path]:
    """Render ``count`` captures side by side; those that are finished already are left alone.

    Args:
        out: folder that gets one capture a folder, ``scene_0000`` and on.
        count: number of captures.
        seed: seed of the first; the others count up from it.
        size: width and height in pixels.
        frames: frames per capture.
        workers: processes to render in.
    """
    seeds = range(seed, seed + count)
    folders = [out / f"scene_{number:04d}" for number in seeds]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = [pool.submit(render_scene, n, d, frames, size) for n, d in zip(seeds, folders, strict=True)]
        for done, job in enumerate(pending, start=1):
            recipe = draw_recipe(seed + done - 1)
            print(f"{done}/{count} {job.result().name}: {recipe.path} in {recipe.look.surroundings}", flush=True)
    return folders


if __name__ == "__main__":
    tyro.cli(render_many, description=__doc__)
