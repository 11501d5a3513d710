"""Are labels right? Hand-held cameras about rendered subjects, whose geometry is known."""

import numpy as np
from make_sample_capture import FRAMES
from make_sample_capture import SEED as SAMPLE_SEED
from rendering.gallery import CENTRE, gallery_path
from rendering.paths import hand_held
from scipy.spatial.transform import Rotation

from benchmarks.detection.tables import markdown
from benchmarks.views.benchmark import Benchmark, Measured, mean
from benchmarks.views.expected_labels import expected_label
from mtcm_nerfstudio.views.labels.pose_labels import pose_labels

_PATHS_ABOUT_A_SUBJECT = ("orbit", "arc", "two_loops", "spiral", "sweep", "scattered")
_CLEAR_DEGREES = 2.0
"""Nearer to a limit, what is right is a matter of how well the vertical and the subject can be known."""


def measure_labels(benchmark: Benchmark) -> Measured:
    """Compare the words of hand-held cameras about a rendered subject with what its geometry says."""
    rows = []
    for path in ("gallery", *_PATHS_ABOUT_A_SUBJECT):
        for seed in range(SAMPLE_SEED, SAMPLE_SEED + benchmark.seeds):
            rng = np.random.default_rng([seed, 20])
            c2w = gallery_path(seed, FRAMES) if path == "gallery" else hand_held(path, rng, FRAMES, CENTRE)
            usual = float(np.median(np.linalg.norm(c2w[:, :3, 3] - CENTRE, axis=1)))
            true = [expected_label(pose, CENTRE, c2w[0, :3, 3], usual) for pose in c2w]
            turned = Rotation.random(None, np.random.default_rng(seed)).as_matrix()
            for place, poses in (("upright", c2w), ("turned", _turned(c2w, turned))):
                rows += [
                    {"world": place, "path": path, "seed": seed, "frame": i, "said": said, "true": words,
                     "degrees_from_a_limit": sure}
                    for i, (said, (words, sure)) in enumerate(zip(pose_labels(poses, front=0), true, strict=True))
                ]  # fmt: skip
    table = [["path", "world", "frames", "right", "right, 2° and more from a limit"]]
    for path in (*dict.fromkeys(row["path"] for row in rows), "all"):
        for place in ("upright", "turned"):
            own = [row for row in rows if row["world"] == place and path in (row["path"], "all")]
            clear = [row for row in own if row["degrees_from_a_limit"] >= _CLEAR_DEGREES]
            shares = (mean([row["said"] == row["true"] for row in some]) for some in (own, clear))
            table.append([path, place, str(len(own)), *(f"{share:.1%}" for share in shares)])
    said = (
        "Whole labels, word for word. The subject and the vertical of the rendered scene are known; the labels find "
        "them from the cameras, which are held as hands hold them (roll 2°, aim 2°). An upright world has a vertical "
        "axis, as ARKit's and Blender's; a turned one lies anyhow, as COLMAP's. gallery: the path of the sample."
    )
    return [markdown("Labels", said, table)], rows


def _turned(c2w: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    out = c2w.copy()
    out[:, :3] = rotation @ c2w[:, :3]
    return out
