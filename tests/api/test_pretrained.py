"""``densessl.load_backbone``: the network of the file, and what is said of it."""

import subprocess
import sys

import pytest
import timm
import torch
from PIL import Image
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms import _presets

import densessl
from densessl import InputError, load_backbone

LEVELS = ["layer1", "layer2", "layer3", "layer4"]


def test_importing_it_imports_nothing_large():
    code = (
        "import sys, densessl; dir(densessl); "
        "print(sorted({'torch', 'numpy', 'PIL', 'fvcore', 'argparse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_of_it_is_there():
    for name in densessl.__all__:
        assert name in dir(densessl) and getattr(densessl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'load_backbones'"):
        densessl.load_backbones  # noqa: B018


def test_a_checkpoint_gives_the_levels_of_its_network(moco, resnet):
    backbone = load_backbone(moco).eval()
    images = torch.rand(2, 3, 80, 96)
    with torch.no_grad():
        levels = backbone(images)
        wanted = create_feature_extractor(resnet, LEVELS)(images)
    assert list(levels) == LEVELS
    for name, level in levels.items():
        assert torch.equal(level, wanted[name])
        stride = backbone.strides[name]
        assert level.shape[1:] == (backbone.channels[name], -(-80 // stride), 96 // stride)
    assert backbone.method == "moco_v1" and backbone.name == "resnet18"
    state = resnet.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.state_dict().items())


def test_features_only_is_what_timm_calls_so(moco):
    images = torch.rand(1, 3, 64, 64)
    backbone, network = load_backbone(moco).eval(), load_backbone(moco, features_only=True).eval()
    theirs = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))
    info = network.feature_info
    assert info.channels() == theirs.feature_info.channels()
    assert info.reduction() == theirs.feature_info.reduction()
    assert info.module_name() == theirs.feature_info.module_name()
    for found, wanted in zip(network(images), backbone(images).values(), strict=True):
        assert torch.equal(found, wanted)


def test_a_vit_gives_patches_and_the_class_token(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    images = torch.rand(1, 3, 224, 224)
    backbone = load_backbone(tmp_path / "vit.pth").eval()
    with torch.no_grad():
        levels, tokens = backbone(images), network.forward_features(images)
    assert torch.allclose(levels["cls"], tokens[:, 0], atol=1e-5)
    assert torch.allclose(levels["block12"].flatten(2).mT, tokens[:, 1:], atol=1e-5)
    assert backbone.strides == {"block4": 16, "block8": 16, "block12": 16}
    maps = load_backbone(tmp_path / "vit.pth", features_only=True, levels=["block8", "cls"])
    assert maps.feature_info.module_name() == ["block8"]  # a token is no map


def test_a_run_and_a_network_can_be_named(run_folder, resnet):
    backbone = load_backbone(run_folder, levels=("layer2",))
    assert backbone.method == "setsim" and backbone.normalization["mean"] == [0.5, 0.4, 0.3]
    assert torch.equal(backbone.layer2[0].conv1.weight, resnet.layer2[0].conv1.weight)
    assert list(backbone(torch.zeros(2, 3, 32, 32))) == ["layer2"]
    assert load_backbone("resnet34").method == "random"


def test_what_people_say_counts_over_the_file(moco):
    mean, std = [103.53, 116.28, 123.675], [1.0, 2.0, 4.0]
    backbone = load_backbone(moco, mean=mean, std=std, channel_order="BGR")
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    wanted = (image.flip(0).float() - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
        :, None, None
    ]
    assert torch.allclose(backbone.transform(image), wanted, atol=1e-3)


def test_the_stride_can_be_where_caffe_has_it(tmp_path):
    torch.save(load_backbone("resnet50").state_dict(), tmp_path / "r50.pth")
    backbone = load_backbone(tmp_path / "r50.pth", stride_in_1x1=True)
    assert backbone.layer2[0].conv1.stride == (2, 2)
    assert backbone.layer2[0].conv2.stride == (1, 1)


def test_a_transform_takes_paths_pictures_and_tensors(pictures):
    path = sorted(pictures.iterdir())[0]
    transform = load_backbone("resnet18").transform
    picture = Image.open(path)
    of_path, of_picture = transform(path), transform(picture)
    assert torch.equal(of_path, of_picture) and of_path.shape == (3, picture.height, picture.width)
    small = load_backbone("resnet18", size=32).transform(path)
    preset = _presets.ImageClassification(crop_size=32, resize_size=37, antialias=True)
    assert small.shape == (3, 32, 32)
    assert (small - preset(picture)).abs().max() < 0.03  # torchvision rounds to bytes in between


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("resnt50", {}, "'resnt50' is no file.*Did you mean 'resnet50'"),
        ("no/such.pth", {}, "'no/such.pth' is no file"),
        (".", {}, "folder without backbone_final.pth or model.safetensors"),
        ("resnet18", {"levels": ["layer9"]}, "unknown level 'layer9'.*Allowed: layer1"),
    ],
)
def test_what_cannot_be_loaded_is_said(tmp_path, monkeypatch, name, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        load_backbone(name, **options)


def test_options_are_checked_as_the_verbs_are(moco, tmp_path):
    with pytest.raises(InputError, match="unknown layout 'mocov2'.*Did you mean"):
        load_backbone(moco, source="mocov2")
    (tmp_path / "wrong.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="wrong.jpg cannot be read"):
        load_backbone("resnet18").transform(tmp_path / "wrong.jpg")
