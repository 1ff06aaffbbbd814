"""Backbones: torchvision's network and names; split batch norm as several processes do it."""

import pytest
import torch
import torchvision
from torch import nn

from densessl.core.errors import InputError
from densessl.pretrain.backbones import SplitBatchNorm2d, build_backbone
from densessl.pretrain.backbones.resnet import RESNETS


@pytest.mark.parametrize("name", sorted(RESNETS))
def test_levels_and_names_are_torchvisions(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, norm="BN")
    torch.manual_seed(0)
    reference = getattr(torchvision.models, name)()
    expected = {k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")}
    state = backbone.state_dict()
    assert state.keys() == expected.keys()
    reference.load_state_dict(state, strict=False)
    levels = backbone.eval()(torch.randn(1, 3, 64, 64))
    assert {n: f.shape[1] for n, f in levels.items()} == backbone.channels
    assert [f.shape[-1] for f in levels.values()] == [16, 8, 4, 2]

    x = torch.randn(2, 3, 64, 64)
    pooled = reference.eval().avgpool(backbone(x)["layer4"]).flatten(1)
    torch.testing.assert_close(reference.fc(pooled), reference(x))


def test_resnet50_has_the_318_tensors():
    assert len(build_backbone("resnet50").state_dict()) == 318


def test_zero_init_residual_makes_blocks_the_identity():
    backbone = build_backbone("resnet18", zero_init_residual=True)
    assert backbone.layer1[1].bn2.weight.abs().max() == 0


@pytest.mark.parametrize(("name", "norm"), [("resnet51", "BN"), ("resnet50", "SyncNB")])
def test_unknown_names_are_refused_with_the_nearest(name, norm):
    with pytest.raises(InputError, match="Did you mean"):
        build_backbone(name, norm)


def test_split_norm_is_batch_norm_of_each_group():
    torch.manual_seed(0)
    split = SplitBatchNorm2d(3, group_size=4).double()
    nn.init.normal_(split.weight)
    nn.init.normal_(split.bias)
    processes = [nn.BatchNorm2d(3).double() for _ in range(3)]
    for process in processes:
        process.load_state_dict(split.state_dict())
    x = torch.randn(12, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    y = split(x)
    expected = torch.empty_like(x)
    for rank, process in enumerate(processes):  # rank r of 3 holds samples r, r + 3, …
        expected[rank::3] = process(x[rank::3])
    torch.testing.assert_close(y, expected)
    for buffer in ("running_mean", "running_var"):
        mean = sum(getattr(process, buffer) for process in processes) / 3
        torch.testing.assert_close(getattr(split, buffer), mean)
    assert split.num_batches_tracked == 1

    gradient = torch.randn_like(y)
    ours = torch.autograd.grad(y, (x, split.weight, split.bias), gradient, retain_graph=True)
    weights = [process.weight for process in processes]
    biases = [process.bias for process in processes]
    theirs = torch.autograd.grad(expected, (x, *weights, *biases), gradient)
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], sum(theirs[1:4]))
    torch.testing.assert_close(ours[2], sum(theirs[4:7]))


def test_split_norm_evaluates_like_batch_norm_and_shares_its_state():
    torch.manual_seed(0)
    split, plain = SplitBatchNorm2d(3, group_size=2), nn.BatchNorm2d(3)
    split(torch.randn(8, 3, 4, 4))
    plain.load_state_dict(split.state_dict())
    x = torch.randn(7, 3, 4, 4)
    torch.testing.assert_close(split.eval()(x), plain.eval()(x))


def test_a_batch_of_one_group_is_plain_batch_norm():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4)
    torch.testing.assert_close(SplitBatchNorm2d(3, group_size=8)(x), nn.BatchNorm2d(3)(x))


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="does not split into groups of 4"):
        SplitBatchNorm2d(3, group_size=4)(torch.randn(6, 3, 2, 2))
