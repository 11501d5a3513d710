"""Reading back what the filter wrote, for programs that sample views or condition on them.

from mtcm_nerfstudio.views.load import load_views
views = load_views(Path("CAPTURE/mtcm"))
views.pose_embeddings[views.kept]      # K × 256, one row for each kept frame
views.suggested_poses                  # M × 4 × 4, camera-to-world in the capture's own world
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mtcm_nerfstudio.decisions import FILE_NAME, Decisions, read
from mtcm_nerfstudio.views.write import EMBEDDINGS, KEPT_POSES, SUGGESTED


@dataclass(frozen=True, eq=False)
class LoadedViews:
    """Decisions with the arrays that belong to them; row i is entry i of ``decisions.frames``."""

    decisions: Decisions
    kept: Bool[np.ndarray, " n"]
    pose_embeddings: Float[np.ndarray, "n 256"]
    """The transformer's state of each frame; NaN where it could not be read."""
    kept_poses: Float[np.ndarray, "k 4 4"]
    """Camera-to-world of the kept frames; NaN where one has none."""
    suggested_poses: Float[np.ndarray, "m 4 4"]


def load_views(folder: Path) -> LoadedViews:
    """Read a folder that ``ns-mtcm-filter`` wrote.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the files do not belong together.
    """
    decisions = read(folder / FILE_NAME)
    arrays = {}
    rows = {EMBEDDINGS: decisions.frames, KEPT_POSES: decisions.kept, SUGGESTED: decisions.suggested}
    for name, belonging in rows.items():
        try:
            arrays[name] = np.load(folder / name, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{folder / name}: is damaged; run ns-mtcm-filter again") from error
        if len(arrays[name]) != len(belonging):
            raise ValueError(
                f"{folder / name}: has {len(arrays[name])} rows, the decisions have {len(belonging)}; filter again"
            )
    kept = np.array([frame.kept for frame in decisions.frames], dtype=bool)
    return LoadedViews(decisions, kept, arrays[EMBEDDINGS], arrays[KEPT_POSES], arrays[SUGGESTED])
