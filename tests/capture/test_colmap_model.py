"""The points of the model that belongs to a capture."""

import numpy as np
from tiny_capture import orbit, random_similarity, write_colmap, write_transforms

from mtcm_nerfstudio.capture.colmap_model import model_of, sparse_points
from mtcm_nerfstudio.capture.read import read_capture


def test_points_of_a_model_beside_a_transforms_json_are_in_the_captures_world(tmp_path):
    c2w = orbit(12)
    write_colmap(tmp_path / "model", c2w, text=True)
    lines = [f"{i} {i} {-i} 0.5 0 0 0 1.0 1 0 2 0\n" for i in range(1, 6)]
    (tmp_path / "model/sparse/0/points3D.txt").write_text("".join(lines))
    alone = sparse_points(read_capture(tmp_path / "model"))
    move = random_similarity(4)
    write_transforms(tmp_path / "model", move.move(c2w))
    capture = read_capture(tmp_path / "model")
    assert capture.source == "transforms"
    beside = sparse_points(capture)
    expected = move.scale * alone @ move.rotation.T + move.shift
    assert len(alone) == 5 and np.abs(beside - expected).max() < 1e-3 * move.scale


def test_a_model_of_another_reconstruction_has_no_points_for_the_capture(tmp_path):
    write_colmap(tmp_path, orbit(12))
    write_transforms(tmp_path, orbit(12)[np.random.default_rng(0).permutation(12)])
    capture = read_capture(tmp_path)
    assert model_of(capture) is not None and sparse_points(capture) is None


def test_a_model_that_nobody_asked_for_may_be_broken(tmp_path):
    write_colmap(tmp_path, orbit(12))
    write_transforms(tmp_path, orbit(12))
    (tmp_path / "sparse/0/images.bin").write_bytes(b"cut short")
    assert sparse_points(read_capture(tmp_path)) is None


def test_without_a_model_there_are_no_points(tmp_path):
    assert sparse_points(read_capture(write_transforms(tmp_path, orbit(5)))) is None
