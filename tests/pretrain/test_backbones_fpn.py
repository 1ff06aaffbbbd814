"""FPN: Detectron2's names and numbers; batch norm of vectors over processes."""

import pytest
import torch
import torch.nn.functional as F

from densessl.pretrain.backbones import FPN
from densessl.weight_files import keys

CHANNELS = {"layer2": 6, "layer3": 8, "layer4": 10}


def levels(side=16):
    generator = torch.Generator().manual_seed(0)
    return {
        level: torch.randn(2, C, side // 2**n, side // 2**n, generator=generator)
        for n, (level, C) in enumerate(CHANNELS.items())
    }


def test_the_top_down_path_is_lateral_plus_upsampled_then_output():
    torch.manual_seed(0)
    fpn, maps = FPN(CHANNELS, ["layer2", "layer3"], 4), levels()
    found = fpn(maps)
    assert {level: m.shape for level, m in found.items()} == {
        "layer2": (2, 4, 16, 16),
        "layer3": (2, 4, 8, 8),
    }
    state = fpn.state_dict()

    def conv(name, x):
        weight = state[f"fpn_{name}.weight"]
        return F.conv2d(x, weight, state[f"fpn_{name}.bias"], padding=weight.shape[-1] // 2)

    top = conv("lateral5", maps["layer4"])
    middle = conv("lateral4", maps["layer3"]) + F.interpolate(top, scale_factor=2)
    low = conv("lateral3", maps["layer2"]) + F.interpolate(middle, scale_factor=2)
    torch.testing.assert_close(found["layer3"], conv("output4", middle))
    torch.testing.assert_close(found["layer2"], conv("output3", low))


@pytest.mark.parametrize(("norm", "tensors"), [("", 10), ("BN", 30)])
def test_its_tensors_have_names_that_detectron2_knows(norm, tensors):
    names = list(FPN(CHANNELS, ["layer2", "layer3"], 4, norm).state_dict())
    assert len(names) == tensors
    assert all(keys.fpn_to_detectron2(name) for name in names)


def test_convolutions_start_like_caffe2s_xavier():
    torch.manual_seed(0)
    weight = FPN(CHANNELS, ["layer2"], 64).fpn_output3.weight
    bound = (3 / (64 * 9)) ** 0.5  # kaiming_uniform with a = 1: sqrt(6 / (1 + a²) / fan_in)
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.99 * bound


def test_sides_that_do_not_double_are_refused():
    maps = levels() | {"layer4": torch.randn(2, 10, 5, 5)}
    with pytest.raises(ValueError, match="multiples of 32"):
        FPN(CHANNELS, ["layer2"], 4)(maps)
