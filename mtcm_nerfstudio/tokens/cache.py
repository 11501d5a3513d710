"""What is dear to compute and depends on an image's bytes alone: kept across runs, in one SQLite file."""

import hashlib
import os
import sqlite3
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_TABLES = """
CREATE TABLE IF NOT EXISTS file_digest (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS array (kind TEXT, key TEXT, shape TEXT, dtype TEXT, bytes BLOB, PRIMARY KEY (kind, key));
"""


def default_cache_file() -> Path:
    """Return where the cache lies: below ``$MTCM_CACHE``, else the user's cache folder."""
    folder = os.environ.get("MTCM_CACHE")
    if folder:
        return Path(folder) / "cache.sqlite"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "mtcm_nerfstudio" / "cache.sqlite"


class Cache:
    """Arrays keyed by kind (what computed them, with its version) and key (the content they were computed from).

    A cache that cannot be opened or written is replaced by one in memory, with a warning: it only costs time.
    """

    def __init__(self, path: Path | None = None, read_only: bool = False) -> None:
        """Open the cache at ``path`` (default: ``default_cache_file()``), making it where there is none.

        With ``read_only`` nothing is made or written; what is computed is forgotten.
        """
        self.path = path or default_cache_file()
        self._read_only = read_only
        try:
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(str(self.path) if self.path.exists() or not read_only else ":memory:")
        except (OSError, sqlite3.Error) as error:
            warnings.warn(f"{self.path}: cannot be used as a cache ({error}); nothing is kept this time", stacklevel=2)
            self._database = _open(":memory:")

    def content_digest(self, path: Path) -> str:
        """Return the SHA-256 of a file's content, read again only when its size or modification time has changed."""
        stat = path.stat()
        known = self._database.execute(
            "SELECT sha256 FROM file_digest WHERE path = ? AND size = ? AND mtime_ns = ?",
            (str(path.resolve()), stat.st_size, stat.st_mtime_ns),
        ).fetchone()
        if known:
            return known[0]
        digest = _sha256(path)
        self._write(
            "INSERT OR REPLACE INTO file_digest VALUES (?, ?, ?, ?)",
            [(str(path.resolve()), stat.st_size, stat.st_mtime_ns, digest)],
        )
        return digest

    def get(self, kind: str, key: str) -> np.ndarray | None:
        """Return the array kept under (kind, key), or None."""
        row = self._database.execute(
            "SELECT shape, dtype, bytes FROM array WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        if row is None:
            return None
        shape = tuple(int(size) for size in row[0].split(",") if size)
        return np.frombuffer(row[2], dtype=np.dtype(row[1])).reshape(shape).copy()

    def put(self, kind: str, key: str, array: np.ndarray) -> None:
        """Keep one array of numbers."""
        self.put_many(kind, {key: array})

    def put_many(self, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep several arrays of numbers in one transaction."""
        rows = [
            (kind, key, ",".join(map(str, array.shape)), array.dtype.str, np.ascontiguousarray(array).tobytes())
            for key, array in arrays.items()
        ]
        self._write("INSERT OR REPLACE INTO array VALUES (?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _write(self, statement: str, rows: list[tuple]) -> None:
        if self._read_only:
            return
        try:
            with self._database:
                self._database.executemany(statement, rows)
        except sqlite3.Error as error:
            warnings.warn(f"{self.path}: cannot be written ({error}); nothing is kept this time", stacklevel=3)


def _open(location: str) -> sqlite3.Connection:
    database = sqlite3.connect(location, timeout=30.0)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.executescript(_TABLES)
    return database


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
