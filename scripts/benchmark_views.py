"""Are the right views chosen, and the missing ones found? Budgets, holes, and a hundred thousand frames.

Usage:
    python scripts/benchmark_views.py holes                    where a block of views was taken away (seconds)
    python scripts/benchmark_views.py budgets                  PSNR with 10, 20 and 40 views (hours; resumable)
    python scripts/benchmark_views.py filling                  PSNR on missing views, with those nearest to suggestions
    python scripts/benchmark_views.py labels                   words against the geometry of rendered captures (seconds)
    python scripts/benchmark_views.py many                     500 of 100,000 frames: seconds and memory
    python scripts/benchmark_views.py budgets --captures fox --seeds 1

Tables and what they were made from go to data/results/views_<what>.md and .json. Finished trainings are kept in
data/results/nerf_cells.json, as for scripts/benchmark_nerf.py.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from choosing.holes import Hole, hide, random_on_sphere, share_found
from choosing.rivals import choosers
from choosing.words import expected_label
from decibels.cases import Case, make_case
from decibels.cells import FILE_NAME, Cells, checkpoint_of, trained
from detection.record import command, versions
from detection.tables import markdown
from make_sample_capture import FRAMES
from make_sample_capture import SEED as SAMPLE_SEED
from scenes.gallery import CENTRE, gallery_path
from scenes.paths import hand_held
from scipy.spatial.transform import Rotation

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.consistency.checkpoint import load_checkpoint
from mtcm_nerfstudio.decisions import Decisions, FrameDecision, write_text_atomically
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.tokenise import tokens_of
from mtcm_nerfstudio.verdicts.imagine import imagined_poses
from mtcm_nerfstudio.views.select import best_of_duplicates, select, view_points
from mtcm_nerfstudio.views.standing.labels import labels
from mtcm_nerfstudio.views.suggesting.candidates import Views
from mtcm_nerfstudio.views.suggesting.suggest import suggest

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "captures"
_VERSION = "1"
_EVERY = 5
"""Of every so many frames, one is for evaluation where budgets are compared."""
_PATHS_ABOUT_A_SUBJECT = ("orbit", "arc", "two_loops", "spiral", "sweep", "scattered")
_CLEAR_DEGREES = 2.0
"""Nearer to a limit, what is right is a matter of how well the vertical and the subject can be known."""


@dataclass(frozen=True)
class Benchmark:
    """Measure how views are chosen and missing ones found."""

    what: tyro.conf.Positional[Literal["holes", "budgets", "filling", "labels", "many"]]
    """What to measure."""
    folder: Path = _SHARED
    """Where the captures are."""
    captures: tuple[str, ...] = ("fox", "stitch", "skull")
    """Captures to measure on."""
    seeds: int = 3
    """Draws for each capture."""
    budgets: tuple[int, ...] = (10, 20, 40)
    """Numbers of views."""
    ways: tuple[str, ...] = ()
    """Ways of choosing views to try. Default: all."""
    share: float = 0.2
    """Of the views that is taken away, in (0, 1)."""
    checkpoint: str | None = None
    """MTCM's transformer, {capture} in its path standing for the capture's name. Default: the shipped one; so it is
    for captures for which there is no such file."""
    steps: int = 400
    """Training steps."""
    longest_side: int = 128
    """Longer side of the images that the NeRF sees, in pixels."""
    rays: int = 512
    """Rays a step."""
    work: Path = Path("outputs/benchmark_views")
    """Where copies of the captures go."""
    output_dir: Path = Path("data/results")
    """Where tables go."""
    processes: int = 2
    """Trainings at a time, each on one core."""

    @property
    def sizes(self) -> dict[str, int]:
        """The settings that a training depends on."""
        return {"steps": self.steps, "longest_side": self.longest_side, "rays": self.rays}


def run(benchmark: Benchmark) -> None:
    """Measure, print and write."""
    tables, rows = _MEASURES[benchmark.what](benchmark)
    head = f"# Views: {benchmark.what}\n\nMade by `{command('benchmark_views.py', sys.argv[1:])}`.\n"
    text = "\n".join([head, *tables])
    print(text)
    about = {
        "command": command("benchmark_views.py", sys.argv[1:]),
        "versions": versions(),
        "settings": {k: v for k, v in asdict(benchmark).items() if k not in ("folder", "work", "output_dir")},
        "rows": rows,
    }
    stem = benchmark.output_dir / f"views_{benchmark.what}"
    write_text_atomically(stem.with_suffix(".md"), text)
    write_text_atomically(stem.with_suffix(".json"), json.dumps(about, indent=1) + "\n")


def measure_holes(benchmark: Benchmark) -> tuple[list[str], list[dict[str, Any]]]:
    """Take blocks of views away, ask for as many suggestions, and see which of the missing views they find."""
    found = []
    for name in benchmark.captures:
        capture = _usable(read_capture(benchmark.folder / name))
        model, card = load_checkpoint(checkpoint_of(benchmark.checkpoint, name))
        raw = tokens_of(capture, card.embedder, Cache(), progress=False).raw
        c2w = raw.c2w.astype(np.float64)
        spread = Views.of(c2w).spread
        for kind in ("place", "time"):
            for seed in range(benchmark.seeds):
                hidden = hide(c2w, kind, benchmark.share, seed)
                count = int(hidden.sum())
                imagined = imagined_poses(model, raw.subset(~hidden), card.window)
                ours = suggest(c2w[~hidden], count, imagined)
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


def measure_budgets(benchmark: Benchmark) -> tuple[list[str], list[dict[str, Any]]]:
    """Train on as many views as a budget allows, chosen in different ways."""
    jobs = []
    for name in benchmark.captures:
        capture = _usable(read_capture(benchmark.folder / name))
        known = choosers(checkpoint_of(benchmark.checkpoint, name))
        if not set(benchmark.ways) <= set(known):
            raise ValueError(f"--ways must be among {', '.join(known)}, got {', '.join(benchmark.ways)}")
        ways = {way: known[way] for way in benchmark.ways or known}
        for seed in range(benchmark.seeds):
            held = _one_of_every(_EVERY, len(capture), seed)
            case = _held_out(make_case(capture, capture, ("pose_1",), 0.0, seed, benchmark.work), held)
            train = np.setdiff1d(np.arange(len(capture)), held)
            for budget in benchmark.budgets:
                for way, choose in ways.items():
                    if budget < len(train):
                        jobs.append((case, way, budget, choose(capture, train, budget, seed)))
    results = _train_all(benchmark, [(case, [case.file_paths[i] for i in chosen]) for case, _, _, chosen in jobs])
    rows = [
        {"capture": case.name, "seed": case.seed, "way": way, "budget": budget, "psnr": result["psnr"],
         "ssim": result["ssim"], "chosen": sorted(case.file_paths[i] for i in chosen)}
        for (case, way, budget, chosen), result in zip(jobs, results, strict=True)
    ]  # fmt: skip
    ways = list(dict.fromkeys(row["way"] for row in rows))
    tables = []
    for budget in benchmark.budgets:
        table: list[list[Any]] = [["views chosen by", "PSNR", *benchmark.captures]]
        for way in ways:
            own = [row for row in rows if row["way"] == way and row["budget"] == budget]
            of = [_mean([row["psnr"] for row in own if row["capture"] == name]) for name in benchmark.captures]
            table.append([way, _mean([row["psnr"] for row in own]), *of])
        said = (
            f"Mean over {benchmark.seeds} draws a capture. Evaluation frames, never trained on, are one of every "
            f"{_EVERY} by chance, others in each draw: were they evenly spaced, an even stride would stand beside them "
            "all, or half-way between."
        )
        tables.append(markdown(f"{budget} views", said, [[_cell(one) for one in row] for row in table]))
    return tables, rows


def measure_filling(benchmark: Benchmark) -> tuple[list[str], list[dict[str, Any]]]:
    """Take a block away, suggest views, add the real frames nearest to the suggestions, and look at the missing ones.

    Every other missing view is for evaluation; the others, and every third frame elsewhere, can be added.
    """
    jobs = []
    for name in benchmark.captures:
        capture = _usable(read_capture(benchmark.folder / name))
        c2w = np.stack([frame.c2w for frame in capture.frames if frame.c2w is not None])
        for seed in range(benchmark.seeds):
            hidden = np.flatnonzero(hide(c2w, "place", benchmark.share, seed))
            elsewhere = np.setdiff1d(np.arange(len(c2w)), hidden)
            pool = np.concatenate([hidden[1::2], elsewhere[::3]])
            base = np.setdiff1d(elsewhere, elsewhere[::3])
            ours = _nearest_frames(c2w, base, pool, len(hidden))
            others = np.random.default_rng([7, seed]).choice(pool, len(ours), replace=False)
            case = _held_out(make_case(capture, capture, ("pose_1",), 0.0, seed, benchmark.work), hidden[::2])
            jobs += [(case, "base alone", base), (case, "nearest to suggestions", np.union1d(base, ours))]
            jobs.append((case, "as many at random", np.union1d(base, others)))
    results = _train_all(benchmark, [(case, [case.file_paths[i] for i in some]) for case, _, some in jobs])
    rows = [
        {"capture": case.name, "seed": case.seed, "way": way, "psnr": result["psnr"], "frames": len(some)}
        for (case, way, some), result in zip(jobs, results, strict=True)
    ]
    table: list[list[Any]] = [["trained on", "PSNR on the missing views", *benchmark.captures]]
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        of = [_mean([row["psnr"] for row in own if row["capture"] == name]) for name in benchmark.captures]
        table.append([way, _mean([row["psnr"] for row in own]), *of])
    said = measure_filling.__doc__ or ""
    return [markdown("Holes filled", " ".join(said.split()), [[_cell(one) for one in row] for row in table])], rows


def measure_many(benchmark: Benchmark) -> tuple[list[str], list[dict[str, Any]]]:
    """Choose 500 of 100,000 frames, their states given."""
    count, most = 100_000, 500
    rng = np.random.default_rng(0)
    turn = np.linspace(0.0, 40.0 * np.pi, count)
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, 3] = 3.0 * np.stack([np.cos(turn), np.sin(turn), np.sin(turn / 7.0)], axis=1)
    c2w[:, :3, 3] += 0.05 * rng.normal(size=(count, 3))
    states = rng.normal(size=(count, 256)).astype(np.float32)
    quality = rng.uniform(0.5, 1.0, count)
    start = time.perf_counter()
    leader = best_of_duplicates(c2w, states, quality, np.ones(count, dtype=bool))
    chosen = select(view_points(c2w, states), quality, most=most).chosen
    seconds = time.perf_counter() - start
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = {"frames": count, "chosen": len(chosen), "seconds": round(seconds, 1), "GiB": round(gigabytes, 2),
           "duplicates": int((leader != np.arange(count)).sum())}  # fmt: skip
    table = [list(row), [str(value) for value in row.values()]]
    said = "Duplicates folded and views chosen; memory of the whole process."
    return [markdown("A long capture", said, table)], [row]


def measure_labels(benchmark: Benchmark) -> tuple[list[str], list[dict[str, Any]]]:
    """Compare the words of hand-held cameras about a rendered subject with what its geometry says."""
    rows = []
    for path in ("gallery", *_PATHS_ABOUT_A_SUBJECT):
        for seed in range(SAMPLE_SEED, SAMPLE_SEED + benchmark.seeds):
            rng = np.random.default_rng([seed, 20])
            c2w = gallery_path(seed, FRAMES) if path == "gallery" else hand_held(path, rng, FRAMES, CENTRE)
            usual = float(np.median(np.linalg.norm(c2w[:, :3, 3] - CENTRE, axis=1)))
            true = [expected_label(pose, CENTRE, c2w[0, :3, 3], usual) for pose in c2w]
            turned = Rotation.random(None, np.random.default_rng(seed)).as_matrix()
            for world, poses in (("upright", c2w), ("turned", _in_another_world(c2w, turned))):
                rows += [
                    {"world": world, "path": path, "seed": seed, "frame": i, "said": said, "true": words,
                     "degrees_from_a_limit": sure}
                    for i, (said, (words, sure)) in enumerate(zip(labels(poses, front=0), true, strict=True))
                ]  # fmt: skip
    table = [["path", "world", "frames", "right", "right, 2° and more from a limit"]]
    for path in (*dict.fromkeys(row["path"] for row in rows), "all"):
        for world in ("upright", "turned"):
            own = [row for row in rows if row["world"] == world and path in (row["path"], "all")]
            clear = [row for row in own if row["degrees_from_a_limit"] >= _CLEAR_DEGREES]
            shares = (_mean([row["said"] == row["true"] for row in some]) for some in (own, clear))
            table.append([path, world, str(len(own)), *(f"{share:.1%}" for share in shares)])
    said = (
        "Whole labels, word for word. The subject and the vertical of the rendered scene are known; the labels find "
        "them from the cameras, which are held as hands hold them (roll 2°, aim 2°). An upright world has a vertical "
        "axis, as ARKit's and Blender's; a turned one lies anyhow, as COLMAP's. gallery: the path of the sample."
    )
    return [markdown("Labels", said, table)], rows


_MEASURES = {
    "holes": measure_holes,
    "budgets": measure_budgets,
    "filling": measure_filling,
    "labels": measure_labels,
    "many": measure_many,
}


def _train_all(benchmark: Benchmark, jobs: Sequence[tuple[Case, Sequence[str]]]) -> list[dict[str, Any]]:
    """Train a NeRF for every job, those that are known already excepted."""
    cells = Cells(benchmark.output_dir / FILE_NAME)

    def result(job: tuple[Case, Sequence[str]]) -> dict[str, Any]:
        case, names = job
        made_of = ["views", _VERSION, case.name, case.seed, sorted(names), sorted(case.evaluation), benchmark.sizes]
        key = sha256(json.dumps(made_of).encode()).hexdigest()[:24]
        known = cells.get(key)
        if known is None:
            print(f"{case.name}, seed {case.seed}: {len(names)} frames", flush=True)
            known = trained(case.clean, _keeping(case, set(names)), {**benchmark.sizes, "seed": case.seed})
            cells.put(key, known)
        return known

    with ThreadPoolExecutor(benchmark.processes) as pool:
        return list(pool.map(result, jobs))


def _keeping(case: Case, names: set[str]) -> Decisions:
    frames = tuple(
        FrameDecision(name, inconsistency=0.0, kept=name in names, decided_by="rule",
                      reason=None if name in names else "redundant")
        for name in case.file_paths
    )  # fmt: skip
    return Decisions("", {}, "none", "none", 0.5, frames)


def _in_another_world(c2w: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    out = c2w.copy()
    out[:, :3] = rotation @ c2w[:, :3]
    return out


def _one_of_every(count: int, frames: int, seed: int) -> np.ndarray:
    """Return one frame by chance out of each so many that follow each other."""
    starts = np.arange(0, frames, count)
    within = np.random.default_rng([8, seed]).integers(0, np.minimum(count, frames - starts))
    return starts + within


def _held_out(case: Case, frames: np.ndarray) -> Case:
    """Return a case that is evaluated on other frames, in a folder of its own."""
    evaluation = frozenset(case.file_paths[i] for i in frames)
    folder = case.clean.with_name(f"clean_{sha256(repr(sorted(evaluation)).encode()).hexdigest()[:8]}")
    folder.mkdir(exist_ok=True)
    meta = json.loads((case.clean / "transforms.json").read_text(encoding="utf-8"))
    meta["train_filenames"] = [name for name in case.file_paths if name not in evaluation]
    meta["val_filenames"] = meta["test_filenames"] = sorted(evaluation)
    for entry in case.clean.iterdir():
        if entry.name not in ("transforms.json", "mtcm") and not (folder / entry.name).exists():
            (folder / entry.name).symlink_to(entry.absolute())
    (folder / "transforms.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    return replace(case, clean=folder, evaluation=evaluation)


def _nearest_frames(c2w: np.ndarray, base: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
    """Return the frames of the pool that are nearest to the suggestions, each taken once."""
    views = Views.of(c2w[base])
    points = views.coordinates(c2w[pool])
    left = np.ones(len(pool), dtype=bool)
    chosen = []
    for one in suggest(c2w[base], count):
        apart = np.linalg.norm(points - views.coordinates(one.c2w[None]), axis=1)
        nearest = int(np.where(left, apart, np.inf).argmin())
        if left[nearest]:
            chosen.append(pool[nearest])
            left[nearest] = False
    return np.array(chosen)


def _usable(capture: Capture) -> Capture:
    return replace(capture, frames=tuple(f for f in capture.frames if f.has_usable_pose and f.image_path.is_file()))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    with clear_errors():
        run(tyro.cli(Benchmark, description=__doc__))
