"""The capture that NeRFs train on in these tests."""

from pathlib import Path

import pytest
from joint_run import COUNT
from tiny_capture import orbit, write_transforms


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_transforms(tmp_path / "capture", orbit(COUNT))
