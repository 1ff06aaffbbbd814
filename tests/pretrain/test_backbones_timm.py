"""timm's networks, and every ResNet of torchvision's, as backbones to pretrain."""

import pytest
import timm
import torch

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.pretrain import config
from densessl.pretrain.backbones import SplitBatchNorm2d, build_backbone, strides_of
from densessl.pretrain.backbones.resnet import RESNETS
from densessl.pretrain.methods import build_method
from densessl.pretrain.views import View
from densessl.weight_files import timm_networks

PYRAMIDS = {  # small ones of each family
    "convnext": "test_convnext",
    "efficientnet": "test_efficientnet",
    "regnet": "regnetx_002",
    "swin": "swin_tiny_patch4_window7_224",
}
VIT = "timm/test_vit2"  # patches of 16, no class token, one register
STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
HEADS = ["MOCO.QUEUE", "16", "MOCO.DIM", "8", "MOCO.HIDDEN", "8", "SIMSIAM.DIM", "8"]
HEADS += ["SIMSIAM.HIDDEN", "8", "SIMSIAM.PREDICTOR_HIDDEN", "8", "DENSE.DIM", "8"]
HEADS += ["DENSE.HIDDEN", "8", "PIXPRO.DIM", "8", "PIXPRO.HIDDEN", "8", "SCFS.DIM", "8"]
HEADS += ["DINO.HIDDEN", "8", "DINO.BOTTLENECK", "8", "DINO.PROTOTYPES", "16", "BYOL.DIM", "8"]
HEADS += ["BYOL.HIDDEN", "8", "SWAV.PROTOTYPES", "8", "SWAV.DIM", "8", "SWAV.HIDDEN", "8"]


def views(count: int, size: int = 64) -> list[View]:
    box = torch.tensor([[0.0, 0.0, 80.0, 80.0], [10.0, 10.0, 90.0, 90.0]])
    flip, of = torch.tensor([False, True]), torch.full((2, 2), 100.0)
    return [View(torch.randn(2, 3, size, size), box, flip, of) for _ in range(count)]


@pytest.mark.parametrize(
    "family", [*list(PYRAMIDS)[:-1], pytest.param("swin", marks=pytest.mark.slow)]
)
def test_levels_are_timms_own_features(family):
    """``features_only`` builds another module of the same layers; it takes the same tensors."""
    name = PYRAMIDS[family]
    torch.manual_seed(0)
    backbone = build_backbone(f"timm/{name}", norm="BN").eval()
    size = 224 if family == "swin" else 96
    out_of = timm.create_model(name, features_only=True).feature_info.reduction()
    wanted = [index for index, stride in enumerate(out_of) if stride > 2]
    peer = timm.create_model(name, features_only=True, out_indices=wanted).eval()
    flattened = {name.replace(".", "_") for name, _ in peer.named_children()}
    peer.load_state_dict(  # strict
        {
            name.replace(".", "_", 1)
            if name.replace(".", "_", 1).split(".")[0] in flattened
            else name: tensor
            for name, tensor in backbone.state_dict().items()
        }
    )
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        levels, maps = backbone(images), peer(images)
    if family == "swin":
        maps = [each.permute(0, 3, 1, 2) for each in maps]  # this way it gives NHWC
    assert list(levels) == ["layer1", "layer2", "layer3", "layer4"]
    for level, expected in zip(levels.values(), maps, strict=True):
        torch.testing.assert_close(level, expected, rtol=0, atol=1e-5)
    assert backbone.strides == STRIDES == strides_of(f"timm/{name}")
    assert [*backbone.channels.values()] == peer.feature_info.channels()


def test_registers_are_no_positions_and_every_tensor_is_trained():
    backbone = build_backbone(VIT, drop_path=0.1).train()
    assert "reg_token" in backbone.state_dict()
    levels = backbone(torch.randn(2, 3, 96, 64))
    assert {name: tuple(each.shape[2:]) for name, each in levels.items()} == dict.fromkeys(
        backbone.channels, (6, 4)
    )
    assert set(backbone.strides.values()) == {16}
    sum(level.square().mean() for level in levels.values()).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_a_class_token_is_given_beside_the_maps():
    backbone = build_backbone("timm/test_vit").eval()
    peer = timm.create_model("test_vit", num_classes=0).eval()
    peer.load_state_dict(backbone.state_dict())  # strict: all of it, under timm's names
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        levels, tokens = backbone(images), peer.forward_features(images)
    assert list(levels) == ["block2", "block4", "block6", "cls"]
    torch.testing.assert_close(levels["cls"], tokens[:, 0], rtol=0, atol=1e-5)
    patches = levels["block6"].flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches, tokens[:, 1:], rtol=0, atol=1e-5)


def test_batch_norm_becomes_the_runs_own_and_keeps_its_activation():
    name = f"timm/{PYRAMIDS['efficientnet']}"
    torch.manual_seed(0)
    plain = timm_networks.build(name).eval()
    split = build_backbone(name, "split", group_size=2)
    kinds = {type(each) for each in split.modules() if isinstance(each, torch.nn.BatchNorm2d)}
    assert kinds == {SplitBatchNorm2d}
    split.load_state_dict(plain.state_dict())  # strict
    split.eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        for level, expected in plain(images).items():
            torch.testing.assert_close(split(images)[level], expected)
        before = split.train()(images)["layer4"]
        halves = [split(images[[n, n + 2]])["layer4"] for n in (0, 1)]
    torch.testing.assert_close(before[[0, 2]], halves[0])  # groups of two, each by itself
    torch.testing.assert_close(before[[1, 3]], halves[1])


@pytest.mark.parametrize("name", ["resnet34", "wide_resnet50_2", "resnext50_32x4d"])
def test_resnets_of_torchvision_have_four_levels(name):
    assert name in RESNETS
    with torch.device("meta"):
        backbone = build_backbone(name, norm="BN")
        levels = backbone(torch.zeros(1, 3, 64, 64))
    wide = 512 if name == "resnet34" else 2048
    assert backbone.channels["layer4"] == levels["layer4"].shape[1] == wide
    assert backbone.strides == strides_of(name) == STRIDES


@pytest.mark.parametrize("network", [VIT, "timm/test_convnext"])
@pytest.mark.parametrize(
    "method",
    ["moco", "simsiam", "byol", "simclr", "setsim", "densecl", "houghcl", "pixpro", "dino"]
    + ["swav", "scfs", "setsim_simsiam"],
)
def test_methods_train_on_it(method, network):
    last = [*strides_of(network)]
    words = ["BACKBONE.NAME", network, "METHOD.NAME", method, "VIEWS.SIZE", "64", *HEADS]
    words += ["SCFS.LEVELS", str(tuple(last[-2:])), "DATA.PATH", ".", "SOLVER.BATCH_SIZE", "2"]
    cfg = config.load("", words)
    config.validate(cfg)
    torch.manual_seed(0)
    built = build_method(cfg)
    built.before_step(0)
    loss = built(views(2), 0)["loss"]
    loss.backward()
    built.after_backward(0)
    built.after_step(0)
    assert torch.isfinite(loss)
    assert built.backbone.channels.keys() == dict.fromkeys(last).keys()
    weights = [p for p in built.backbone.parameters() if p.ndim > 1]
    moved = [p for p in weights if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(moved) == len(weights)


@pytest.mark.parametrize(
    "words, message",
    [
        (["timm/convnext_tny"], r"'timm/convnext_tny' in BACKBONE.NAME. .*mean 'timm/convnext_tin"),
        (["timm/mixer_b16_224"], r"VIEWS.SIZE is 96, which timm/mixer_b16_224 does not take"),
        (
            [VIT, "METHOD.NAME", "vader"],
            r"vader needs levels at the strides 4, 8, 16 and 32, and t",
        ),
        ([VIT, "METHOD.NAME", "scfs"], r"SCFS.LEVELS is .*must be some of \('block"),
        ([VIT, "VIEWS.SIZE", "100"], r"VIEWS.SIZE is 100, which .*divisible by patch size"),
        (["convnext_tiny"], r"'convnext_tiny' in BACKBONE.NAME.*timm/NAME"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(words, message):
    cfg = config.load("", ["DATA.PATH", ".", "VIEWS.SIZE", "96", "BACKBONE.NAME", *words])
    with pytest.raises(InputError, match=message):
        config.validate(cfg)


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    import sys

    class NoTimm:
        def find_spec(self, name, path=None, target=None):
            if name == "timm":
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoTimm(), *sys.meta_path])
    with pytest.raises(EnvironmentLacks, match=r"pip install 'densessl\[vit\]'"):
        build_backbone("timm/convnext_tiny")
