"""Joint fine-tuning, piece by piece: the objective, what moves rays, what weights losses, the way back."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nerfstudio.cameras.cameras import Cameras
from torch import nn

from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelConfig
from mtcm_nerfstudio.nerf.joint.free_energy import free_energy, optimal_logit, relative_cost
from mtcm_nerfstudio.nerf.joint.hook import JointHook
from mtcm_nerfstudio.nerf.joint.joint_input import JointInput
from mtcm_nerfstudio.nerf.joint.joint_transformer import JointTransformer, NerfFeedback, ridge
from mtcm_nerfstudio.nerf.joint.photometric import (
    FrameLosses,
    moved_c2w,
    moved_camera,
    moved_rays,
    weight_image_loss,
    weighted,
)
from mtcm_nerfstudio.nerf.joint.settings import JointSettings

FRAMES = 7
logits = st.lists(st.floats(-5.0, 5.0), min_size=3, max_size=3)


@given(logits, st.lists(st.floats(0.0, 8.0), min_size=3, max_size=3), logits, st.floats(0.1, 3.0))
def test_the_free_energy_is_smallest_where_the_formula_says(prior, cost, other, temperature):
    prior, cost = torch.tensor(prior, dtype=torch.float64), torch.tensor(cost, dtype=torch.float64)
    best = optimal_logit(prior, cost, 3.0, temperature).clamp(-30, 30).requires_grad_()
    lowest = free_energy(best, prior, cost, 3.0, temperature)
    lowest.backward()
    assert best.grad.abs().max() < 1e-6
    elsewhere = best.detach() + torch.tensor(other, dtype=torch.float64)
    assert free_energy(elsewhere, prior, cost, 3.0, temperature) >= lowest - 1e-9


def test_what_costs_as_much_as_a_stranger_keeps_its_prior_and_an_ordinary_frame_gains():
    prior = torch.tensor([0.5, -1.0])
    torch.testing.assert_close(optimal_logit(prior, torch.tensor([3.0, 3.0]), 3.0, 0.5), prior)
    assert (optimal_logit(prior, torch.tensor([1.0, 1.0]), 3.0, 0.5) > prior + 3).all()


def test_costs_are_in_units_of_the_median_and_unknown_frames_decide_nothing():
    loss = torch.tensor([1.0, 2.0, 4.0, 100.0])
    known = torch.tensor([True, True, True, False])
    assert relative_cost(loss, known, 3.0).tolist() == [0.5, 1.0, 2.0, 3.0]
    assert relative_cost(7.0 * loss, known, 3.0).tolist() == [0.5, 1.0, 2.0, 3.0]
    assert relative_cost(loss, torch.zeros(4, dtype=torch.bool), 3.0).tolist() == [3.0] * 4


def cameras(count: int = 2) -> Cameras:
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(count, 3, 3)))
    c2w = np.concatenate([rotation * np.linalg.det(rotation)[:, None, None], [[[0.3], [1.0], [-2.0]]] * count], axis=2)
    return Cameras(torch.tensor(c2w, dtype=torch.float32), 20.0, 20.0, 8.0, 6.0, 16, 12)


def test_rays_of_a_moved_camera_are_the_moved_rays():
    before, twist = cameras(), torch.tensor([[0.1, -0.2, 0.05, 0.3, 0.1, -0.4], [0.0, 0.1, 0.0, 0.0, 0.02, 0.0]])
    for i in range(2):
        camera = before[i : i + 1]
        rays = camera.generate_rays(0).flatten()
        moved = moved_rays(rays, twist[i : i + 1].expand(len(rays), 6))
        expected = moved_camera(camera, twist[i : i + 1]).generate_rays(0).flatten()
        torch.testing.assert_close(moved.origins, expected.origins)
        torch.testing.assert_close(moved.directions, expected.directions)
    c2w = moved_c2w(before.camera_to_worlds, twist)
    torch.testing.assert_close(c2w[0], moved_camera(before[:1], twist[:1]).camera_to_worlds[0])
    torch.testing.assert_close(before.camera_to_worlds, cameras().camera_to_worlds, msg="the camera itself stays")


def test_a_correction_of_nothing_moves_nothing():
    rays = cameras().generate_rays(0).flatten()
    moved = moved_rays(rays, torch.zeros(len(rays), 6))
    torch.testing.assert_close(moved.directions, rays.directions, rtol=0, atol=1e-6)
    torch.testing.assert_close(moved.origins, rays.origins, rtol=0, atol=0)


class Nerf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rgb_loss = nn.MSELoss()


def test_losses_are_weighted_by_frame_and_known_by_frame():
    model, losses = Nerf(), FrameLosses(3, memory=0.5)
    inner, frames = model.rgb_loss, torch.tensor([0, 0, 2, 2])
    truth, seen = torch.zeros(4, 3), torch.tensor([[1.0] * 3, [2.0] * 3, [3.0] * 3, [1.0] * 3])
    with weighted(model, frames, torch.ones(4), losses):
        torch.testing.assert_close(model.rgb_loss(truth, seen), inner(truth, seen))
    with weighted(model, frames, torch.tensor([1.0, 1.0, 0.0, 0.0]), losses):
        assert float(model.rgb_loss(truth, seen)) == pytest.approx((1 + 4) / 4)
    assert model.rgb_loss is inner
    losses.settle()
    assert losses.average[0] == 2.5 and losses.average[2] == 5.0 and losses.average[1].isnan()
    assert losses.times.tolist() == [2.0, 0.0, 2.0] and losses.last[2] == 5.0
    losses.add(torch.tensor([0]), torch.tensor([4.5]))
    losses.settle()
    assert losses.average[0] == 3.5 and losses.average[2] == 5.0


def test_a_model_whose_loss_cannot_be_weighted_is_refused_by_name():
    nothing = weighted(nn.Linear(1, 1), torch.zeros(1, dtype=torch.long), torch.ones(1), FrameLosses(1, 0.5))
    with pytest.raises(ValueError, match=r"Linear has no rgb_loss.*joint.enabled"), nothing:
        pass
    with pytest.raises(ValueError, match="scale_reg"):
        weight_image_loss({"scale_reg": torch.zeros(())}, 0, torch.ones(()), FrameLosses(1, 0.5))


def test_the_loss_of_an_image_is_weighted_and_noted():
    losses, parts = FrameLosses(2, 0.5), {"main_loss": torch.tensor(0.8), "scale_reg": torch.tensor(0.1)}
    weight_image_loss(parts, 1, torch.tensor(0.5), losses)
    assert float(parts["main_loss"]) == pytest.approx(0.4) and float(parts["scale_reg"]) == pytest.approx(0.1)
    losses.settle()
    assert losses.average[1] == pytest.approx(0.8) and losses.average[0].isnan()


def small_joint(blurred: torch.Tensor | None = None, **changes) -> JointTransformer:
    torch.manual_seed(0)
    settings = JointSettings(start=2, every=2, **changes)
    # There is no evidence here; without fixed sizes the random weights would change with every new number of it.
    sizes = ModelConfig(d_model=32, layers=1, heads=2, feed_forward=32, frame_numbers=92, pair_numbers=17)
    model = ConsistencyTransformer(sizes).eval()
    joint = JointTransformer(model, CheckpointCard("small", "efficientnet-lite0", "1"), FRAMES, settings)
    places = torch.stack([torch.arange(5), torch.arange(2, 7)])
    blurred = torch.zeros(FRAMES) if blurred is None else blurred
    joint.begin(JointInput(torch.randn(2, 5, 394), torch.ones(2, 5, 5, dtype=torch.bool), places, None, blurred))
    return joint


def test_what_lies_in_two_windows_gets_the_mean_of_both():
    joint_input = small_joint().joint_input
    values = torch.arange(10.0).reshape(2, 5)
    assert joint_input.mean_over_windows(values, FRAMES).tolist() == [0.0, 1.0, 3.5, 4.5, 5.5, 8.0, 9.0]


def test_it_begins_with_the_transformers_own_word_and_poses_as_they_are():
    joint = small_joint()
    torch.testing.assert_close(joint.weight, torch.sigmoid(joint.prior))
    assert not joint.twist.any() and not joint.train(True).transformer.training


def test_a_blurred_frame_begins_with_less_weight():
    blurred = torch.tensor([0.0, 0.0, 0.0, 0.9, 0.0, 1.0, 0.0])
    plain, found = small_joint(), small_joint(blurred)
    sharp = blurred == 0
    torch.testing.assert_close(found.weight[sharp], plain.weight[sharp])
    torch.testing.assert_close(found.weight[3], 0.1 * plain.weight[3], rtol=1e-3, atol=1e-5)
    assert found.weight[5] < 0.01 and torch.isfinite(found.prior).all()


def rehearse(joint: JointTransformer, loss_of, steps: int = 240, lr: float = 3e-3) -> JointHook:
    """Train beside a NeRF whose loss is a function of (corrections by frame, step)."""
    hook = JointHook(joint, None, 1)
    optimizer = torch.optim.Adam(joint.parameters(), lr=lr)
    frames = torch.arange(FRAMES)
    for step in range(steps):
        optimizer.zero_grad()
        hook.before_step(step)
        losses = loss_of(hook._now())
        joint.losses.add(frames, losses)
        if losses.requires_grad:
            ((hook.weight / hook.weight.mean())[frames] * losses).mean().backward()
        optimizer.step()
        hook.after_step(step)
    return hook


def test_the_photometric_loss_reaches_the_transformer_which_finds_the_weights_of_the_formula():
    joint = small_joint(corrections=False, reconstruction=0.0)
    first = copy.deepcopy(joint.transformer.state_dict())
    losses = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.2, 5.0, 0.8])
    rehearse(joint, lambda twist: losses + 0.0 * twist.sum())
    wanted = torch.sigmoid(optimal_logit(joint.prior, losses, 3.0, 0.5))
    assert (joint.weight - wanted).abs().max() < 0.05 and joint.weight[5] < 0.1
    changed = [name for name, value in joint.transformer.state_dict().items() if not torch.equal(value, first[name])]
    assert any("layers.0" in name for name in changed) and any("judge" in name for name in changed)


def test_the_slope_of_the_nerf_leads_each_frame_to_its_own_correction():
    joint = small_joint(weights=False, correction_penalty=0.0, turn_scale=0.05, shift_scale=0.05)
    wanted = 0.02 * torch.randn(FRAMES, 6)
    wanted -= wanted.mean(dim=0)
    rehearse(joint, lambda twist: (twist - wanted).square().sum(dim=1), lr=2e-3)
    assert (joint.twist - wanted).norm() < 0.3 * wanted.norm()
    assert torch.equal(joint.weight, torch.ones(FRAMES))


def test_a_camera_whose_pose_is_sure_hardly_moves():
    joint = small_joint(weights=False, correction_penalty=0.0, turn_scale=0.05, shift_scale=0.05)
    joint.doubt.fill_(0.02)
    joint.doubt[3] = 1.0
    wanted = 0.02 * torch.randn(FRAMES, 6)
    rehearse(joint, lambda twist: (twist - wanted).square().sum(dim=1), lr=2e-3)
    others = torch.arange(FRAMES) != 3
    assert (joint.twist[3] - wanted[3]).norm() < 0.3 * wanted[3].norm()
    assert joint.twist[others].norm(dim=1).max() < 0.1 * wanted[others].norm(dim=1).mean()


def test_doubt_is_the_transformers_own():
    joint = small_joint()
    doubt = torch.sigmoid(joint.read().pose_logit).clamp(min=0.02)
    torch.testing.assert_close(joint.doubt, doubt)


def test_a_refresh_is_enough_to_say_what_is_best():
    joint = small_joint(corrections=False)
    cost = torch.tensor([1.0, 1.0, 0.9, 1.0, 1.2, 9.0, 2.9])
    with torch.no_grad():
        joint.update_weights(joint.read(), NerfFeedback(cost, torch.zeros(FRAMES, 6)))
    wanted = torch.sigmoid(optimal_logit(joint.prior, cost, 3.0, 0.5))
    assert (joint.weight - wanted).abs().max() < 0.05 and joint.weight[5] < 0.01


def test_the_last_layer_is_solved_as_near_as_it_goes():
    states, target = torch.randn(40, 8), torch.randn(40)
    exact = torch.linalg.lstsq(states, target[:, None]).solution[:, 0]
    torch.testing.assert_close(ridge(states, target), exact, atol=5e-3, rtol=0.0)
    assert ridge(torch.ones(3, 8), torch.ones(3)).isfinite().all()


def test_before_it_listens_and_after_it_stops_nothing_changes():
    joint = small_joint(stop=4)
    first = copy.deepcopy(joint.state_dict())
    hook = JointHook(joint, None, 1)
    for step in range(8):
        joint.zero_grad(set_to_none=True)
        logged = hook.before_step(step)
        assert bool(logged) == (step == 2), step
        joint.losses.add(torch.arange(FRAMES), (hook._now().square().sum(dim=1) + 1.0).detach())
        has_gradient = any(p.grad is not None for p in joint.parameters())
        assert has_gradient == (step == 2), step
        hook.after_step(step)
    torch.testing.assert_close(joint.weight, first["weight"], msg="the optimizer has not moved the transformer")


def test_settings_out_of_range_are_refused():
    for wrong in ({"every": 0}, {"temperature": 0.0}, {"memory": 1.0}, {"start": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            JointSettings(**wrong)
