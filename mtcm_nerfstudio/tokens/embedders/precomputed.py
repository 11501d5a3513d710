"""Embeddings that a capture brings along as ``.npy`` files: one vector a file, or one array with a row a frame."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.tokens.embedders.base import EMBEDDING_DIM, with_unit_rms

VERSION = "npy-1"
"""Changes when the same file would give another embedding."""


def read_embedding(path: Path, row: int | None = None) -> Float32[np.ndarray, "384"]:
    """Read one frame's embedding and scale it to the norm √384.

    Args:
        path: a ``.npy`` file with 384 numbers (or 1 × 384), or N × 384 where ``row`` is given.
        row: the frame's row in the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no array of numbers of that shape, or holds NaN, infinity or nothing but zeros.
    """
    array = _read_array(path)
    vector = array.reshape(-1) if row is None else _row_of(array, row, path)
    if row is None and array.shape not in ((EMBEDDING_DIM,), (1, EMBEDDING_DIM)):
        raise ValueError(f"{path}: an embedding is {EMBEDDING_DIM} numbers, this file holds {_shape(array)}")
    try:
        return with_unit_rms(vector[None].astype(np.float32))[0]
    except ValueError as error:
        raise ValueError(f"{path}: the embedding is all zeros or not finite. Compute it again.") from error


def read_embeddings(frames: Sequence[Frame]) -> Float32[np.ndarray, "frame 384"]:
    """Read the embeddings of frames; a frame without a file gets a row of NaN.

    Raises:
        FileNotFoundError: a file that a frame names is missing.
        ValueError: a file is no embedding; the message names it.
    """
    out = np.full((len(frames), EMBEDDING_DIM), np.nan, dtype=np.float32)
    for i, frame in enumerate(frames):
        if frame.embedding_path is not None:
            out[i] = read_embedding(frame.embedding_path, frame.embedding_row)
    return out


def _read_array(path: Path) -> np.ndarray:
    """Read a ``.npy`` file without unpickling; large ones are mapped, not copied."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such embedding file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a .npy array of numbers ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: not a .npy array of numbers")
    return array


def _row_of(array: np.ndarray, row: int, path: Path) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] != EMBEDDING_DIM:
        raise ValueError(f"{path}: embeddings are N × {EMBEDDING_DIM} numbers, this file holds {_shape(array)}")
    if not 0 <= row < len(array):
        raise ValueError(f"{path}: has {len(array)} rows, but row {row} is asked for. One row per image is needed.")
    return array[row]


def _shape(array: np.ndarray) -> str:
    return " × ".join(str(size) for size in array.shape) or "one number"
