"""What a run of ``ns-mtcm-process`` has done so far, so that the next one goes on from there."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtcm_nerfstudio.capture.process.input_images import InputImage
from mtcm_nerfstudio.capture.process.sfm import MappingResult
from mtcm_nerfstudio.decisions import write_text_atomically

_VERSION = 1


@dataclass(frozen=True)
class InputImages:
    """Input images to register, and the files that could not be decoded."""

    photos: tuple[InputImage, ...]
    unreadable: tuple[str, ...] = ()
    """Names of the files that could not be decoded."""


class Workspace:
    """The output folder: a half-finished one has no ``transforms.json`` and no model.

    ``colmap/process.json`` holds, for each stage that is complete, a digest of all that it depends on and its result.
    """

    def __init__(self, root: Path) -> None:
        """Open or create the folder.

        Raises:
            ValueError: the folder holds files that are not of this program's making.
        """
        self.root = root
        self.images = root / "images"
        self.masks = root / "masks"
        self.colmap = root / "colmap"
        self.model = root / "sparse" / "0"
        self.transforms = root / "transforms.json"
        self.points = root / "sparse_pc.ply"
        self._file = self.colmap / "process.json"
        if root.exists() and not root.is_dir():
            raise ValueError(f"{root}: is a file. Give --output-dir a new folder")
        if root.is_dir() and any(root.iterdir()) and not self._file.is_file():
            raise ValueError(f"{root}: is not empty, and not of ns-mtcm-process. Give --output-dir a new folder")
        self._stages: dict[str, Any] = self._read()
        if not self._file.is_file():
            self._write()

    def result(self, stage: str, key: str) -> Any:
        """Return what a stage left when it was completed under the same key, else None."""
        entry = self._stages.get(stage)
        return entry["result"] if entry is not None and entry["key"] == key else None

    def complete(self, stage: str, key: str, result: Any) -> None:
        """Note that a stage is complete."""
        self._stages[stage] = {"key": key, "result": result}
        self._write()

    def reopen(self) -> None:
        """Take back what makes the folder look like a finished capture."""
        self.transforms.unlink(missing_ok=True)
        shutil.rmtree(self.model.parent, ignore_errors=True)
        self.points.unlink(missing_ok=True)
        self._stages.pop("model", None)
        self._write()

    def remove_images(self) -> None:
        """Remove the pictures and all that was computed from them."""
        for folder in (self.images, self.masks):
            shutil.rmtree(folder, ignore_errors=True)
        self.forget_features()
        self._stages.clear()
        self._write()

    def forget_features(self) -> None:
        """Remove COLMAP's database."""
        for path in self.colmap.glob("database*"):
            path.unlink()
        self._stages.pop("features", None)
        self._write()

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record["stages"] if isinstance(record, dict) and record.get("version") == _VERSION else {}

    def _write(self) -> None:
        record = {"version": _VERSION, "stages": self._stages}
        write_text_atomically(self._file, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def digest(*parts: Any) -> str:
    """Return a digest of plain values (and of paths' names), the same on every run."""
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()


def file_facts(folder: Path, paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Return name, size and time of files below a folder: they change when the files do."""
    return [(p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]


def input_images_to_json(input_images: InputImages) -> dict[str, Any]:
    """Lay pictures out for ``process.json``."""
    return asdict(input_images)


def input_images_from_json(entry: Mapping[str, Any]) -> InputImages:
    """Undo ``input_images_to_json``."""
    return InputImages(tuple(InputImage(**input_image) for input_image in entry["photos"]), tuple(entry["unreadable"]))


def mapped_from_json(entry: Mapping[str, Any]) -> MappingResult:
    """Read what COLMAP made of the pictures from ``process.json``."""
    tuples = {key: tuple(entry[key]) for key in ("registered", "model_sizes")}
    return MappingResult(**{**entry, **tuples})
