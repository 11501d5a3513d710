"""What is drawn for a capture before its geometry: surroundings, path, exposure, and what happens on the way."""

import itertools
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from rendering.exposure import ExposureSettings
from rendering.sessions import Placement
from rendering.stages import Look, Surroundings

Naming = Literal["padded", "unpadded", "shuffled"]
"""``frame_0007.jpg``; ``IMG_7.jpg``; or names in no order, where only EXIF tells the time."""

_EVERYWHERE = ("orbit", "arc", "two_loops", "spiral", "sweep", "scattered")
COMBINATIONS: tuple[tuple[Surroundings, str], ...] = (
    *itertools.product(("room", "outdoor", "tabletop"), _EVERYWHERE),
    *itertools.product(("plain",), ("orbit", "arc", "two_loops", "spiral")),
    ("street", "walk"),
    ("field", "aerial"),
    ("street", "walk"),
    ("field", "aerial"),
    ("outdoor", "orbit"),
)
"""Surroundings with the dense paths about a subject: 27, visited in steps of 8 so that few scenes already differ."""

JOURNEYS: tuple[tuple[Surroundings, str], ...] = (
    ("open", "sparse_orbit"),
    ("rooms", "one_way"),
    ("road", "one_way"),
    ("room", "sparse_orbit"),
    ("town", "one_way"),
    ("open", "sparse_arc"),
    ("rooms", "round_trip"),
    ("outdoor", "sparse_orbit"),
    ("rooms", "one_way"),
    ("town", "round_trip"),
    ("room", "sparse_arc"),
    ("road", "one_way"),
    ("outdoor", "sparse_arc"),
    ("town", "one_way"),
)
"""Surroundings with sparse paths about a subject, and journeys without one; odd seeds go through them in turn."""

_SCALE = {"sparse_orbit": (0.36, 0.8), "sparse_arc": (0.36, 0.6), "one_way": (1.1, 1.7), "round_trip": (1.3, 2.0)}
"""Frames of a path over those of a dense one, from and to."""


@dataclass(frozen=True)
class Events:
    """What happens while a capture is taken."""

    exposure: ExposureSettings = field(default_factory=ExposureSettings)
    has_passers_by: bool = False
    blur_runs: int = 0
    """Number of runs of frames that the hand blurs."""
    tremor: float = 0.0
    """Largest extent of the blur of ordinary frames, as a share of the picture's longer side."""
    second_session: Placement = "none"
    is_night: bool = False


@dataclass(frozen=True)
class Recipe:
    """Everything that is drawn for a scene before its geometry."""

    seed: int
    path: str
    look: Look
    focal_over_width: float
    brightness: float
    """Median linear brightness of the pictures, in (0, 1)."""
    noise: float
    """Sensor noise at medium brightness, of 1."""
    exposure_drift: float
    """Deviation of a fixed exposure along the path, in stops."""
    softness_px: float
    """How soft the softest ordinary frames are, for a picture 320 px wide."""
    naming: Naming
    has_exif: bool
    jpeg_quality: int
    events: Events = field(default_factory=Events)
    frame_scale: float = 1.0
    """Frames of this capture over those asked for."""

    @property
    def is_journey(self) -> bool:
        """Whether the path leads through places rather than about a subject."""
        return self.look.surroundings in ("rooms", "town", "road")

    def frame_count(self, frames: int) -> int:
        """Return how many frames this capture has where ``frames`` are asked for; at least 2 of them."""
        return min(frames, 2) if frames < 2 else max(2, round(self.frame_scale * frames))


def draw_recipe(seed: int) -> Recipe:
    """Draw a recipe; even seeds go through the dense combinations, odd ones through the sparse paths and journeys."""
    rng = np.random.default_rng([seed, 1])
    surroundings, path = COMBINATIONS[seed * 8 % len(COMBINATIONS)]
    if seed % 2 == 1:
        surroundings, path = JOURNEYS[seed // 2 % len(JOURNEYS)]
    poor = surroundings == "plain" or rng.random() < 0.15
    look = Look(
        surroundings=surroundings,
        contrast=rng.uniform(0.1, 0.35) if poor else rng.uniform(0.7, 1.1),
        subject_contrast=rng.uniform(0.6, 1.1),
        subject_size=rng.uniform(0.45, 1.0),
    )
    naming: Naming = get_args(Naming)[int(rng.choice(3, p=[0.5, 0.3, 0.2]))]
    focal, brightness = rng.uniform(0.65, 1.15), float(np.exp(rng.uniform(np.log(0.06), np.log(0.35))))
    noise, drift, softness = rng.uniform(0.003, 0.02), rng.uniform(0.02, 0.25), rng.uniform(0.0, 0.7)
    has_exif, quality = naming == "shuffled" or rng.random() < 0.7, int(rng.integers(80, 97))
    events = draw_events(seed, look.surroundings, path)
    more = np.random.default_rng([seed, 4])
    if events.is_night:
        brightness, noise = more.uniform(0.02, 0.06), more.uniform(0.03, 0.06)
    if surroundings in ("rooms", "town", "road"):
        focal = more.uniform(0.6, 0.95)
    return Recipe(
        seed=seed,
        path=path,
        look=look,
        focal_over_width=focal,
        brightness=brightness,
        noise=noise,
        exposure_drift=drift,
        softness_px=softness,
        naming=naming,
        has_exif=has_exif,
        jpeg_quality=quality,
        events=events,
        frame_scale=more.uniform(*_SCALE.get(path, (1.0, 1.0))),
    )


def draw_events(seed: int, surroundings: Surroundings, path: str) -> Events:
    """Draw what happens; each kind comes at its own even spacing over the seeds, so that a few seeds have them all."""
    rng = np.random.default_rng([seed, 5])
    is_journey = surroundings in ("rooms", "town", "road")
    metering = "automatic" if _even(seed, 2) < (0.85 if is_journey else 0.5) else "fixed"
    drift = rng.uniform(0.03, 0.1) if _even(seed, 3) < 0.35 else 0.0
    exposure = ExposureSettings(metering, rng.uniform(0.75, 1.0), rng.uniform(0.25, 0.5), drift)
    has_runs = _even(seed, 5) < 0.34
    session: Placement = "none"
    if surroundings not in ("road", "field") and _even(seed, 7) < 0.24:
        # The end of a journey shows what its beginning does not: nothing would tell that it is another session.
        around = path in ("orbit", "arc", "two_loops", "spiral", "sparse_orbit", "sparse_arc")
        session = ("beginning", "end", "spread")[int(rng.integers(3))] if around else "spread"
    return Events(
        exposure=exposure,
        has_passers_by=_even(seed, 11) < 0.3,
        blur_runs=int(rng.integers(1, 4)) if has_runs else 0,
        tremor=rng.uniform(0.0, 0.0035) if has_runs or _even(seed, 13) < 0.3 else 0.0,
        second_session=session,
        is_night=surroundings != "plain" and _even(seed, 17) < 0.1,
    )


def _even(seed: int, prime: int) -> float:
    """Return a number in [0, 1) that is spread evenly over consecutive seeds: a Weyl sequence of an irrational root."""
    return float((0.37 * prime + (seed + 1) * np.sqrt(prime)) % 1.0)
