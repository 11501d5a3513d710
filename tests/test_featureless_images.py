"""Images that show nothing: they go themselves, and take no good frame with them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.filtering import filter_capture
from mtcm_nerfstudio.tokens.cache import Cache

SHARE = 0.15


def copy_with_featureless_images(source: Path, target: Path, how: str) -> set[str]:
    """Lay a capture out again with some images black or blurred flat; returns their names."""
    meta = json.loads((source / "transforms.json").read_text())
    names = sorted(frame["file_path"] for frame in meta["frames"])
    chosen = set(np.random.default_rng(0).choice(names, round(SHARE * len(names)), replace=False).tolist())
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name not in chosen:
            path.symlink_to((source / name).resolve())
            continue
        with Image.open(source / name) as image:
            blank = Image.new("RGB", image.size) if how == "black" else image.filter(ImageFilter.GaussianBlur(60))
        blank.save(path)
    (target / "transforms.json").write_text(json.dumps(meta))
    return chosen


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("how", ["black", "flat"])
def test_images_without_features_cost_no_good_frame(how: str, tmp_path: Path, shared_captures: Path) -> None:
    chosen = copy_with_featureless_images(shared_captures / "fox", tmp_path / "fox", how)
    capture = read_capture(tmp_path / "fox")
    found = filter_capture(capture, FilterSettings(suggest=0), Cache(tmp_path / "cache.sqlite"), progress=False)
    dropped = {frame.file_path for frame in found.decisions.dropped}
    assert dropped <= chosen, "good frames were dropped"
    # A rule takes out what is black; of what is flat and grey the judge may leave one, as it must leave bare walls.
    assert len(dropped) >= len(chosen) - (how == "flat"), "the images that show nothing go"
