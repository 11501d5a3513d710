"""What faulty frames look like in a NeRF: the same views rendered by one trained on them, and with MTCM, side by side.

Usage:
    python scripts/draw_renders.py                      a rendered scene that no checkpoint was trained on (minutes)
    python scripts/draw_renders.py --scene 5003 --steps 1500

The tiny method is trained anew for every column, with the same steps. The picture goes to data/results/nerf_renders.jpg
and what it was made of to nerf_renders.json.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro
from benchmarks.detection.record import command, versions
from benchmarks.nerf.cases import MIXED, make_case
from benchmarks.nerf.cells import trained
from benchmarks.nerf.methods import ALL, CLEAN, JOINT, REPAIR, methods
from matplotlib.figure import Figure
from PIL import Image
from rendered_scenes import render_scene

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.images import read_rgb
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decisions import write_text_atomically
from mtcm_nerfstudio.report.plot_style import INK, new_figure, save_figure

_COLUMNS = (CLEAN, ALL, REPAIR, JOINT)
_VIEWS = 3


@dataclass(frozen=True)
class Renders:
    """Train one NeRF for each remedy and draw the same views of all."""

    scene: int = 5006
    """Seed of the rendered scene; the next one lends foreign images. Checkpoints are trained on seeds below 1000."""
    frames: int = 60
    """Frames of it."""
    steps: int = 600
    """Training steps."""
    rays: int = 512
    """Rays a step."""
    longest_side: int = 128
    """Longer side of the images that the NeRF sees, in pixels."""
    seed: int = 0
    """Of the draw of faults."""
    work: Path = Path("outputs/draw_renders")
    """Where captures and renders go."""
    output_dir: Path = Path("data/results")
    """Where the picture goes."""
    processes: int = 2
    """Trainings at a time, each on one core."""


def run(settings: Renders) -> None:
    """Render the scene, train, and draw."""
    scene, foreign = (_without_masks(settings, seed) for seed in (settings.scene, settings.scene + 1))
    case = make_case(scene, foreign, MIXED, 0.2, settings.seed, settings.work)
    ways = methods(None)
    sizes = {"steps": settings.steps, "rays": settings.rays, "longest_side": settings.longest_side}
    with TemporaryDirectory(prefix="mtcm_renders_") as folder:

        def train(way: str) -> dict[str, float]:
            plan = ways[way](case)
            options = {**plan.options, **sizes, "seed": settings.seed}
            return trained(plan.capture, plan.decisions, options, Path(folder) / way)["of_images"]

        with ThreadPoolExecutor(settings.processes) as pool:
            of_images = {str(way): psnr for way, psnr in zip(_COLUMNS, pool.map(train, _COLUMNS), strict=True)}
        figure = draw({way: Path(folder) / way for way in _COLUMNS}, of_images)
    picture = save_figure(figure, settings.work / "nerf_renders.png")
    read_rgb(picture).save(settings.output_dir / "nerf_renders.jpg", quality=88)
    means = {way: round(float(np.mean(list(psnr.values()))), 2) for way, psnr in of_images.items()}
    record = {"command": command("draw_renders.py", sys.argv[1:]), "versions": versions(), "psnr": means}
    write_text_atomically(settings.output_dir / "nerf_renders.json", json.dumps(record, indent=1) + "\n")
    print(json.dumps(means, indent=1))


def _without_masks(settings: Renders, seed: int) -> Capture:
    """Render a scene and read it, to be trained on all over: what masks hide from training, evaluation shows."""
    capture = read_capture(render_scene(seed, settings.work / f"scene_{seed}", settings.frames))
    return replace(capture, frames=tuple(replace(frame, mask_path=None) for frame in capture.frames))


def draw(renders: dict[str, Path], of_images: dict[str, dict[str, float]]) -> Figure:
    """Draw the views that differ most, a row each: the photo, then what every way made of it, with its PSNR."""
    names = list(next(iter(of_images.values())))
    worth = [of_images[REPAIR][name] - of_images[ALL][name] for name in names]
    shown = sorted(np.argsort(worth)[::-1][:_VIEWS].tolist())
    figure = new_figure(2.3 * (1 + len(renders)), 1.85 * len(shown) + 0.3)
    for row, view in zip(figure.subplots(len(shown), 1 + len(renders), squeeze=False), shown, strict=True):
        for axes, way in zip(row, (None, *renders), strict=True):
            photo, made = _halves(renders[way or CLEAN] / f"eval_img_{view:04d}.png")
            axes.imshow(photo if way is None else made)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            said = "" if way is None else f"{of_images[way][names[view]]:.1f} dB"
            axes.set_xlabel(said, fontsize=8, color=INK)
            if view == shown[0]:
                axes.set_title("photo" if way is None else way, fontsize=8, color=INK)
    return figure


def _halves(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return photo and render, which nerfstudio writes side by side."""
    with Image.open(path) as image:
        both = np.asarray(image.convert("RGB"))
    middle = both.shape[1] // 2
    return both[:, :middle], both[:, middle:]


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(Renders, description=__doc__))
