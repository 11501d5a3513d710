import os
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("steady", deadline=None)
hypothesis.settings.load_profile("steady")

os.environ.setdefault("MPLBACKEND", "Agg")

SHARED_CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures"


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache; within one run they share one, so images are embedded once."""
    monkeypatch.setenv("MTCM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """A thread of a viewer that outlives its test runs checked functions, and each check draws from ``random``."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("mtcm")]
    assert not left, f"the test left threads behind: {left}"


@pytest.fixture
def shared_captures() -> Path:
    if not SHARED_CAPTURES.is_dir():
        pytest.skip("needs the real captures in ../shared/captures")
    return SHARED_CAPTURES
