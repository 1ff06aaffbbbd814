"""LARS against its formula tensor by tensor, against SGD, and over an interruption."""

import copy

import pytest
import torch
from fvcore.common.config import CfgNode
from torch._subclasses.fake_tensor import FakeTensorMode

from densessl.core.errors import InputError
from densessl.pretrain.engine.optimizers import LARS, build_optimizer

SHAPES = [(4, 3, 3, 3), (6, 4), (4,), (6,)]
STEPS = 5


def tensors(seed: int, shapes=SHAPES, dtype=torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def set_gradients(parameters: list, seed: int) -> None:
    shapes = [p.shape for p in parameters]
    for p, g in zip(parameters, tensors(seed, shapes, parameters[0].dtype), strict=True):
        p.grad = g


def rate(step: int) -> float:
    return 0.5 / (1 + step)


def train(optimizer, parameters, first: int = 0, end: int = STEPS) -> None:
    """Steps whose gradients and rates are functions of the step."""
    for step in range(first, end):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        set_gradients(parameters, 100 + step)
        optimizer.step()


def reference(w, gradients, rates, decay, trust, adapt, momentum=0.9, eps=1e-8):
    """The weights after the steps, one tensor at a time, from the formula."""
    w, v = w.clone(), torch.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        g = g + decay * w
        norm_w, norm_g = float(w.square().sum().sqrt()), float(g.square().sum().sqrt())
        if adapt and norm_w > 0 and norm_g > 0:
            g = g * (trust * norm_w / (norm_g + eps))
        v = momentum * v + g
        w = w - lr * v
    return w


def test_equals_the_formula_tensor_by_tensor():
    """Tensors of one dimension, in a group of their own, without decay and adaptation."""
    start = tensors(0)
    parameters = [torch.nn.Parameter(w.clone()) for w in start]
    groups = [
        {"params": parameters[:2]},
        {"params": parameters[2:], "weight_decay": 0.0, "adapt": False},
    ]
    train(LARS(groups, lr=1.0, weight_decay=0.03, trust=0.02), parameters)
    rates = [rate(step) for step in range(STEPS)]
    gradients = zip(*[tensors(100 + step) for step in range(STEPS)], strict=True)
    for w, history, found in zip(start, gradients, parameters, strict=True):
        plain = w.ndim == 1
        expected = reference(w, history, rates, 0.0 if plain else 0.03, 0.02, not plain)
        torch.testing.assert_close(found.detach(), expected, rtol=1e-12, atol=1e-14)


def test_without_adaptation_it_is_sgd():
    ours = [torch.nn.Parameter(w) for w in tensors(0, dtype=torch.float32)]
    theirs = copy.deepcopy(ours)
    options = {"lr": 1.0, "momentum": 0.9, "weight_decay": 0.03}
    train(LARS([{"params": ours, "adapt": False}], **options), ours)
    train(torch.optim.SGD(theirs, **options), theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_the_size_of_a_gradient_does_not_matter_its_direction_does():
    """Why LARS: the first step has length lr · η |w| whatever the scale of the loss."""
    for scale in (1e-3, 1.0, 1e3):
        (w,) = tensors(0, [(6, 4)])
        (g,) = tensors(1, [(6, 4)])
        p = torch.nn.Parameter(w.clone())
        p.grad = scale * g
        LARS([p], lr=2.0, trust=0.01).step()
        expected = w - 2.0 * 0.01 * w.norm() * g / g.norm()
        torch.testing.assert_close(p.detach(), expected, rtol=1e-4, atol=1e-6)


def test_zero_weights_take_the_plain_step_and_zero_gradients_none():
    zero, still = torch.nn.Parameter(torch.zeros(3, 2)), torch.nn.Parameter(torch.ones(3, 2))
    (g,) = tensors(1, [(3, 2)], torch.float32)
    zero.grad, still.grad = g, torch.zeros(3, 2)
    LARS([zero, still], lr=0.1, trust=0.5).step()
    torch.testing.assert_close(zero.detach(), -0.1 * g)
    assert torch.equal(still, torch.ones(3, 2))


def test_parameters_without_a_gradient_rest_and_join_later():
    parameters = [torch.nn.Parameter(w) for w in tensors(0)]
    resting = parameters[1].detach().clone()
    optimizer = LARS(parameters, lr=0.1, weight_decay=0.1)
    set_gradients(parameters, 5)
    parameters[1].grad = None
    optimizer.step()
    assert torch.equal(parameters[1], resting) and parameters[1] not in optimizer.state
    set_gradients(parameters, 6)
    optimizer.step()
    assert not torch.equal(parameters[1], resting)
    gradient = tensors(6)[1]
    expected = reference(resting, [gradient], [0.1], 0.1, 0.001, adapt=True)
    torch.testing.assert_close(parameters[1].detach(), expected, rtol=1e-12, atol=1e-14)


def test_gradients_are_left_as_they_were():
    parameters = [torch.nn.Parameter(w) for w in tensors(0)]
    set_gradients(parameters, 5)
    LARS(parameters, lr=0.1, weight_decay=0.1).step()
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, tensors(5), strict=True))


def test_a_run_in_two_parts_is_the_whole_run_bit_for_bit(tmp_path):
    def build():
        parameters = [torch.nn.Parameter(w) for w in tensors(0, dtype=torch.float32)]
        plain = {"params": parameters[2:], "adapt": False, "weight_decay": 0.0, "fixed_lr": True}
        return parameters, LARS([{"params": parameters[:2]}, plain], 1.0, weight_decay=0.01)

    whole, optimizer = build()
    train(optimizer, whole)
    first, optimizer = build()
    train(optimizer, first, end=2)
    torch.save([first, optimizer.state_dict()], tmp_path / "state.pth")

    second, optimizer = build()
    saved, state = torch.load(tmp_path / "state.pth", weights_only=True)
    with torch.no_grad():
        for p, value in zip(second, saved, strict=True):
            p.copy_(value)
    optimizer.load_state_dict(state)
    train(optimizer, second, first=2)
    assert all(torch.equal(a, b) for a, b in zip(second, whole, strict=True))


def test_a_step_reads_no_number_from_the_device():
    """A fake tensor has no values: whatever asks for one (``.item()``, ``if``) would raise."""
    with FakeTensorMode():
        parameters = [torch.nn.Parameter(torch.empty(shape)) for shape in SHAPES]
        for p in parameters:
            p.grad = torch.empty(p.shape)
        LARS(parameters, lr=0.1, weight_decay=0.1).step()


def test_a_closure_is_evaluated_with_gradients():
    p = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert (p < 1).all()


# The optimizer of a config ------------------------------------------------------------------------


def solver(name: str) -> CfgNode:
    options = {"OPTIMIZER": name, "MOMENTUM": 0.8, "WEIGHT_DECAY": 0.02, "LARS_TRUST": 0.005}
    return CfgNode(options)


@pytest.mark.parametrize("name, kind", [("sgd", torch.optim.SGD), ("lars", LARS)])
def test_options_and_groups_arrive(name, kind):
    parameters = [torch.nn.Parameter(w) for w in tensors(0)]
    groups = [
        {"params": parameters[:2], "fixed_lr": False},
        {"params": parameters[2:], "weight_decay": 0.0, "adapt": False, "fixed_lr": True},
    ]
    optimizer = build_optimizer(solver(name), groups, lr=3.0)
    assert type(optimizer) is kind
    weights, plain = optimizer.param_groups
    assert weights["lr"] == plain["lr"] == 3.0
    assert weights["momentum"] == plain["momentum"] == 0.8
    assert (weights["weight_decay"], plain["weight_decay"]) == (0.02, 0.0)
    assert (weights["fixed_lr"], plain["fixed_lr"]) == (False, True)
    assert plain["adapt"] is False
    if name == "lars":
        assert weights["adapt"] is True and weights["trust"] == plain["trust"] == 0.005


def test_an_unknown_optimizer_names_the_nearest():
    with pytest.raises(InputError, match="larss.*'lars'"):
        build_optimizer(solver("larss"), [], lr=1.0)
