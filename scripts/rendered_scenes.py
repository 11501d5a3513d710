"""Renders random captures: many different scenes, camera paths and ways to name files, with exact poses.

They are what the shipped checkpoint is pretrained on, beside real captures.

Usage:
    python scripts/rendered_scenes.py --out outputs/rendered --count 30
    python scripts/rendered_scenes.py --out outputs/rendered --count 4 --frames 60 --size 640 480
"""

import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np
import tyro
from rendering import files
from rendering.recipes import COMBINATIONS, JOURNEYS, Recipe, draw_recipe
from rendering.shooting import RenderedFrame, render_frames

__all__ = [
    "COMBINATIONS",
    "JOURNEYS",
    "Recipe",
    "RenderedFrame",
    "draw_recipe",
    "file_stems",
    "render_frames",
    "render_many",
    "render_scene",
]

NATURAL_FAULTS = "natural_faults.json"


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
        out_dir: gets ``transforms.json`` (written last), ``images/``, ``masks/`` and ``natural_faults.json``, which
            has reason and grade of each frame that is faulty as it came from the camera.
        frames: how many frames a dense path has; sparse ones have fewer, journeys up to twice as many.
        size: width and height in pixels.
        recipe: what to render; drawn from the seed by default.
    """
    if (out_dir / "transforms.json").exists():
        return out_dir
    recipe = recipe or draw_recipe(seed)
    frames = recipe.frame_count(frames)
    stems = file_stems(recipe, frames)
    start = datetime(2024, 5, 1, 10, 0, 0)
    poses, faults, camera = [], {}, None
    for stem, (camera, shot) in zip(stems, render_frames(recipe, frames, size), strict=True):
        tags = files.exif(camera, files.taken_at(start, shot.seconds)) if recipe.has_exif else None
        files.save_photo(out_dir / "images" / f"{stem}.jpg", shot.pixels, recipe.jpeg_quality, tags)
        files.save_mask(out_dir / "masks" / f"{stem}.png", shot.mask)
        poses.append(shot.c2w)
        if shot.fault is not None:
            faults[f"images/{stem}.jpg"] = asdict(shot.fault)
    if camera is None:
        raise ValueError(f"--frames must be at least 1, got {frames}")
    order = np.argsort(stems) if recipe.naming == "shuffled" else np.arange(frames)
    record = files.transforms(
        camera,
        [f"images/{stems[i]}.jpg" for i in order],
        np.stack([poses[i] for i in order]),
        [f"masks/{stems[i]}.png" for i in order],
    )
    files.write_json(out_dir / NATURAL_FAULTS, faults)
    files.write_json(out_dir / "transforms.json", record)
    return out_dir


def render_many(
    out: Path,
    count: int = 30,
    seed: int = 0,
    size: tuple[int, int] = (320, 240),
    frames: int = 50,
    workers: int = 2,
    two_sessions: bool = False,
) -> list[Path]:
    """Render ``count`` captures side by side; those that are finished already are left alone.

    Args:
        out: folder that gets one capture a folder, ``scene_0000`` and on.
        count: number of captures.
        seed: seed of the first; the others count up from it.
        size: width and height in pixels.
        frames: frames per dense capture.
        workers: processes to render in.
        two_sessions: take only those seeds whose captures were taken in two sessions.
    """
    wanted = (n for n in itertools.count(seed) if not two_sessions or draw_recipe(n).events.second_session != "none")
    seeds = list(itertools.islice(wanted, count))
    folders = [out / f"scene_{number:04d}" for number in seeds]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = [pool.submit(render_scene, n, d, frames, size) for n, d in zip(seeds, folders, strict=True)]
        for done, (number, job) in enumerate(zip(seeds, pending, strict=True), start=1):
            recipe = draw_recipe(number)
            print(f"{done}/{count} {job.result().name}: {recipe.path} in {recipe.look.surroundings}", flush=True)
    return folders


if __name__ == "__main__":
    tyro.cli(render_many, description=__doc__)
