"""Zero-shot words, with a small CLIP that was never trained: the way from picture and phrase to answer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_capture import orbit, write_transforms

from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.views.labels.zero_shot import classify_images

PHRASES = ("a cat", "the front", "the back of a head")


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory) -> Path:
    transformers = pytest.importorskip("transformers", reason="the extra clip is not installed")
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(i) for i in range(33, 127)]
    tokens = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(tokens), "eos_token_id": len(tokens) - 1, "bos_token_id": len(tokens) - 2}
    vision = {**small, "image_size": 64, "patch_size": 32}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    return folder


def test_every_picture_gets_the_phrase_that_clip_finds_likeliest(tiny_clip, tmp_path):
    transformers = pytest.importorskip("transformers")
    capture = read_capture(write_transforms(tmp_path / "capture", orbit(6)))
    capture.frames[2].image_path.unlink()
    capture.frames[4].image_path.write_bytes(b"no picture")
    cache = Cache(tmp_path / "cache.sqlite")
    words = classify_images(capture.frames, PHRASES, cache, progress=False, model=tiny_clip)
    assert words[2] is None and words[4] is None and set(words) - {None} <= set(PHRASES)
    network = transformers.CLIPModel.from_pretrained(tiny_clip).eval()
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(tiny_clip)
    image = (np.asarray(_picture(capture.frames[0])) / 255.0 - MEAN) / STD
    pixels = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
    text = tokenizer([f"a photo of {phrase}" for phrase in PHRASES], padding=True, return_tensors="pt")
    with torch.inference_mode():
        phrase_logits = network(pixel_values=pixels, **text).logits_per_image[0]
    assert words[0] == PHRASES[int(phrase_logits.argmax())]
    assert classify_images(capture.frames, PHRASES, cache, progress=False, model=tiny_clip) == words


def test_without_clip_it_says_what_to_do(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="MTCM_CLIP_MODEL"):
        classify_images((), PHRASES, Cache(tmp_path / "cache.sqlite"), progress=False, model=tmp_path)


MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


def _picture(frame):
    from PIL import Image

    return Image.open(frame.image_path).convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
