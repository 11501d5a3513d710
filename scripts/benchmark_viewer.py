"""How does the viewer do with many frames? Time to the first picture and updates a second, in a real browser.

Usage:
    python scripts/benchmark_viewer.py                  5,000 frames in headless Chromium (needs playwright)
    python scripts/benchmark_viewer.py --frames 500

The frames stand around a subject in rings and share a few images. WebGL runs in software where there is no GPU. The
table goes to data/results/viewer.md and .json.
"""

import io
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from benchmarks.detection.record import command, versions
from benchmarks.detection.tables import markdown
from PIL import Image

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decision_files import FilterResult
from mtcm_nerfstudio.decisions import Decisions, FrameDecision, write_text_atomically
from mtcm_nerfstudio.viewer.scene_nodes import DisplaySettings, SceneNodes
from mtcm_nerfstudio.viewer.serve import serve_viewer
from mtcm_nerfstudio.viewer.session import State

_FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
_RING = 250
_WIDTH, _HEIGHT = 1500, 900
_GREEN_OVER_RED = 40
"""By so much are kept frames' pixels greener than red; the empty scene is grey."""


@dataclass(frozen=True)
class ViewerBenchmark:
    """Time the viewer."""

    frames: int = 5000
    """Frames of the capture."""
    seconds: float = 5.0
    """How long the threshold is dragged."""
    port: int = 7820
    """Port to serve on."""
    output_dir: Path = Path("data/results")
    """Where the table goes."""


@dataclass(frozen=True)
class Found:
    """What was measured."""

    frames: int
    seconds_to_rows: float
    seconds_to_cameras: float
    page_updates_per_second: float
    scene_updates_per_second: float


def run(benchmark: ViewerBenchmark) -> None:
    """Build a capture, open it, drag the threshold."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise FileNotFoundError("there is no Chromium on this machine: install it to measure the viewer")
    with tempfile.TemporaryDirectory(prefix="mtcm_viewer_") as folder:
        result = _rings(Path(folder), benchmark.frames)
        found = _measured(benchmark, result, chromium)
    rows = [
        ["frames", "rows shown", "first camera drawn", "counts changed in the page", "scenes sent"],
        [
            f"{found.frames:,}",
            f"{found.seconds_to_rows:.1f} s",
            f"{found.seconds_to_cameras:.1f} s",
            f"{found.page_updates_per_second:.0f} a second",
            f"{found.scene_updates_per_second:.0f} a second",
        ],
    ]
    ran = command("benchmark_viewer.py", sys.argv[1:])
    about = f"From opening the page; then while the threshold is dragged. Headless Chromium, WebGL on the CPU. `{ran}`"
    text = markdown("The viewer with many frames", about, rows)
    print(text)
    write_text_atomically(benchmark.output_dir / "viewer.md", text)
    record = {"command": ran, "versions": versions(), **asdict(found)}
    write_text_atomically(benchmark.output_dir / "viewer.json", json.dumps(record, indent=1) + "\n")


def _measured(benchmark: ViewerBenchmark, result: FilterResult, chromium: str) -> Found:
    from playwright.sync_api import sync_playwright

    draws = _counted()
    with serve_viewer(result, port=benchmark.port) as viewer, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=_FLAGS)
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        start = time.perf_counter()
        page.goto(viewer.page)
        page.wait_for_selector("tr[data-frame]")
        rows = time.perf_counter() - start
        while not _shows_cameras(page):
            if time.perf_counter() - start > 120:
                raise ValueError("no camera was drawn within two minutes")
        cameras = time.perf_counter() - start
        page.wait_for_timeout(3000)
        drawn = draws[0]
        updates = page.evaluate(_DRAG, benchmark.seconds)
        found = Found(
            benchmark.frames,
            rows,
            cameras,
            updates / benchmark.seconds,
            (draws[0] - drawn) / benchmark.seconds,
        )
        browser.close()
    return found


_DRAG = """async (seconds) => {
  const slider = document.getElementById("threshold");
  const counts = document.getElementById("counts");
  let [updates, said] = [0, counts.textContent];
  new MutationObserver(() => {
    if (counts.textContent !== said) updates++;
    said = counts.textContent;
  }).observe(counts, { childList: true });
  const end = performance.now() + 1000 * seconds;
  for (let i = 0; performance.now() < end; i++) {
    slider.value = 0.05 + 0.9 * Math.abs(((i / 50) % 2) - 1);
    slider.dispatchEvent(new Event("input"));
    await new Promise((done) => setTimeout(done, 20));
  }
  return updates;
}"""


def _counted() -> list[int]:
    """Count how often the scene is brought in step."""
    count, draw = [0], SceneNodes.draw

    def counting(self: SceneNodes, state: State, look: DisplaySettings) -> None:
        draw(self, state, look)
        count[0] += 1

    SceneNodes.draw = counting
    return count


def _shows_cameras(page: Any) -> bool:
    shot = np.array(Image.open(io.BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": 500, "height": _HEIGHT}))))
    return bool((shot[..., 1].astype(int) - shot[..., 0] > _GREEN_OVER_RED).sum() > 50)


def _rings(root: Path, count: int) -> FilterResult:
    """Write a capture of cameras that stand in rings, its first images over and over, and decisions about it."""
    (root / "images").mkdir()
    for i in range(8):
        colour = tuple(np.random.default_rng(i).integers(40, 220, 3).tolist())
        Image.new("RGB", (640, 480), colour).save(root / "images" / f"{i}.jpg")
    frames = []
    for i in range(count):
        name = f"images/{i:05d}.jpg"
        (root / name).symlink_to(root / "images" / f"{i % 8}.jpg")
        frames.append({"file_path": name, "transform_matrix": _pose(i, count).tolist()})
    intrinsics = {"w": 640, "h": 480, "fl_x": 600.0, "fl_y": 600.0, "cx": 320.0, "cy": 240.0}
    (root / "transforms.json").write_text(json.dumps({"camera_model": "PINHOLE", **intrinsics, "frames": frames}))
    scores = np.random.default_rng(0).beta(0.3, 1.5, count)
    decided = tuple(
        FrameDecision(frame["file_path"], float(score), bool(score < 0.5), None if score < 0.5 else "pose")
        for frame, score in zip(frames, scores, strict=True)
    )
    decisions = Decisions("digest", {}, "none", "none", 0.5, decided)
    decisions_file.write(decisions, root / "mtcm" / decisions_file.FILE_NAME)
    return FilterResult(decisions, read_capture(root), root / "mtcm", reused=True, warnings=())


def _pose(i: int, count: int) -> np.ndarray:
    angle, height = 2.0 * np.pi * i / _RING, 2.0 * (i // _RING) * _RING / count - 1.0
    position = np.array([3.0 * np.cos(angle), 3.0 * np.sin(angle), height])
    back = position / np.linalg.norm(position)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return c2w


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(ViewerBenchmark, description=__doc__))
