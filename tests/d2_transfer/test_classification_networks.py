"""Backbones to classify with: which features they give, and what images they see."""

import pytest
import torch

from densessl.core.errors import InputError
from densessl.d2_transfer import classification
from densessl.d2_transfer.classification import networks
from densessl.d2_transfer.classification.networks import build_backbone, stages_of


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))


def config(protocol="knn", *overrides):
    return classification.resolve(protocol, overrides=overrides, mini=True, cuda=False)


@pytest.fixture(scope="module")
def converted(our_checkpoint, tmp_path_factory):
    """A ResNet-18 checkpoint of ours, and its prepared weights."""
    folder = tmp_path_factory.mktemp("weights")
    source = our_checkpoint(folder / "backbone_final.pth")
    return source, classification.prepare(str(source), folder / "run", config())


def normalised(images):
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (images / 255 - mean) / std


def test_resnet_stages_are_averages_of_torchvisions_layers(converted, images):
    from torchvision.models import resnet18

    source, weights = converted
    backbone = build_backbone("auto", weights.file, 64, 0).eval()
    network = resnet18().eval()
    state = torch.load(source, weights_only=True)["backbone"]
    network.load_state_dict(state, strict=False)
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(normalised(images)))))
        found = backbone.stages(images, ("res2", "res3", "res4", "res5"))
        for number, (stage, features) in enumerate(found.items(), 1):
            x = getattr(network, f"layer{number}")(x)
            assert torch.allclose(features, x.mean((2, 3)), rtol=1e-4, atol=1e-4), stage
            assert backbone.width(stage) == features.shape[1]
        assert torch.equal(backbone(images), found["res5"])
        assert torch.equal(backbone.stages(images, ("res3",))["res3"], found["res3"])
        assert torch.equal(backbone.for_linear(images, "dino"), found["res5"])


def test_vit_features_are_class_tokens_behind_the_last_norm(images):
    backbone = build_backbone("vit_tiny", "", 64, 0).eval()
    seen = {}
    for number, block in enumerate(backbone.network.blocks, 1):
        block.register_forward_hook(lambda _, __, out, n=number: seen.update({f"block{n}": out}))
    with torch.no_grad():
        found = backbone.stages(images, ("block12", "block4"))
        assert list(found) == ["block12", "block4"]
        for stage in ("block4", "block12"):
            assert torch.allclose(found[stage], backbone.network.norm(seen[stage])[:, 0], atol=1e-6)
        four = backbone.for_linear(images, "dino")
        assert four.shape[1] == backbone.linear_channels("dino") == 4 * 192
        assert torch.equal(four[:, -192:], found["block12"])
        assert torch.equal(backbone.for_linear(images, "last"), found["block12"])


def test_a_vit_at_224_is_timms_own():
    import timm

    backbone = build_backbone("vit_tiny", "", 224, 5).eval()
    torch.manual_seed(5)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    image = torch.randint(0, 256, (1, 3, 224, 224))
    with torch.no_grad():
        assert torch.allclose(backbone(image), theirs(normalised(image)), atol=1e-5)


def test_vit_base_gives_its_class_token_and_the_mean_patch():
    backbone = build_backbone("vit_base", "", 32, 0).eval()
    image = torch.randint(0, 256, (1, 3, 32, 32))
    with torch.no_grad():
        features = backbone.for_linear(image, "dino")
        tokens = backbone.network.forward_features(backbone._normalised(image))
    assert features.shape[1] == backbone.linear_channels("dino") == 2 * 768
    assert torch.allclose(features, torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1), atol=1e-5)


def test_images_are_normalised_as_the_weights_facts_say(converted, images, monkeypatch):
    _, weights = converted
    held = networks.convert.read_checkpoint(weights.file)
    held.densessl |= {
        "channel_order": "BGR",
        "normalization": {"pixel_mean": [1.0, 2.0, 3.0], "pixel_std": [1.0, 2.0, 4.0]},
    }
    monkeypatch.setattr(networks.convert, "read_checkpoint", lambda path: held)
    backbone = build_backbone("auto", weights.file, 64, 0)
    found = backbone._normalised(images)
    assert torch.equal(found[:, 0], images[:, 2].float() - 1)
    assert torch.equal(found[:, 2], (images[:, 0].float() - 3) / 4)


def test_prepared_weights_know_where_they_come_from(converted, tmp_path):
    source, weights = converted
    assert weights.method == "setsim" and weights.pretrain["epochs"] == 200
    assert weights.path == str(source) and len(weights.sha256) == 64
    state = torch.load(source, weights_only=True)["backbone"]
    ours = build_backbone("auto", weights.file, 64, 0).network.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in state.items())


def test_a_conversion_is_not_done_twice(converted, tmp_path, monkeypatch):
    source, _ = converted
    first = classification.prepare(str(source), tmp_path, config())
    monkeypatch.setattr(networks.convert, "convert", None)
    assert classification.prepare(str(source), tmp_path, config()) == first


def test_supervised_and_random_starts(tmp_path, random_resnet):
    torch.save(random_resnet(18) | {"fc.weight": torch.zeros(1000, 512)}, tmp_path / "theirs.pth")
    weights = classification.prepare(f"supervised:{tmp_path}/theirs.pth", tmp_path / "a", config())
    assert weights.method == "supervised"
    assert classification.prepare("random", tmp_path, config()).method == "random"
    one, same, other = (build_backbone("resnet18", "", 64, seed) for seed in (1, 1, 2))
    pairs = [net.network.conv1.weight for net in (one, same, other)]
    assert torch.equal(pairs[0], pairs[1]) and not torch.equal(pairs[0], pairs[2])
    assert build_backbone("auto", "", 64, 0).name == "resnet50"


@pytest.mark.parametrize(
    "named, overrides, says",
    [
        ("nothing.pth", [], "weights 'nothing.pth' are not a file; allowed: .*random"),
        (
            "CHECKPOINT",
            ["MODEL.BACKBONE", "resnet50"],
            "resnet50, but the weights are a resnet18's",
        ),
        ("CHECKPOINT", ["KNN.STAGES", "('res6',)"], "unknown stage 'res6'.*mean 'res"),
        ("CHECKPOINT", ["KNN.STAGES", "('block12',)"], "'block12' in KNN.STAGES with a resnet18"),
        (
            "random",
            ["MODEL.BACKBONE", "vit_tiny", "INPUT.SIZE", "40", "INPUT.RESIZE", "40"],
            "32 or 48",
        ),
    ],
)
def test_weights_and_config_must_agree(converted, tmp_path, named, overrides, says):
    named = str(converted[0]) if named == "CHECKPOINT" else named
    with pytest.raises(InputError, match=says):
        classification.prepare(named, tmp_path, config("knn", *overrides))
    assert not list(tmp_path.iterdir())


def test_two_checkpoints_in_one_folder_keep_their_files(tmp_path, our_checkpoint):
    first, second = (
        classification.prepare(
            str(our_checkpoint(tmp_path / name, iteration=n)), tmp_path, config()
        )
        for n, name in enumerate(("a.pth", "b.pth"))
    )
    for weights in (first, second):
        assert weights.file == str(tmp_path / f"weights_{weights.sha256[:12]}.pth")
        held = networks.convert.read_checkpoint(weights.file).densessl
        assert held["source_sha256"] == weights.sha256
    assert first.file != second.file


def test_words_for_stages():
    assert stages_of("resnet50", ("last",)) == ("res5",)
    assert stages_of("resnet50", ("all",)) == ("res2", "res3", "res4", "res5")
    assert stages_of("vit_small", ("all",)) == ("block4", "block8", "block12")
    assert stages_of("vit_small", ("block3", "last", "block12")) == ("block3", "block12")
