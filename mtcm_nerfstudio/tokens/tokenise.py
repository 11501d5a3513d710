"""From a capture on disk to its tokens: embed each image once, look up what is known, normalise."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from mtcm_nerfstudio.capture.capture import Capture, Frame
from mtcm_nerfstudio.capture.images import UnreadableImageError, mask_area, read_rgb
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import Embedder, EmbedderName, load_embedder
from mtcm_nerfstudio.tokens.embedders.precomputed import read_embeddings
from mtcm_nerfstudio.tokens.progress import progress_bars
from mtcm_nerfstudio.tokens.tokens import EMBEDDING_DIM, FrameTokens, RawFeatures, assemble_tokens

ImageStatus = Literal["ok", "missing image", "unreadable image"]

_BATCH = 16
_MASK_AREA = "mask_area:1"
_READABLE = "readable:1"


@dataclass(frozen=True, eq=False)
class TokenisedCapture:
    """A capture with its tokens, row i of every array belonging to ``capture.frames[i]``."""

    capture: Capture
    raw: RawFeatures
    tokens: FrameTokens
    image_status: tuple[ImageStatus, ...]
    embedder_version: str | None = None
    """Of the network that made the embeddings; None where they were read from files."""


def tokens_of(
    capture: Capture,
    embedder: EmbedderName = "efficientnet-lite0",
    cache: Cache | None = None,
    progress: bool = True,
) -> TokenisedCapture:
    """Compute the tokens of a capture. Images seen before, under whatever name, come from the cache.

    Precomputed embeddings are used where the capture says that ``embedder`` made them (or ``embedder`` is
    ``precomputed``); else they are computed from the images.

    Raises:
        ValueError: an embedding file has the wrong shape; the message names it.
    """
    cache = cache or Cache()
    status, readable = _digests(capture.frames, cache)
    version = None
    if embedder == "precomputed" or embedder == capture.embedder:
        embeddings = read_embeddings(capture.frames).astype(np.float64)
        unverified = [i for i, digest in readable.items() if cache.get(_READABLE, digest) is None]
        for i in progress_bars(progress)(unverified, "Reading images", len(unverified)):
            status[i] = _verify(capture.frames[i], readable[i], cache)
    else:
        embeddings = np.full((len(capture), EMBEDDING_DIM), np.nan)
        backend: Embedder = load_embedder(embedder)
        version = backend.version
        for i, result in _embed(capture.frames, readable, backend, cache, progress):
            if isinstance(result, UnreadableImageError):
                status[i] = "unreadable image"
            else:
                embeddings[i] = result
    raw = RawFeatures(
        embeddings=embeddings,
        c2w=np.stack([np.full((4, 4), np.nan) if frame.c2w is None else frame.c2w for frame in capture.frames]),
        timestamps=_column(frame.timestamp for frame in capture.frames),
        mask_areas=_column(_mask_area(frame, cache) for frame in capture.frames),
        focals=_column(_focal(frame) for frame in capture.frames),
        file_paths=tuple(frame.file_path for frame in capture.frames),
        embedder=embedder,
    )
    return TokenisedCapture(capture, raw, assemble_tokens(raw), tuple(status), version)


def _digests(frames: Sequence[Frame], cache: Cache) -> tuple[list[ImageStatus], dict[int, str]]:
    """Return every frame's status as far as the file system knows it, and the digests of the files that are there."""
    there = {i: cache.content_digest(frame.image_path) for i, frame in enumerate(frames) if frame.image_path.is_file()}
    return ["ok" if i in there else "missing image" for i in range(len(frames))], there


def _embed(
    frames: Sequence[Frame], digests: dict[int, str], backend: Embedder, cache: Cache, progress: bool
) -> Iterator[tuple[int, Float[np.ndarray, "384"] | UnreadableImageError]]:
    """Yield each readable frame's embedding, from the cache where it is known, else computed in batches."""
    kind = f"embedding:{backend.name}:{backend.version}"
    unknown = []
    for i, digest in digests.items():
        known = cache.get(kind, digest)
        if known is None:
            unknown.append(i)
        else:
            yield i, known
    batches = list(_batched(unknown, _BATCH))
    with ThreadPoolExecutor() as readers:
        for batch in progress_bars(progress)(batches, "Embedding images", len(batches)):
            decoded: dict[int, Image.Image] = {}
            for i, image in zip(batch, readers.map(lambda i: _read_or_error(frames[i]), batch), strict=True):
                if isinstance(image, UnreadableImageError):
                    yield i, image
                else:
                    decoded[i] = image
            if decoded:
                vectors = backend.embed(list(decoded.values()))
                cache.put_many(kind, {digests[i]: vector for i, vector in zip(decoded, vectors, strict=True)})
                yield from zip(decoded, vectors, strict=True)


def _read_or_error(frame: Frame) -> Image.Image | UnreadableImageError:
    try:
        return read_rgb(frame.image_path)
    except UnreadableImageError as error:
        return error


def _verify(frame: Frame, digest: str, cache: Cache) -> ImageStatus:
    """Decode an image whose embedding did not have to be computed: training will have to decode it."""
    if isinstance(_read_or_error(frame), UnreadableImageError):
        return "unreadable image"
    cache.put(_READABLE, digest, np.ones(1))
    return "ok"


def _mask_area(frame: Frame, cache: Cache) -> float | None:
    """Return the share of the frame that its mask marks; None where there is no mask that can be read."""
    if frame.mask_path is None or not frame.mask_path.is_file():
        return None
    digest = cache.content_digest(frame.mask_path)
    known = cache.get(_MASK_AREA, digest)
    if known is not None:
        return float(known[0])
    try:
        area = mask_area(frame.mask_path)
    except UnreadableImageError:
        return None
    cache.put(_MASK_AREA, digest, np.array([area]))
    return area


def _focal(frame: Frame) -> float | None:
    """Return focal length over diagonal: the calibrated one, else what EXIF or the metadata say."""
    return frame.intrinsics.focal_over_diagonal if frame.intrinsics else frame.focal_over_diagonal


def _column(values: Iterable[float | None]) -> Float[np.ndarray, " frame"]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _batched(items: Sequence[int], size: int) -> Iterator[list[int]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
