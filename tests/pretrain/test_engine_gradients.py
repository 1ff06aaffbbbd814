"""Clipping every gradient by its own norm, against DINO's numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from densessl.core.errors import InputError
from densessl.pretrain import config
from densessl.pretrain.engine.gradients import clip_each_, clip_norm_

GOLDEN = Path(__file__).parents[1] / "golden" / "dino" / "clip_and_freeze.npz"


def with_gradient(gradient):
    parameter = torch.zeros_like(gradient).requires_grad_()
    parameter.grad = gradient.clone()
    return parameter


def test_gradients_are_clipped_as_in_the_official_code():
    golden = np.load(GOLDEN)
    names = [n.removeprefix("grad_before__") for n in golden.files if "grad_before" in n]
    parameters = [with_gradient(torch.from_numpy(golden[f"grad_before__{n}"])) for n in names]
    limit = float(golden["clip"])
    assert (golden["norms"] > limit).any() and (golden["norms"] < limit).any()
    clip_each_(parameters, limit)
    for name, parameter in zip(names, parameters, strict=True):
        expected = torch.from_numpy(golden[f"grad_after__{name}"])
        torch.testing.assert_close(parameter.grad, expected, atol=1e-6, rtol=0)


def test_each_is_scaled_by_its_own_norm_and_short_ones_not_at_all():
    short, long = torch.tensor([0.3, -0.4]), torch.tensor([[30.0], [40.0]]).double()
    parameters = [with_gradient(short), with_gradient(long), torch.ones(3, requires_grad=True)]
    clip_each_(iter(parameters), 2.0)
    assert torch.equal(parameters[0].grad, short)
    torch.testing.assert_close(parameters[1].grad, long / 25, rtol=1e-6, atol=0)
    assert parameters[2].grad is None


def test_a_zero_gradient_stays_zero_and_no_gradient_at_all_is_no_error():
    zero = with_gradient(torch.zeros(4))
    clip_each_([zero], 0.1)
    assert (zero.grad == 0).all()
    clip_each_([torch.ones(2, requires_grad=True)], 0.1)
    clip_each_([], 0.1)


@pytest.mark.parametrize("limit", [0.0, -3.0, float("nan")])
def test_a_limit_that_is_not_positive_is_refused(limit):
    with pytest.raises(InputError, match="the limit is"):
        clip_each_([with_gradient(torch.ones(2))], limit)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_the_common_norm_is_clipped_as_torch_clips_it(limit):
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])]
    ours, theirs = ([with_gradient(each.clone()) for each in gradients] for _ in range(2))
    torch.nn.utils.clip_grad_norm_(theirs, limit)
    clip_norm_(ours, torch.tensor(13.0), limit)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5)
    with pytest.raises(InputError, match="clip_norm_"):
        clip_norm_(ours, torch.tensor(13.0), 0.0)


def test_gradients_are_clipped_one_way():
    cfg = config.defaults()
    cfg.DATA.PATH = "images"
    cfg.SOLVER.CLIP_NORM, cfg.SOLVER.CLIP_EACH = 1.0, 3.0
    with pytest.raises(InputError, match="CLIP_NORM is 1; allowed with SOLVER.CLIP_EACH 3: 0"):
        config.validate(cfg)
