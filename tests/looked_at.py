"""A capture on disk with decisions of every kind, to be looked at."""

from pathlib import Path

import numpy as np
from deciding import decide
from tiny_capture import names, orbit, write_transforms

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.decision_files import FilterResult

COUNT = 24
FILES = [f"images/{name}" for name in names(COUNT)]
DROPPED = {FILES[3]: "blur", FILES[9]: "foreign"}
REPAIRED = 15


def looked_at(root: Path, count: int = COUNT) -> FilterResult:
    """Write the capture: two frames dropped, one repaired, two views suggested."""
    c2w = orbit(count)
    write_transforms(root, c2w)
    moved = c2w[REPAIRED].copy()
    moved[:3, 3] += 0.4
    folder = root / "mtcm"
    folder.mkdir()
    capture = read_capture(root)
    files = [frame.file_path for frame in capture.frames]
    path = decide(folder / decisions_file.FILE_NAME, files, DROPPED, {files[REPAIRED]: moved}, c2w[[0, 5]] + 0.01)
    return FilterResult(decisions_file.read(path), capture, folder, reused=True, warnings=())


def on_disk(result: FilterResult, index: int) -> tuple[bool, str]:
    """Whether a frame is kept, and by whom, as the file says."""
    frame = decisions_file.read(result.output_dir / decisions_file.FILE_NAME).frames[index]
    return frame.kept, frame.decided_by


def camera_at(position: np.ndarray) -> np.ndarray:
    """A camera that looks along −z."""
    pose = np.eye(4)
    pose[:3, 3] = position
    return pose
