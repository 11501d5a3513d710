"""How many different views a set of cameras has: the same numbers before filtering, after it, and with suggestions.

Where the cameras look at one point, places are directions from it on the view sphere; elsewhere they are the
directions in which the cameras look.

- coverage: share of 192 cells of equal area, of those between the lowest and the highest elevation of *all* cameras,
  that lie within 15° of a camera.
- azimuth and elevation entropy: of histograms of 24 and 12 equal bins (of azimuth, and of the sine of elevation), over
  the logarithm of the number of bins: 1 where all bins hold as many.
- mean and largest gap: angle in degrees from a camera's direction to the nearest other one; and twice the angle
  from the covered cells to their nearest camera, the largest of them.
- baselines: median distance of a camera to the nearest other one, and the quartiles of all distances, in spreads.
- effective views: exp of the von Neumann entropy of the matrix exp(−d²/2σ²)/n between all views, d being shift in
  spreads and turn in radians and σ 15°: as many equal, wholly different views would have it (Friedman and Dieng, the
  Vendi score, 2023).
- jerk: median size of the third difference of the path over the median step. Small for a path that was walked,
  about 2 to 3 for one that jumps about. Only frames count here.
"""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float

from mtcm_nerfstudio.geometry.poses import far_away
from mtcm_nerfstudio.views.labels.look_at import angle_between
from mtcm_nerfstudio.views.suggestion.candidate_poses import Views, distances

_CELLS = 192
_NEAR = 15.0
_AZIMUTHS, _ELEVATIONS = 24, 12
_SAME = np.radians(15.0)
_MOST = 2000
"""Views of which all distances are taken; of more, so many spread over them."""


@dataclass(frozen=True)
class Diversity:
    """One set of views in numbers; see the module. NaN where there are too few."""

    views: int
    coverage: float = np.nan
    azimuth_entropy: float = np.nan
    elevation_entropy: float = np.nan
    mean_gap_degrees: float = np.nan
    largest_gap_degrees: float = np.nan
    nearest_baseline: float = np.nan
    quartile_baselines: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    effective_views: float = np.nan
    jerk: float = np.nan


NAMES = {
    "views": "views",
    "coverage": "view sphere covered",
    "azimuth_entropy": "azimuth entropy",
    "elevation_entropy": "elevation entropy",
    "mean_gap_degrees": "mean gap, degrees",
    "largest_gap_degrees": "largest gap, degrees",
    "nearest_baseline": "baseline to the nearest, spreads",
    "quartile_baselines": "quartiles of all baselines, spreads",
    "effective_views": "effective number of views",
    "jerk": "jerk of the path, steps",
}


def diversity(
    c2w: Float[np.ndarray, "n 4 4"],
    kept: Bool[np.ndarray, " n"],
    suggested: Float[np.ndarray, "m 4 4"],
    believed: Bool[np.ndarray, " n"],
) -> dict[str, Diversity]:
    """Measure all frames, the kept ones, and these with the suggested views.

    Args:
        c2w: poses in temporal order, NaN where there is none.
        kept: frames that training will use.
        suggested: further poses.
        believed: frames whose pose is believed, kept or not. They alone say where the subject is, how wide the
            cameras spread and between which elevations; the others are counted in *all* where they claim to be.
    """
    posed = np.isfinite(c2w).all(axis=(1, 2))
    some = posed.copy()
    some[posed] = ~far_away(c2w[posed, :3, 3])
    frame = some & believed if (some & believed).sum() >= 2 else some
    if frame.sum() < 2:
        return {}
    about = _ViewSphere(Views.of(c2w[frame]))
    sets = {"all": c2w[some], "kept": c2w[some & kept]}
    if len(suggested):
        sets["kept + suggested"] = np.concatenate([c2w[some & kept], suggested])
    jerks = {"all": _jerk(c2w[some, :3, 3]), "kept": _jerk(c2w[some & kept, :3, 3])}
    return {name: about.measure(poses, jerks.get(name, np.nan)) for name, poses in sets.items()}


class _ViewSphere:
    """The view sphere that all sets are measured on."""

    def __init__(self, views: Views) -> None:
        self.views = views
        subject = views.subject
        self.up = subject.up if subject is not None else np.array([0.0, 0.0, 1.0])
        self.front = subject.front if subject is not None else np.array([1.0, 0.0, 0.0])
        elevation = 90.0 - angle_between(self.directions(views.c2w), self.up[None])
        cells = _even_directions(_CELLS, self.up, self.front)
        of_cells = 90.0 - angle_between(cells, self.up[None])
        self.cells = cells[(of_cells > elevation.min() - _NEAR / 2) & (of_cells < elevation.max() + _NEAR / 2)]

    def directions(self, c2w: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 3"]:
        """Return the unit directions that the views of a set are told apart by."""
        if self.views.subject is None:
            return -c2w[:, :3, 2] / np.linalg.norm(c2w[:, :3, 2], axis=1, keepdims=True)
        away = c2w[:, :3, 3] - self.views.subject.point
        return away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12)

    def measure(self, c2w: Float[np.ndarray, "n 4 4"], jerk: float) -> Diversity:
        if len(c2w) < 2:
            return Diversity(len(c2w))
        towards = self.directions(c2w)
        of_cells = _angles(self.cells, towards).min(axis=1)
        covered = of_cells <= _NEAR
        some = towards[np.linspace(0, len(c2w) - 1, min(len(c2w), _MOST)).astype(int)]
        gaps = _angles(some, some)
        np.fill_diagonal(gaps, 180.0)
        return Diversity(
            views=len(c2w),
            coverage=float(covered.mean()),
            azimuth_entropy=self._azimuth_entropy(towards),
            elevation_entropy=_entropy(np.histogram(towards @ self.up, _ELEVATIONS, (-1.0, 1.0))[0]),
            mean_gap_degrees=float(gaps.min(axis=1).mean()),
            largest_gap_degrees=2.0 * float(of_cells.max()),
            **self._baselines(c2w),
            jerk=jerk,
        )

    def _azimuth_entropy(self, towards: Float[np.ndarray, "n 3"]) -> float:
        side = np.cross(self.up, self.front)
        azimuth = np.arctan2(towards @ side, towards @ self.front)
        return _entropy(np.histogram(azimuth, _AZIMUTHS, (-np.pi, np.pi))[0])

    def _baselines(self, c2w: Float[np.ndarray, "n 4 4"]) -> dict:
        some = c2w[np.linspace(0, len(c2w) - 1, min(len(c2w), _MOST)).astype(int)]
        apart = distances(some[:, :3, 3], some[:, :3, 3]) / self.views.spread
        points = self.views.coordinates(some)
        alike = np.exp(-0.5 * np.square(distances(points, points) / _SAME)) / len(some)
        sizes = np.linalg.eigvalsh(alike)
        sizes = sizes[sizes > 1e-12]
        between = apart[np.triu_indices(len(some), 1)]
        np.fill_diagonal(apart, np.inf)
        low, middle, high = (float(one) for one in np.quantile(between, [0.25, 0.5, 0.75]))
        return {
            "nearest_baseline": float(np.median(apart.min(axis=1))),
            "quartile_baselines": (low, middle, high),
            "effective_views": float(np.exp(-(sizes * np.log(sizes)).sum())),
        }


def table(found: dict[str, Diversity]) -> list[list[str]]:
    """Return a table with a heading, one row a number and one column a set."""
    rows = [["", *found]]
    for key, name in NAMES.items():
        rows.append([name, *(_format_value(asdict(one)[key]) for one in found.values())])
    return rows


def _format_value(value: float | int | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return " / ".join(_format_value(one) for one in value)
    if isinstance(value, int):
        return str(value)
    return "–" if np.isnan(value) else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum() / np.log(len(counts))) + 0.0


def _jerk(position: Float[np.ndarray, "n 3"]) -> float:
    if len(position) < 4:
        return float("nan")
    step = np.median(np.linalg.norm(np.diff(position, axis=0), axis=1))
    return float(np.median(np.linalg.norm(np.diff(position, n=3, axis=0), axis=1)) / step) if step > 0 else 0.0


def _angles(a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "n m"]:
    return np.degrees(np.arccos(np.clip(a @ b.T, -1.0, 1.0)))


def _even_directions(count: int, up: Float[np.ndarray, "3"], front: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n 3"]:
    """Return directions spread evenly over the sphere, along a spiral of the golden angle about ``up``."""
    height = 1.0 - 2.0 * (np.arange(count) + 0.5) / count
    turn = np.pi * (3.0 - np.sqrt(5.0)) * np.arange(count)
    level = np.sqrt(1.0 - height * height)
    side = np.cross(up, front)
    return (level * np.cos(turn))[:, None] * front + (level * np.sin(turn))[:, None] * side + height[:, None] * up
