import os
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


@pytest.fixture
def shared_captures() -> Path:
    if not SHARED_CAPTURES.is_dir():
        pytest.skip("needs the real captures in ../shared/captures")
    return SHARED_CAPTURES
