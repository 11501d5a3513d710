"""How does the time of filtering grow with the number of frames? The frames of all captures, one after the other.

Frames of the captures in --captures are resized to one size and lined up, each capture's poses beside those of the one
before, until there are as many as wanted (turned upside down the second time round). ``ns-mtcm-filter`` runs on them as
a process of its own with an empty cache. The table goes to data/results/long.md and long.json.

Usage:
    python scripts/benchmark_long.py
    python scripts/benchmark_long.py --sizes 300 960 1000 640
"""

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from benchmark_speed import filter_seconds
from benchmarks.capture_list import read_capture_list
from benchmarks.detection import tables
from benchmarks.detection.record import command, versions
from PIL import Image, ImageOps

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decisions import write_text_atomically

_BESIDE = 50.0
"""Distance between the poses of one capture and the next, in the worlds' units."""


@dataclass(frozen=True)
class Benchmark:
    """Time the filter on long captures."""

    captures: Path = Path("../shared/captures")
    """Folder with the captures of data/captures.json."""
    sizes: tuple[tuple[int, int], ...] = ((300, 960), (1000, 640))
    """Numbers of frames, each with the longer side of the images in pixels."""
    output_dir: Path = Path("data/results")
    """Where long.md and long.json go."""


def run(benchmark: Benchmark) -> None:
    """Measure and write the files."""
    load, rows = os.getloadavg()[0], []
    for frames, longer_side in benchmark.sizes:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            write_capture(benchmark.captures, work / "long", frames, longer_side)
            arguments = ["--data", str(work / "long"), "--output-dir", str(work / "out")]
            seconds = filter_seconds(arguments, work / "cache")
        rows.append({"frames": frames, "longer_side": longer_side, "seconds": round(seconds, 1)})
        print(f"{frames} frames of {longer_side} px: {seconds:.1f} s", flush=True)
    about = {
        "command": command("benchmark_long.py", sys.argv[1:]),
        "versions": versions(),
        "cores": len(os.sched_getaffinity(0)),
        "load_of_others": round(load, 2),
    }
    table = [["frames", "longer side", "seconds", "milliseconds a frame"]]
    for row in rows:
        each = 1000.0 * row["seconds"] / row["frames"]
        table.append([str(row["frames"]), f"{row['longer_side']} px", f"{row['seconds']:.1f}", f"{each:.0f}"])
    text = f"Made by `{about['command']}` on {about['cores']} cores. Whole processes with an empty cache."
    write_text_atomically(benchmark.output_dir / "long.md", tables.markdown("Long captures", text, table))
    record = {"schema_version": 1, **about, "rows": rows}
    write_text_atomically(benchmark.output_dir / "long.json", json.dumps(record, indent=1) + "\n")


def write_capture(captures: Path, folder: Path, count: int, longer_side: int) -> None:
    """Line up frames of all captures as one."""
    (folder / "images").mkdir(parents=True)
    entries = []
    for number, (frame, c2w, turned) in enumerate(itertools.islice(frames_of_all(captures), count)):
        name = f"images/frame_{number:05d}.jpg"
        with Image.open(frame.image_path) as image:
            resized = ImageOps.contain(image.convert("RGB"), (longer_side, longer_side), Image.Resampling.BICUBIC)
        (resized.rotate(180) if turned else resized).save(folder / name, quality=92)
        focal = (frame.intrinsics.focal_over_diagonal if frame.intrinsics else 0.8) * float(np.hypot(*resized.size))
        size = {"w": resized.width, "h": resized.height, "cx": resized.width / 2, "cy": resized.height / 2}
        entries.append({"file_path": name, "transform_matrix": c2w.tolist(), "fl_x": focal, "fl_y": focal, **size})
    (folder / "transforms.json").write_text(json.dumps({"camera_model": "PINHOLE", "frames": entries}))


def frames_of_all(captures: Path) -> Iterator[tuple[Frame, np.ndarray, bool]]:
    """Yield the posed frames of all captures round and round, with poses beside each other, and whether turned."""
    found = [read_capture(captures / name) for name in read_capture_list() if (captures / name).is_dir()]
    if not found:
        raise FileNotFoundError(f"{captures}: holds none of the captures. Name their folder with --captures.")
    for place, (turned, capture) in enumerate(itertools.product((False, True), found)):
        for frame in capture.frames:
            if frame.c2w is not None and np.isfinite(frame.c2w).all():
                c2w = frame.c2w.copy()
                c2w[0, 3] += _BESIDE * place
                yield frame, c2w @ np.diag([-1.0, -1.0, 1.0, 1.0]) if turned else c2w, turned


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(Benchmark, description=__doc__))
