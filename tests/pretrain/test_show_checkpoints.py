"""Checkpoints that ``densessl pretrain`` did not write: what becomes of their tensors."""

import collections
from functools import partial

import pytest
import torch
from PIL import Image
from torchvision.models import resnet18, resnet34, resnet50

from densessl.core.errors import InputError
from densessl.pretrain import show
from densessl.pretrain.show.checkpoint import converted, load, read
from densessl.pretrain.show.look import look_at
from densessl.pretrain.show.picture import draw_picture

FACTS = {
    "method": "moco",
    "network": "resnet34",
    "channel_order": "RGB",
    "stride_in_1x1": False,
    "normalization": {"pixel_mean": [25.5, 51.0, 76.5], "pixel_std": [51.0, 102.0, 127.5]},
}


def backbone_of(network):
    """A network's state as conversions write it, with values that would show a mistake."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}


def state(original, **facts):
    held = collections.OrderedDict(backbone_of(original))
    held.densessl = FACTS | facts
    return held


def levels(network, x):
    """The levels of torchvision's own network."""
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    found = {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = found[name] = getattr(network, name)(x)
    return found


@torch.no_grad()
def test_a_converted_network_computes_what_the_original_does():
    network = resnet34().eval()  # a depth that pretraining does not offer
    model = converted("some/file.pth", state(network))
    assert (model.name, model.method, model.network) == ("file.pth", "moco", "resnet34")
    assert model.mean == pytest.approx((0.1, 0.2, 0.3))
    assert model.std == pytest.approx((0.2, 0.4, 0.5))
    x = torch.rand(1, 3, 64, 64)
    for level, expected in levels(network, x).items():
        torch.testing.assert_close(model.backbone(x)[level], expected)


@torch.no_grad()
def test_a_network_of_caffe_takes_rgb_and_keeps_its_strides():
    """Detectron2's zoo: BGR images of 0–255, strides in the 1×1 convolutions."""
    network = resnet50().eval()
    images = {"pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0, 1.0, 1.0]}
    facts = {
        "network": "resnet50",
        "channel_order": "BGR",
        "stride_in_1x1": True,
        "normalization": images,
    }
    model = converted("R-50.pkl", state(network, **facts))
    for layer in (network.layer2, network.layer3, network.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    rgb = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    column = partial(torch.tensor, dtype=torch.float64)
    bgr = 255 * rgb.flip(1) - column(images["pixel_mean"]).view(3, 1, 1)
    mean, std = (column(each).view(3, 1, 1) for each in (model.mean, model.std))
    ours = model.backbone.double()((rgb - mean) / std)["layer4"]
    torch.testing.assert_close(ours, levels(network.double(), bgr)["layer4"])


@pytest.fixture
def image(tmp_path):
    Image.linear_gradient("L").save(tmp_path / "ramp.png")
    return tmp_path / "ramp.png"


def moco(network):
    """The official MoCo layout of a network, query beside momentum encoder."""
    tensors = {}
    for name, value in backbone_of(network).items():
        tensors[f"module.encoder_q.{name}"] = value
        tensors[f"module.encoder_k.{name}"] = torch.zeros_like(value)
    for side in "qk":
        tensors[f"module.encoder_{side}.fc.0.weight"] = torch.zeros(512, 512)
        tensors[f"module.encoder_{side}.fc.0.bias"] = torch.zeros(512)
        tensors[f"module.encoder_{side}.fc.2.weight"] = torch.zeros(128, 512)
        tensors[f"module.encoder_{side}.fc.2.bias"] = torch.zeros(128)
    tensors["module.queue"] = torch.zeros(128, 64)
    tensors["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    return {"epoch": 200, "arch": "resnet18", "state_dict": tensors}


def require_picture(checkpoint, image, network):
    """The file's backbone is the network, and there is a picture of what it sees."""
    model = load(str(checkpoint))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = levels(network.eval(), x)["layer4"]
        torch.testing.assert_close(model.backbone(x)["layer4"], expected)
    look = look_at(model, image, 64, 0, "layer4", ("houghcl",))
    draw_picture(look, ("houghcl",), image.with_name("out.png"), "png", 30)
    assert image.with_name("out.png").stat().st_size > 10000


def test_a_checkpoint_of_moco(tmp_path, image):
    network = resnet18()
    torch.save(moco(network), tmp_path / "moco.pth.tar")
    require_picture(tmp_path / "moco.pth.tar", image, network)


@pytest.mark.slow
def test_a_state_dict_of_torchvision_new_and_old_and_one_of_detectron2(tmp_path, image):
    import densessl

    network = resnet18()
    backbone_of(network)
    for name, new in (("new.pth", True), ("old.pth", False)):
        state = network.state_dict()
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=new)
        require_picture(tmp_path / name, image, network)
    assert densessl.main(["convert", str(tmp_path / "new.pth"), "-o", f"{tmp_path}/d2.pkl"]) == 0
    require_picture(tmp_path / "d2.pkl", image, network)


@pytest.mark.slow
def test_a_vit_of_timm(tmp_path, image):
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224").eval()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    with torch.no_grad():
        x = torch.rand(1, 3, 224, 224)
        expected = network.forward_features(x)[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
        found = load(str(tmp_path / "vit.pth")).backbone(x)["block12"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert show.main([f"{tmp_path}/vit.pth", str(image), "-o", f"{tmp_path}/out"]) == 0


@pytest.fixture
def trap(tmp_path):
    """A checkpoint with code in it, which would leave a file."""

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"backbone": Trap(), "config": "", "normalization": {}}, tmp_path / "trap.pth")
    return tmp_path / "trap.pth"


def test_code_in_a_checkpoint_is_not_run(tmp_path, trap):
    assert read(trap) is None and not (tmp_path / "sprung").exists()


@pytest.mark.slow
def test_a_conversion_that_refuses_says_why(tmp_path, trap, image):
    with pytest.raises(InputError) as error:
        show.main([str(trap), str(image), "-o", str(tmp_path / "out")])
    assert str(error.value) == (
        f"{trap} is not of densessl pretrain, and densessl convert refuses it: "
        "it holds pickled code (io.open), which will not be unpickled"
    )
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "out").exists()


def test_damaged_checkpoints_of_ours_are_named(tmp_path):
    whole = {"backbone": {}, "config": "", "normalization": {"mean": (0, 0, 0), "std": (1, 1, 1)}}
    for name, broken in {
        "config": "METHOD: {NAMES: setsim}",
        "normalization": {"mean": (0, 0, 0)},
        "backbone": {"conv1.weight": torch.zeros(3)},
    }.items():
        torch.save(whole | {name: broken}, tmp_path / f"{name}.pth")
        with pytest.raises(InputError, match=f"{name}.pth"):
            load(str(tmp_path / f"{name}.pth"))
