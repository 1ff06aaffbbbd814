"""Vision transformers: timm's network, DINO's position interpolation and start."""

import sys

import pytest
import torch
import torch.nn.functional as F
from timm.models import vision_transformer
from torch import nn

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.pretrain.backbones.vit import VITS, build_vit, position_embedding

LEVELS = ["block4", "block8", "block12"]


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_vit("vit_small").eval()


@pytest.fixture(scope="module")
def loud():
    """The same with larger weights: every block and position changes the output by far."""
    torch.manual_seed(1)
    network = build_vit("vit_small").double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return network


@pytest.fixture(scope="module")
def timms(loud):
    network = vision_transformer.vit_small_patch16_224(num_classes=0).double().eval()
    network.load_state_dict(loud.state_dict())  # strict: the names are timm's
    return network


def interpolated(embedding, grid):
    """DINO's way, for a pretraining grid of 14 × 14: [1, 197, C] -> [1, 1 + h·w, C]."""
    patches = embedding[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    scale = tuple((side + 0.1) / 14 for side in grid)
    patches = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    assert patches.shape[2:] == grid
    return torch.cat([embedding[:, :1], patches.flatten(2).transpose(1, 2)], 1)


# The forward pass --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(VITS))
def test_names_and_shapes_are_timms(name):
    with torch.device("meta"):
        network = build_vit(name)
        reference = getattr(vision_transformer, VITS[name])(num_classes=0)
    shapes, expected = (
        {n: t.shape for n, t in m.state_dict().items()} for m in (network, reference)
    )
    assert shapes == expected and len(shapes) == 150
    width = {"vit_tiny": 192, "vit_small": 384, "vit_base": 768}[name]
    assert network.channels == dict.fromkeys(LEVELS, width)


def test_at_224_the_output_is_timms(loud, timms):
    images = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        levels, tokens = loud(images), timms.forward_features(images)
    patches = levels["block12"].flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches, tokens[:, 1:], rtol=0, atol=1e-10)
    torch.testing.assert_close(levels["cls"], tokens[:, 0], rtol=0, atol=1e-10)


def test_levels_are_intermediate_layers_behind_the_shared_norm(loud, timms):
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        levels = loud(images)
        expected = timms.get_intermediate_layers(images, n=[3, 7, 11], reshape=True, norm=True)
    for level, features in zip(LEVELS, expected, strict=True):
        torch.testing.assert_close(levels[level], features, rtol=0, atol=1e-10)


def test_another_size_is_timms_with_the_interpolated_embedding(loud):
    images = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        patches = loud.patch_embed.proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([loud.cls_token.expand(2, -1, -1), patches], 1)
        tokens = loud.norm(loud.blocks(tokens + interpolated(loud.pos_embed, (6, 4))))
        levels = loud(images)
    torch.testing.assert_close(levels["cls"], tokens[:, 0], rtol=0, atol=1e-10)
    expected = tokens[:, 1:].transpose(1, 2).reshape(2, 384, 6, 4)
    torch.testing.assert_close(levels["block12"], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("side", "grid"), [(224, 14), (96, 6), (104, 6)])
def test_shapes(small, side, grid):
    with torch.no_grad():
        levels = small(torch.randn(2, 3, side, side))
    assert {name: tuple(f.shape) for name, f in levels.items()} == {
        **dict.fromkeys(LEVELS, (2, 384, grid, grid)),
        "cls": (2, 384),
    }


# Positions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(6, 6), (3, 9), (20, 31)])
def test_positions_are_dinos_bicubic_with_the_tenth(grid):
    embedding = torch.randn(1, 197, 5, dtype=torch.float64)
    ours, expected = position_embedding(embedding, (14, 14), grid), interpolated(embedding, grid)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    plain = F.interpolate(
        embedding[:, 1:].reshape(1, 14, 14, 5).permute(0, 3, 1, 2), size=grid, mode="bicubic"
    )
    assert (ours[:, 1:].transpose(1, 2).unflatten(2, grid) - plain).abs().max() > 0.01


def test_positions_of_the_same_grid_are_the_embedding_itself(small):
    assert position_embedding(small.pos_embed, (14, 14), (14, 14)) is small.pos_embed
    # As many positions in another shape are not the same grid.
    assert not torch.equal(position_embedding(small.pos_embed, (14, 14), (7, 28)), small.pos_embed)


def test_positions_keep_their_precision_under_autocast(small):
    exact = interpolated(small.pos_embed.double(), (6, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        ours = position_embedding(small.pos_embed, (14, 14), (6, 6))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-8)


def test_the_gradient_of_the_positions():
    embedding = torch.randn(1, 17, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: position_embedding(e, (4, 4), (3, 5)), embedding)


def test_small_crops_train_every_parameter_positions_included(small):
    small(torch.randn(2, 3, 96, 96))["cls"].square().sum().backward()
    gradients = {name: p.grad for name, p in small.named_parameters()}
    small.zero_grad()
    assert [name for name, g in gradients.items() if g is None or not g.abs().sum() > 0] == []
    assert (gradients["pos_embed"].abs().sum(-1) > 0).all()  # at each of the 197 positions


# The start ---------------------------------------------------------------------------------------


def test_the_start_is_dinos(small):
    linear = torch.cat([m.weight.flatten() for m in small.modules() if isinstance(m, nn.Linear)])
    for values, tolerance in (
        (linear, 1e-4),
        (small.pos_embed, 1e-3),
        (small.cls_token, 4e-3),
    ):
        assert values.std().item() == pytest.approx(0.02, abs=tolerance)
        assert abs(values.mean().item()) < tolerance
    for module in small.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            assert (module.bias == 0).all()
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and module.eps == 1e-6
    bound = (3 * 16 * 16) ** -0.5  # torch's convolution: uniform in ±1/√fan_in
    for values in (small.patch_embed.proj.weight, small.patch_embed.proj.bias):
        assert values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_the_seed_decides_the_start(small):
    torch.manual_seed(0)
    again = build_vit("vit_small").state_dict()
    assert all(torch.equal(again[name], t) for name, t in small.state_dict().items())


# Stochastic depth --------------------------------------------------------------------------------


def test_blocks_are_dropped_in_training_only():
    torch.manual_seed(0)
    network = build_vit("vit_small", drop_path=0.5)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        outputs = [network(images)["cls"] for _ in range(2)]
        assert not torch.equal(*outputs)
        network.eval()
        assert torch.equal(*(network(images)["cls"] for _ in range(2)))
        kept = build_vit("vit_small").eval()
        kept.load_state_dict(network.state_dict())
        assert torch.equal(kept(images)["cls"], network(images)["cls"])


def test_the_rate_grows_evenly_from_the_first_block_to_the_last():
    with torch.device("meta"):
        network = build_vit("vit_small", drop_path=0.11)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in network.blocks]
    assert rates == pytest.approx([0.01 * number for number in range(12)])
    assert rates == [getattr(block.drop_path2, "drop_prob", 0.0) for block in network.blocks]


# Refusals ----------------------------------------------------------------------------------------


def test_unknown_names_and_rates_are_refused():
    with pytest.raises(InputError, match="Did you mean 'vit_small'"):
        build_vit("vit_smal")
    with pytest.raises(InputError, match="0 <= drop_path < 1"):
        build_vit("vit_small", drop_path=1.0)


def test_without_timm_the_message_says_what_mends_it(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoTimm(), *sys.meta_path])
    with pytest.raises(EnvironmentLacks, match="pip install 'timm"):
        build_vit("vit_small")


class NoTimm:
    def find_spec(self, name, path=None, target=None):
        if name == "timm":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
