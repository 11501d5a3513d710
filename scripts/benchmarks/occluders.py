"""What the benchmarks put before the lens: made of photos that scikit-image ships with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from typing_extensions import assert_never

from benchmarks.linear_light import LINEAR_OF_SRGB, Linear, blurred, log_uniform

_USUAL_MEAN = 0.2
"""Linear light of an image exposed as usual, on average."""
Polygons: TypeAlias = list[Float[np.ndarray, "vertex 2"]]
"""Outlines as (x, y) in longer sides of the image, from its upper left corner."""

Material = Literal["photo", "wall", "cloth", "plain", "skin", "hair", "leaves"]


@dataclass(frozen=True)
class _Part:
    """One piece of an occluder."""

    outline: Callable[[float], Polygons]
    """Its outline for a size of the whole occluder; a larger one covers more."""
    material: Material


@dataclass(frozen=True)
class _Occluder:
    """Something between the camera and its subject."""

    parts: tuple[_Part, ...]
    """From back to front."""
    share: tuple[float, float]
    """The least and the most of the image that it covers."""
    softness: tuple[float, float]
    """Standard deviation of its blur, in longer sides: the nearer to the lens, the softer."""


def occlude(linear: Linear, rng: np.random.Generator) -> Linear:
    """Put a finger, a passer-by, poles or branches, or a panel in front of 8% to 45% of the image."""
    height, width = linear.shape[:2]
    aspect = np.array([width, height]) / max(width, height)
    make = (_finger, _passer_by, _poles, _branch, _panel)[int(rng.choice(5, p=(0.28, 0.25, 0.12, 0.1, 0.25)))]
    occluder = make(aspect, rng)
    size = _size_for_share(occluder, aspect, rng.uniform(*occluder.share))
    sigma = log_uniform(*occluder.softness, rng) * max(width, height)
    cover, alpha = np.zeros_like(linear), np.zeros((height, width), dtype=np.float32)
    illumination = float(np.clip(linear.mean() / _USUAL_MEAN, 0.3, 1.3)) * log_uniform(0.4, 1.2, rng)
    for part in occluder.parts:
        mask = _rasterise(part.outline(size), (width, height))
        x, y, w, h = cv2.boundingRect((mask > 0).astype(np.uint8))
        if w and h:
            box = np.s_[y : y + h, x : x + w]
            material = illumination * _material(part.material, (w, h), rng)
            cover[box] += mask[box][..., None] * (material - cover[box])
            alpha[box] += mask[box] * (1.0 - alpha[box])
    # Blurred together with its mask, an occluder's edge mixes with what is behind it, not with black.
    cover, alpha = (blurred(each, sigma) for each in (cover, alpha))
    return cover + (1.0 - alpha[..., None]) * linear


def _size_for_share(occluder: _Occluder, aspect: Float[np.ndarray, "2"], share: float) -> float:
    """Return the size at which the occluder covers a share of the image, by bisection on a coarse raster."""
    width, height = (int(n) for n in np.round(192 * aspect))
    low, high = 0.0, 6.0
    for _ in range(14):
        middle = 0.5 * (low + high)
        polygons = [polygon for part in occluder.parts for polygon in part.outline(middle)]
        covered = float(_rasterise(polygons, (width, height)).mean())
        low, high = (middle, high) if covered < share else (low, middle)
    return high


def _finger(aspect: Float[np.ndarray, "2"], rng: np.random.Generator) -> _Occluder:
    """Return a finger over an edge or a corner, far out of focus."""
    turn = rng.uniform(0.0, 2 * np.pi)
    outward = np.array([np.cos(turn), np.sin(turn)])
    edge = aspect * np.clip(0.5 + 0.75 * outward, 0.0, 1.0)
    inward = 0.5 * aspect - edge + rng.normal(0.0, 0.12, 2)
    inward /= np.linalg.norm(inward)
    across = np.array([-inward[1], inward[0]])
    length, taper = rng.uniform(0.4, 1.6), rng.uniform(0.75, 0.95)
    angles = np.linspace(0.5 * np.pi, -0.5 * np.pi, 40)
    tip = np.cos(angles)[:, None] * inward * rng.uniform(0.9, 1.3) + np.sin(angles)[:, None] * across
    shape = np.concatenate([tip * taper + length * inward, [-across - 3.0 * inward, across - 3.0 * inward]])
    return _Occluder((_Part(lambda size: [edge + 0.3 * size * shape], "skin"),), (0.08, 0.30), (0.008, 0.035))


def _passer_by(aspect: Float[np.ndarray, "2"], rng: np.random.Generator) -> _Occluder:
    """Return a person from behind or the side who reaches the lower edge, cut at the hips or lower."""
    x, cut, lean = aspect[0] * rng.uniform(0.12, 0.88), rng.uniform(0.42, 0.85), rng.normal(0.0, 0.05)
    build, swing, stride = rng.uniform(0.85, 1.3), rng.uniform(0.0, 0.05), rng.uniform(0.0, 0.08)

    def placed(outline: list[tuple[float, float]]) -> Callable[[float], Polygons]:
        points = _rounded(np.array(outline) * [build, 1.0])
        points[:, 0] += lean * (0.6 - points[:, 1])
        return lambda size: [np.array([x, aspect[1]]) + size * (points - [0.0, cut])]

    turns = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
    head = [(0.045 * np.cos(t) / build, 0.08 + 0.068 * np.sin(t)) for t in turns]
    neck = [(-0.028, 0.10), (0.028, 0.10), (0.04, 0.175), (-0.04, 0.175)]
    torso = [
        (-0.035, 0.150), (0.035, 0.150), (0.105, 0.175), (0.135, 0.235), (0.150 + swing, 0.40), (0.145 + swing, 0.52),
        (0.105 + swing, 0.52), (0.105, 0.40), (0.112, 0.56), (-0.112, 0.56), (-0.105, 0.40), (-0.105 - swing, 0.52),
        (-0.145 - swing, 0.52), (-0.150 - swing, 0.40), (-0.135, 0.235), (-0.105, 0.175),
    ]  # fmt: skip
    legs = [
        (-0.108, 0.52), (0.108, 0.52), (0.10 + stride, 0.78), (0.085 + stride, 1.1), (0.015 + stride, 1.1),
        (0.0, 0.62), (-0.015 - stride, 1.1), (-0.085 - stride, 1.1), (-0.10 - stride, 0.78),
    ]  # fmt: skip
    parts = (
        _Part(placed(neck), "skin"),
        _Part(placed(head), "hair"),
        _Part(placed(legs), "cloth"),
        _Part(placed(torso), "cloth" if rng.random() < 0.75 else "photo"),
    )
    return _Occluder(parts, (0.14, 0.45), (0.001, 0.006))


def _poles(aspect: Float[np.ndarray, "2"], rng: np.random.Generator) -> _Occluder:
    """Return one to three poles or rails across the whole image."""
    steep = rng.random() < 0.75
    count = int(rng.integers(1, 4))
    places = (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count
    widths, tilt = rng.uniform(0.6, 1.4, count) / count, rng.normal(0.0, 0.15)

    def outline(size: float) -> Polygons:
        along, sides = np.array([-1.0, 1.0, 2.0]), 0.08 * size * widths
        quads = [np.array([(-s, along[0]), (s, along[0]), (s, along[2]), (-s, along[2])]) for s in sides]
        for quad, place in zip(quads, places, strict=True):
            quad[:, 0] += place * (aspect[0] if steep else aspect[1]) + tilt * (quad[:, 1] - 0.5)
        return [quad if steep else quad[:, ::-1] for quad in quads]

    return _Occluder((_Part(outline, "plain" if rng.random() < 0.7 else "wall"),), (0.08, 0.18), (0.002, 0.015))


def _branch(aspect: Float[np.ndarray, "2"], rng: np.random.Generator) -> _Occluder:
    """Return a branch with leaves that hangs in from the upper or a side edge."""
    root = aspect * [rng.uniform(0.0, 1.0), -0.05] if rng.random() < 0.6 else aspect * [-0.05, rng.uniform(0.0, 0.6)]
    twigs: list[tuple[np.ndarray, np.ndarray, float]] = []
    ends = [(root, np.arctan2(*(aspect * [0.5, 0.6] - root)[::-1]), rng.uniform(0.5, 0.8), 1.0)]
    for _ in range(4):
        grown = []
        for start, heading, length, thickness in ends:
            end = start + length * rng.uniform(0.6, 1.1) * np.array([np.cos(heading), np.sin(heading)])
            twigs.append((start, end, thickness))
            for side in (-1.0, 1.0):
                fork = start + rng.uniform(0.4, 1.0) * (end - start)
                grown.append((fork, heading + side * rng.uniform(0.2, 0.8), 0.62 * length, 0.6 * thickness))
        ends = grown
    anchors = [(start + rng.uniform() * (end - start), rng.uniform(0, np.pi)) for start, end, _ in twigs[1:] * 10]

    def wood(size: float) -> Polygons:
        return [_segment(start, end, 0.02 * size * thickness) for start, end, thickness in twigs]

    def leaves(size: float) -> Polygons:
        return [_ellipse(anchor, 0.035 * size, 0.014 * size, angle) for anchor, angle in anchors]

    return _Occluder((_Part(wood, "hair"), _Part(leaves, "leaves")), (0.08, 0.22), (0.002, 0.012))


def _panel(aspect: Float[np.ndarray, "2"], rng: np.random.Generator) -> _Occluder:
    """Return a large sign, book or wall in perspective, often cut by the image's edge, with or without a margin."""
    middle = aspect * (0.5 + rng.choice([-1, 1], 2) * rng.uniform(0.1, 0.5, 2))
    shape = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) * [rng.uniform(0.7, 1.6), 1.0]
    shape *= 1.0 + rng.normal(0.0, 0.08, (4, 1))
    turn = rng.normal(0.0, 0.2)
    shape = shape @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    inner = rng.uniform(0.8, 0.95)
    face = _Part(lambda size: [middle + inner * size * shape], "photo" if rng.random() < 0.6 else "wall")
    frame = _Part(lambda size: [middle + size * shape], "plain")
    return _Occluder((frame, face), (0.15, 0.45), (0.0006, 0.012))


def _rounded(polygon: Float[np.ndarray, "vertex 2"]) -> Float[np.ndarray, "more 2"]:
    """Cut the corners of a polygon twice (Chaikin's algorithm)."""
    for _ in range(2):
        following = np.roll(polygon, -1, axis=0)
        polygon = np.stack([0.75 * polygon + 0.25 * following, 0.25 * polygon + 0.75 * following], 1).reshape(-1, 2)
    return polygon


def _segment(start: np.ndarray, end: np.ndarray, half_width: float) -> Float[np.ndarray, "4 2"]:
    """Return a strip from one point to another that narrows by a third."""
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
    across = half_width * np.array([-along[1], along[0]])
    return np.array([start + across, end + 0.67 * across, end - 0.67 * across, start - across])


def _ellipse(middle: np.ndarray, a: float, b: float, angle: float) -> Float[np.ndarray, "16 2"]:
    """Return an ellipse with half axes a and b, a turned by an angle from x."""
    turns = np.linspace(0.0, 2 * np.pi, 16, endpoint=False)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    return middle + a * np.cos(turns)[:, None] * along + b * np.sin(turns)[:, None] * across


def _rasterise(polygons: Polygons, size: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    """Return the union of polygons as a mask in [0, 1] of a size (width, height), with smooth edges."""
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    for polygon in polygons:
        corners = np.round(16 * (polygon * max(size) - 0.5)).astype(np.int32)
        cv2.fillPoly(mask, [corners], (255,), lineType=cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) / 255.0


_SKINS = ((0.62, 0.36, 0.25), (0.50, 0.27, 0.17), (0.30, 0.15, 0.09), (0.70, 0.45, 0.35))
"""Linear RGB."""


def _material(material: Material, size: tuple[int, int], rng: np.random.Generator) -> Linear:
    """Return a texture of a size (width, height): a photo, or a photo's shading in a colour of the material."""
    match material:
        case "photo":
            return _photo_texture(_photos()[str(rng.choice(["coffee", "chelsea", "rocket"]))], size, rng)
        case "wall":
            tint = np.array([1.0, 0.9, 0.8], dtype=np.float32) ** rng.uniform(-0.5, 2.5)
            return _photo_texture(_photos()[str(rng.choice(["brick", "gravel"]))], size, rng) * tint
        case "leaves":
            return _photo_texture(_photos()["grass"], size, rng) * np.array([0.6, 0.9, 0.3], dtype=np.float32)
        case "cloth":
            return _coloured(
                "grass", rng.uniform(0.02, 0.5) * rng.uniform(0.6, 1.0, 3), rng.uniform(0.05, 0.35), size, rng
            )
        case "plain":
            return _coloured("gravel", rng.uniform(0.05, 0.7) * rng.uniform(0.85, 1.0, 3), 0.15, size, rng)
        case "skin":
            return _coloured("chelsea", np.array(_SKINS[rng.integers(len(_SKINS))]), 0.15, size, rng)
        case "hair":
            return _coloured("grass", rng.uniform(0.01, 0.1) * np.array([1.2, 0.9, 0.7]), 0.5, size, rng)
        case _:
            assert_never(material)


def _coloured(
    name: str, colour: Float[np.ndarray, "3"], contrast: float, size: tuple[int, int], rng: np.random.Generator
) -> Linear:
    """Return a colour with two photos' grain and shading at a share of their contrast, lit from one side."""
    grain = _photo_texture(_photos()[name][..., 1], size, rng, fineness=4.0)
    folds = _photo_texture(_photos()["chelsea"][..., 1], size, rng)
    x, y = np.linspace(-0.5, 0.5, size[0], dtype=np.float32), np.linspace(-0.5, 0.5, size[1], dtype=np.float32)
    slope = rng.normal(0.0, 0.4, 2).astype(np.float32)
    shading = np.exp(slope[0] * x[None] + slope[1] * y[:, None])
    for detail in (grain, folds):
        shading *= 1.0 + np.float32(contrast) * (detail / max(float(detail.mean()), 1e-3) - 1.0)
    return shading[..., None] * colour.astype(np.float32)


def _photo_texture(
    photo: UInt8[np.ndarray, "h w *c"], size: tuple[int, int], rng: np.random.Generator, fineness: float = 1.0
) -> Float32[np.ndarray, "h w *c"]:
    """Return a photo's linear light, turned, resized and shifted at random, mirrored where the photo ends."""
    scale = max(size) / photo.shape[1] * rng.uniform(0.6, 1.5) / fineness
    how = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
    resized = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=how)
    matrix = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), rng.normal(0.0, 15.0), 1.0)
    matrix[:, 2] += rng.uniform(0.0, 1.0, 2) * resized.shape[1::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(resized, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return LINEAR_OF_SRGB[turned.astype(np.uint8)]


@cache
def _photos() -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """Return the photos that occluders are made of, as RGB; all of them lie in scikit-image's wheel."""
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError("occluders are made of scikit-image's photos: pip install scikit-image") from error
    photos = {"coffee": data.coffee(), "chelsea": data.chelsea(), "rocket": data.rocket(), "brick": data.brick(),
              "grass": data.grass(), "gravel": data.gravel()}  # fmt: skip
    return {name: np.asarray(Image.fromarray(photo).convert("RGB")) for name, photo in photos.items()}
