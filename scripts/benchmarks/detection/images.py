"""Everything that is computed from one image, as it came or corrupted, once: embedding, keypoints, sharpness.

Images are corrupted at full size by the benchmark's own injector. The cache keeps what is computed from them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from benchmarks.corruptions import Corruption, corrupt_image
from benchmarks.detection import quality
from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.capture.images import read_mask, read_rgb
from mtcm_nerfstudio.evidence import keypoints as keypoints_module
from mtcm_nerfstudio.evidence.keypoints import FrameKeypoints, keypoints_of
from mtcm_nerfstudio.evidence.match_capture import FrameFeatures, cache_keypoints, cached_keypoints, find_features
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import EMBEDDING_DIM, Embedder, NetworkName, load_embedder
from mtcm_nerfstudio.tokens.progress import Track

_BATCH = 16
_LOOKS = f"benchmark_looks:{quality.VERSION}:{quality.HAS_CLEANVISION}"
_CORRUPTED = f"benchmark_corruption:1:{keypoints_module.VERSION}:{quality.VERSION}:{quality.HAS_CLEANVISION}"


@dataclass(frozen=True, eq=False)
class CorruptedImage:
    """A corrupted frame's image, before it is made: enough to know it again in the cache."""

    frame: Frame
    corruption: Corruption
    donor: Frame | None
    """The frame of another capture that a foreign one shows."""

    def made(self) -> Image.Image:
        """Read the frame's image and corrupt it."""
        donor = None if self.donor is None else read_rgb(self.donor.image_path)
        return corrupt_image(read_rgb(self.frame.image_path), self.corruption, donor)


@dataclass(frozen=True, eq=False)
class Looks:
    """How good pictures are for themselves."""

    sharpness: Float[np.ndarray, " frame"]
    """Variance of the image's Laplacian, grey levels of 0 to 255."""
    cleanvision: Float[np.ndarray, " frame"]
    """CleanVision's worst score, in [0, 1], higher is better; NaN where it is not installed."""


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What a trial takes from a corrupted image."""

    embedding: Float[np.ndarray, "384"]
    sharpness: float
    cleanvision: float
    features: FrameFeatures


class ImageBank:
    """Computes what is needed of images as they came and of corrupted ones once, and keeps it."""

    def __init__(self, embedder: NetworkName = "efficientnet-lite0", cache: Cache | None = None) -> None:
        """Load the embedder; ``cache`` is the usual one if it is not given."""
        self.embedder: Embedder = load_embedder(embedder)
        self.cache = cache or Cache()

    def looks(self, frames: Sequence[Frame], track: Track) -> Looks:
        """Measure how good frames are as they came."""
        keys = [self.cache.content_digest(frame.image_path) for frame in frames]
        known = [self.cache.get(_LOOKS, key) for key in keys]
        unknown = [i for i, row in enumerate(known) if row is None]
        with ThreadPoolExecutor() as pool:
            rows = pool.map(lambda i: _looks(read_rgb(frames[i].image_path)), unknown)
            for i, row in zip(unknown, track(rows, "Looking at images", len(unknown)), strict=True):
                known[i] = row
                self.cache.put(_LOOKS, keys[i], row)
        sharpness, cleanvision = np.array(known, dtype=np.float64).reshape(-1, 2).T
        return Looks(sharpness, cleanvision)

    def features(self, frames: Sequence[Frame], track: Track) -> tuple[FrameFeatures, ...]:
        """Find the keypoints of frames as they came; all of their descriptors are found again at most once."""
        found = find_features(frames, self.cache, track)
        return tuple(one if one.again is None else replace(one, again=cache(one.again)) for one in found)

    def corrupted(self, images: Sequence[CorruptedImage]) -> list[ImageFacts]:
        """Return what is to be known of corrupted images, in their order; those that are new are made in batches."""
        found = [self._known(image) for image in images]
        unknown = [i for i, facts in enumerate(found) if facts is None]
        for start in range(0, len(unknown), _BATCH):
            batch = unknown[start : start + _BATCH]
            for i, facts in zip(batch, self._make([images[i] for i in batch]), strict=True):
                found[i] = facts
        return [facts for facts in found if facts is not None]

    def _make(self, images: Sequence[CorruptedImage]) -> list[ImageFacts]:
        with ThreadPoolExecutor() as pool:
            made = list(pool.map(_measured, images))
        embeddings = self.embedder.embed([one.image for one in made])
        rows = [np.concatenate([embedding, one.looks]) for embedding, one in zip(embeddings, made, strict=True)]
        self.cache.put_many(self._kind, {self._key(image): row for image, row in zip(images, rows, strict=True)})
        for image, one in zip(images, made, strict=True):
            cache_keypoints(self._key(image), one.keypoints, self.cache)
        return [self._facts(*item) for item in zip(images, rows, [one.keypoints for one in made], strict=True)]

    def _known(self, image: CorruptedImage) -> ImageFacts | None:
        key = self._key(image)
        row, keypoints = self.cache.get(self._kind, key), cached_keypoints(key, self.cache)
        return None if row is None or keypoints is None else self._facts(image, row, keypoints)

    def _facts(self, image: CorruptedImage, row: Float[np.ndarray, "386"], keypoints: FrameKeypoints) -> ImageFacts:
        sharpness, cleanvision = row[EMBEDDING_DIM:]
        again = cache(partial(_keypoints_again, image))
        features = FrameFeatures(keypoints, image.frame.intrinsics, self._key(image), again)
        return ImageFacts(row[:EMBEDDING_DIM], float(sharpness), float(cleanvision), features)

    @property
    def _kind(self) -> str:
        return f"{_CORRUPTED}:{self.embedder.name}:{self.embedder.version}"

    def _key(self, image: CorruptedImage) -> str:
        """Return a name for an image, its mask and its calibration, by contents."""
        frame, corruption = image.frame, image.corruption
        paths = [frame.image_path, frame.mask_path, None if image.donor is None else image.donor.image_path]
        digests = [self.cache.content_digest(path) if path is not None and path.is_file() else "" for path in paths]
        return f"{_CORRUPTED}:{':'.join(digests)}:{corruption.kind}:{corruption.seed}:{frame.intrinsics!r}"


@dataclass(frozen=True, eq=False)
class _Measured:
    image: Image.Image
    keypoints: FrameKeypoints
    looks: Float[np.ndarray, "2"]


def _measured(image: CorruptedImage) -> _Measured:
    made = image.made()
    return _Measured(made, keypoints_of(made, _mask(image.frame)), _looks(made))


def _keypoints_again(image: CorruptedImage) -> FrameKeypoints:
    return keypoints_of(image.made(), _mask(image.frame))


def _mask(frame: Frame) -> Bool[np.ndarray, "height width"] | None:
    return read_mask(frame.mask_path) if frame.mask_path is not None and frame.mask_path.is_file() else None


def _looks(image: Image.Image) -> Float[np.ndarray, "2"]:
    return np.array([quality.laplacian_variance(image), quality.cleanvision_score(image)])
