import json

import numpy as np
import pytest
from PIL import Image
from tiny_capture import edit_transforms, names, orbit, write_identity, write_transforms

from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import load_embedder
from mtcm_nerfstudio.tokens.tokenise import tokens_of


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache.sqlite")


def test_every_frame_is_embedded_and_the_second_time_comes_from_the_cache(tmp_path, cache, monkeypatch):
    capture = read_capture(write_transforms(tmp_path / "a", orbit(5)))
    first = tokens_of(capture, cache=cache, progress=False)
    assert first.image_status == ("ok",) * 5
    assert first.tokens.present[:, :2].all()
    monkeypatch.setattr("mtcm_nerfstudio.tokens.tokenise.read_rgb", lambda path: pytest.fail(f"{path} was read again"))
    again = tokens_of(capture, cache=cache, progress=False)
    np.testing.assert_array_equal(again.tokens.tokens, first.tokens.tokens)


def test_images_that_are_missing_or_broken_are_said_to_be(tmp_path, cache):
    root = write_transforms(tmp_path / "a", orbit(5))
    (root / "images" / "frame_2.jpg").unlink()
    whole = (root / "images" / "frame_3.jpg").read_bytes()
    (root / "images" / "frame_3.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "images" / "frame_4.jpg").write_text("no image")
    found = tokens_of(read_capture(root), cache=cache, progress=False)
    assert found.image_status == ("ok", "missing image", "unreadable image", "unreadable image", "ok")
    assert found.tokens.present[:, 0].tolist() == [True, False, False, False, True]


def test_mask_areas_are_shares_of_the_image(tmp_path, cache):
    root = write_transforms(tmp_path / "a", orbit(3))
    (root / "masks").mkdir()
    mask = np.zeros((48, 64), np.uint8)
    mask[:12] = 255
    Image.fromarray(mask).save(root / "masks" / "m.png")
    (root / "masks" / "broken.png").write_bytes(b"no image")

    def edit(meta):
        for frame, path in zip(meta["frames"], ("masks/m.png", "masks/none.png", "masks/broken.png")):
            frame["mask_path"] = path

    edit_transforms(root, edit)
    for _ in range(2):  # the second time from the cache
        areas = tokens_of(read_capture(root), cache=cache, progress=False).raw.mask_areas
        assert areas[0] == 0.25 and np.isnan(areas[1:]).all()


def with_embeddings(data, who, count, backend):
    folder = data / "embeddings" / who
    folder.mkdir(parents=True)
    for i, name in enumerate(names(count)):
        np.save(folder / f"{name[:-4]}.npy", np.full(384, i + 1.0, np.float32))
    if backend:
        (folder / "backend.json").write_text(json.dumps({"backend": backend}))


def test_precomputed_embeddings_are_used_where_their_backend_is_stated(tmp_path, cache):
    data = write_identity(tmp_path / "d", "A", orbit(4))
    with_embeddings(data, "A", 4, "efficientnet-lite0")
    found = tokens_of(read_capture(data), cache=cache, progress=False)
    np.testing.assert_allclose(found.raw.embeddings, 1.0)
    assert found.image_status == ("ok",) * 4


@pytest.mark.parametrize("backend", [None, "dinov2-vits14"])
def test_embeddings_of_another_or_unknown_backend_are_computed_again(tmp_path, cache, backend):
    data = write_identity(tmp_path / "d", "A", orbit(4))
    with_embeddings(data, "A", 4, backend)
    capture = read_capture(data)
    found = tokens_of(capture, cache=cache, progress=False)
    image = Image.open(capture.frames[0].image_path).convert("RGB")
    expected = load_embedder("efficientnet-lite0").embed([image])[0]
    np.testing.assert_allclose(found.raw.embeddings[0], expected, atol=1e-3)
    assert tokens_of(capture, "precomputed", cache, False).raw.embeddings[0] == pytest.approx(np.ones(384))


def test_a_broken_image_is_found_even_where_its_embedding_is_given(tmp_path, cache):
    data = write_identity(tmp_path / "d", "A", orbit(4))
    with_embeddings(data, "A", 4, "efficientnet-lite0")
    (data / "raw_images" / "A" / "frame_2.jpg").write_text("no image")
    found = tokens_of(read_capture(data), cache=cache, progress=False)
    assert found.image_status[1] == "unreadable image"
