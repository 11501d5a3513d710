"""Frames that are faulty as they came: a list made by looking at the pictures."""

import json
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "data" / "results" / "natural_faults.json"
_SCHEMA_VERSION = 1


def read_natural_faults(path: Path = FILE) -> dict[str, tuple[str, ...]]:
    """Return the ``file_path`` of the faulty frames by their capture's name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no list of natural faults.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema_version"] != _SCHEMA_VERSION:
            raise ValueError(f"schema_version is {record['schema_version']!r}, this program reads {_SCHEMA_VERSION}")
        return {name: tuple(entry["file_path"] for entry in entries) for name, entries in record["captures"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a list of natural faults ({error})") from error
