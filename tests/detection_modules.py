"""The modules of the detection benchmark, which lie among the scripts and not in the package."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@contextmanager
def imported() -> Iterator[SimpleNamespace]:
    pytest.importorskip("skimage")
    sys.path.insert(0, str(SCRIPTS))
    from benchmarks import capture_list, corruptions
    from benchmarks.detection import (
        captures,
        figures,
        forests,
        images,
        labelled_captures,
        methods,
        models,
        mtcm,
        prediction,
        repairs,
        tables,
    )

    yield SimpleNamespace(
        capture_list=capture_list, captures=captures, corruptions=corruptions, figures=figures, forests=forests,
        images=images, prediction=prediction, methods=methods, models=models, mtcm=mtcm, repairs=repairs, tables=tables,
        labelled_captures=labelled_captures,
    )  # fmt: skip
    sys.path.remove(str(SCRIPTS))
