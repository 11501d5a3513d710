"""Are missing views found? Blocks are taken away, and as many views are asked for."""

from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.detection.tables import markdown
from benchmarks.nerf.cells import checkpoint_of
from benchmarks.views.benchmark import Benchmark, Measured, usable
from benchmarks.views.holes import hide, random_on_sphere, share_found
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.consistency.checkpoint import load_checkpoint
from mtcm_nerfstudio.consistency.infill_poses import infill_poses
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.tokenise import tokens_of
from mtcm_nerfstudio.views.suggestion.candidate_poses import Views
from mtcm_nerfstudio.views.suggestion.suggest_views import suggest


@dataclass(frozen=True)
class Hole:
    """How well one hole was found."""

    capture: str
    kind: str
    seed: int
    missing: int
    mtcm: float
    random: float


def measure_holes(benchmark: Benchmark) -> Measured:
    """Take blocks of views away, ask for as many suggestions, and see which of the missing views they find."""
    found = []
    for name in benchmark.captures:
        capture = usable(read_capture(benchmark.folder / name))
        model, card = load_checkpoint(checkpoint_of(benchmark.checkpoint, name))
        raw = tokens_of(capture, card.embedder, Cache(), progress=False).raw
        c2w = raw.c2w.astype(np.float64)
        spread = Views.of(c2w).spread
        for kind in ("place", "time"):
            for seed in range(benchmark.seeds):
                hidden = hide(c2w, kind, benchmark.share, seed)
                count = int(hidden.sum())
                infilled = infill_poses(model, raw.subset(~hidden), card.window)
                ours = suggest(c2w[~hidden], count, infilled)
                poses = np.array([one.c2w for one in ours]).reshape(-1, 4, 4)
                anywhere = random_on_sphere(Views.of(c2w[~hidden]), count, seed)
                shares = (share_found(c2w[hidden], some, spread) for some in (poses, anywhere))
                found.append(Hole(name, kind, seed, count, *shares))
    rows = [["capture", "views taken away", "MTCM", "random on the sphere"]]
    for name in (*benchmark.captures, "all"):
        for kind in ("place", "time"):
            some = [one for one in found if one.kind == kind and name in (one.capture, "all")]
            means = (float(np.mean([getattr(one, key) for one in some])) for key in ("mtcm", "random"))
            rows.append([name, "nearest to one" if kind == "place" else "a run in time", *(f"{m:.2f}" for m in means)])
    explained = (
        f"{benchmark.share:.0%} of the views are taken away and as many are suggested; share of the missing ones with "
        f"a suggestion within 15° and a quarter of the cameras' spread, mean over {benchmark.seeds} draws."
    )
    return [markdown("Missing views found", explained, rows)], [asdict(one) for one in found]
