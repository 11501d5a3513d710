import os
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtcm_nerfstudio.tokens.cache import Cache, default_cache_file


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache.sqlite")


@given(hnp.arrays(st.sampled_from([np.float32, np.float64, np.int64]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_arrays_come_back_bit_for_bit(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("cache") / "cache.sqlite"
    Cache(path).put("kind", "key", array)
    found = Cache(path).get("kind", "key")
    assert found.dtype == array.dtype and found.shape == array.shape and found.tobytes() == array.tobytes()


def test_kinds_and_keys_are_kept_apart(cache):
    cache.put("a", "x", np.ones(2))
    assert cache.get("b", "x") is None and cache.get("a", "y") is None


def test_a_digest_follows_the_content(cache, tmp_path):
    file, copy = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"one")
    copy.write_bytes(b"one")
    first = cache.content_digest(file)
    assert cache.content_digest(copy) == first
    file.write_bytes(b"three")
    assert cache.content_digest(file) != first
    os.utime(copy, ns=(1, 1))
    assert cache.content_digest(copy) == first


def test_read_only_makes_and_writes_nothing(tmp_path):
    path = tmp_path / "not there" / "cache.sqlite"
    cache = Cache(path, read_only=True)
    cache.put("kind", "key", np.ones(1))
    assert cache.get("kind", "key") is None
    assert not path.parent.exists()


def test_a_cache_that_cannot_be_used_costs_time_and_nothing_else(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"this is no database, and long enough to be told so by its header" * 10)
    with pytest.warns(UserWarning, match="cannot be used as a cache"):
        cache = Cache(path)
    cache.put("kind", "key", np.ones(1))
    assert cache.get("kind", "key") is not None
    assert path.read_bytes().startswith(b"this is no database")


def test_two_at_once(tmp_path):
    one, two = Cache(tmp_path / "c"), Cache(tmp_path / "c")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(50):
            one.put("kind", str(i), np.full(3, i))
            two.put("kind", str(i), np.full(3, i))
    assert two.get("kind", "7").tolist() == [7, 7, 7]


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("MTCM_CACHE", str(tmp_path))
    assert default_cache_file() == tmp_path / "cache.sqlite"
    monkeypatch.delenv("MTCM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_file() == tmp_path / "mtcm_nerfstudio" / "cache.sqlite"
