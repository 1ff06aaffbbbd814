"""Names that others give a ResNet's tensors: Caffe2's, Hugging Face's, and those in wrappers."""

import pickle

import numpy
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from densessl.core.errors import InputError
from densessl.d2_transfer import compat
from densessl.d2_transfer.convert import check_detector_config, convert, read_weights
from densessl.weight_files import keys
from densessl.weight_files.recognise import from_file, recognise

BRANCHES = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
CAFFES = [103.53, 116.28, 123.675]


def same(state: dict, wanted: dict) -> bool:
    return state.keys() == wanted.keys() and all(torch.equal(state[n], wanted[n]) for n in wanted)


# Caffe2: MSRA's R-50.pkl --------------------------------------------------------------------------


def caffe2(resnet: dict, statistics: bool = False) -> dict:
    """Detectron's blobs of a ResNet: norms are a scale and a bias, unless with ``statistics``."""
    ends = {"weight": "s", "bias": "b"}
    ends |= {"running_mean": "rm", "running_var": "riv"} if statistics else {}
    blobs = {}
    for name, tensor in resnet.items():
        *place, part, end = name.split(".")
        if place and place[-1] == "downsample":
            stage, block = place[:2]
            branch, norm = "branch1", part == "1"
        elif place:
            stage, block = place
            branch, norm = BRANCHES[part.replace("bn", "conv")], part.startswith("bn")
        else:
            stage = block = branch = ""
            norm = part == "bn1"
        if norm and end not in ends:
            continue
        start = f"res{int(stage[-1]) + 1}_{block}_{branch}" if stage else "conv1"
        start = "res_conv1" if norm and not stage else start
        blobs[f"{start}_bn_{ends[end]}" if norm else f"{start}_w"] = tensor.numpy()
    heads = {"conv1_b": numpy.zeros(64, "f4"), "fc1000_w": numpy.zeros((1000, 2048), "f4")}
    return blobs | heads | {"res2_0_branch2a_w_momentum": numpy.zeros(3, "f4")}


@pytest.fixture(scope="module")
def resnet50(random_resnet):
    return random_resnet(50)


@pytest.fixture(scope="module")
def msra(resnet50, tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo") / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": caffe2(resnet50)}, 2))
    return path


def detectron2s_resnet(weights, norm: str):
    """Detectron2's own ResNet-50, filled by its own loader."""
    compat.setup()
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import build_resnet_backbone

    cfg = compat.get_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res5"]
    cfg.MODEL.RESNETS.NORM = norm
    network = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    DetectionCheckpointer(network).load(str(weights))
    return network.eval()


def test_msras_file_computes_what_detectron2_makes_of_it(msra, tmp_path):
    report = convert(msra, tmp_path / "w.pkl")
    assert (report.layout, report.title, report.tensors) == ("caffe2_blobs", "ResNet-50", 318)
    assert all(stage.equal for stage in report.stages) and report.stride_in_1x1
    image = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        theirs = detectron2s_resnet(msra, "FrozenBN")(image)
        ours = detectron2s_resnet(tmp_path / "w.pkl", "BN")(image)
    for stage, expected in theirs.items():
        # Detectron2 0.5 adds 1e-5 to a variance of 1, in each of 53 norms: 3e-4 at most.
        assert (ours[stage] - expected).abs().max() < 3e-4 * expected.abs().max(), stage
    held = read_weights(tmp_path / "w.pkl")
    facts = held["densessl"]
    assert facts["channel_order"] == "BGR" and facts["stride_in_1x1"] is True
    assert facts["normalization"] == {"pixel_mean": CAFFES, "pixel_std": [1.0] * 3}
    cfg = compat.get_cfg()  # Detectron2's defaults are made for this file
    check_detector_config(held, cfg)


class Affine(torch.nn.Module):
    """Caffe2's AffineChannel."""

    def __init__(self, scale, bias):
        super().__init__()
        self.scale, self.bias = scale[:, None, None], bias[:, None, None]

    def forward(self, x):
        return self.scale * x + self.bias


def test_msras_file_computes_scale_and_bias(msra, resnet50):
    """torchvision's network with Caffe's stride and AffineChannel instead of batch norms."""
    _, found = from_file(msra)
    networks = [torchvision.models.resnet50(weights=None).eval() for _ in range(2)]
    for network, state in zip(networks, (resnet50, found.backbone), strict=True):
        network.load_state_dict(state, strict=False)
        for layer in (network.layer2, network.layer3, network.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
        network.fc = torch.nn.Identity()
    for name, module in list(networks[0].named_modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            affine = Affine(module.weight, module.bias)
            setattr(networks[0].get_submodule(parent), child, affine)
    image = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, got = (network(image) for network in networks)
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


def test_scale_and_bias_alone_are_a_norm_without_statistics(msra, resnet50):
    _, found = from_file(msra)
    wanted = resnet50 | {
        name: torch.zeros_like(t) if name.endswith("running_mean") else torch.ones_like(t) - 1e-5
        for name, t in resnet50.items()
        if name.endswith(("running_mean", "running_var"))
    }
    wanted |= {name: torch.tensor(0) for name in resnet50 if name.endswith("num_batches_tracked")}
    assert same(found.backbone, wanted)
    assert found.left["conv1_b"] == found.left["fc1000_w"] == 1


@pytest.mark.parametrize(
    "place, layout",
    [((), "caffe2"), (("blobs",), "caffe2_blobs"), (("model",), "caffe2_model")],
)
def test_statistics_and_the_places_of_blobs(resnet50, place, layout):
    held = caffe2(resnet50, statistics=True)
    for key in place:
        held = {key: held, "__author__": "Caffe2"}
    found = recognise(held)
    assert found.layout == layout
    counters = {name: torch.tensor(0) for name in resnet50 if name.endswith("num_batches_tracked")}
    assert same(found.backbone, resnet50 | counters)


# Hugging Face -------------------------------------------------------------------------------------


def huggingface(resnet: dict, prefix: str = "resnet.") -> dict:
    """transformers' ``ResNetForImageClassification``; without a prefix its ``ResNetModel``."""
    state = {}
    for name, tensor in resnet.items():
        *place, part, end = name.split(".")
        norm = part.startswith("bn") or (place and place[-1] == "downsample" and part == "1")
        last = f"{'normalization' if norm else 'convolution'}.{end}"
        if not place:
            start = "embedder.embedder"
        else:
            start = f"encoder.stages.{int(place[0][-1]) - 1}.layers.{place[1]}."
            start += "shortcut" if place[-1] == "downsample" else f"layer.{int(part[-1]) - 1}"
        state[f"{prefix}{start}.{last}"] = tensor
    return state


CLASSIFIER = {"classifier.1.weight": torch.zeros(2, 512), "classifier.1.bias": torch.zeros(2)}


def test_huggingfaces_classifier_and_backbone(random_resnet, tmp_path):
    resnet = random_resnet(18)
    files = {
        "model.safetensors": ("huggingface", huggingface(resnet) | CLASSIFIER),
        "pytorch_model.bin": ("huggingface_backbone", huggingface(resnet, "")),
    }
    for name, (layout, state) in files.items():
        (save_file if "safe" in name else torch.save)(state, tmp_path / name)
        report = convert(tmp_path / name, tmp_path / f"{name}.pth")
        assert (report.layout, report.tensors) == (layout, 120)
        assert same(torch.load(tmp_path / f"{name}.pth", weights_only=True), resnet)
    training = {"state_dict": huggingface(resnet) | CLASSIFIER, "epoch": 3}
    assert same(recognise(training).backbone, resnet)


def test_huggingfaces_images_and_stride(resnet50, tmp_path):
    save_file(huggingface(resnet50), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "resnet", "downsample_in_bottleneck": 1}')
    told = '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.5]}'
    (tmp_path / "preprocessor_config.json").write_text(told)
    _, found = from_file(tmp_path / "model.safetensors")
    assert found.stride_in_1x1 and found.images.by == "preprocessor_config.json"
    assert found.normalization["std"] == [0.25, 0.25, 0.5]
    (tmp_path / "config.json").write_text('{"model_type": "resnet", "hidden_act": "gelu"}')
    with pytest.raises(InputError, match=r"config\.json says hidden_act 'gelu'"):
        from_file(tmp_path / "model.safetensors")


# What wraps names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: name.replace("layer", "_orig_mod.layer"),
        lambda name: name.replace(".conv", "._checkpoint_wrapped_module.conv"),
        lambda name: f"_fsdp_wrapped_module.{name}",
    ],
)
@pytest.mark.parametrize("container", [(), ("state_dict",), ("model",)])
def test_names_that_torch_compile_wrapped(random_resnet, rename, container):
    resnet = random_resnet(18)
    held = {rename(name): tensor for name, tensor in resnet.items()}
    for key in container:
        held = {key: held, "epoch": 3}
    assert same(recognise(held).backbone, resnet)


def test_a_compiled_network_within_others(random_resnet, tmp_path):
    resnet = random_resnet(18)
    held = {f"module.encoder_q._orig_mod.{name}": tensor for name, tensor in resnet.items()}
    held |= {f"module.encoder_k.{name}": tensor + 1 for name, tensor in resnet.items()}
    found = recognise({"state_dict": held, "arch": "resnet18"})
    assert found.layout == "moco_v2" and same(found.backbone, resnet)
    own = {"net": {f"_orig_mod.trunk.{name}": tensor for name, tensor in resnet.items()}}
    with pytest.raises(InputError, match=r"--from net:trunk\.  \(ResNet-18\)"):
        recognise(own)
    for option in ("net:trunk.", "net:_orig_mod.trunk."):
        assert same(recognise(own, option).backbone, resnet)


def test_a_name_that_is_there_with_and_without_its_wrapper(random_resnet):
    resnet = random_resnet(18)
    held = resnet | {"_orig_mod.bn1.bias": resnet["bn1.bias"] + 1}
    with pytest.raises(InputError, match=r"holds bn1\.bias twice"):
        recognise(held)


@pytest.mark.parametrize("depth", keys.DEPTHS)
def test_a_resnets_names_and_shapes_are_torchvisions_in_its_order(depth):
    with torch.device("meta"):
        state = getattr(torchvision.models, f"resnet{depth}")().state_dict()
    theirs = [(name, tuple(tensor.shape)) for name, tensor in state.items()]
    assert [*keys.expected(depth).items()] == theirs[: -len(("fc.weight", "fc.bias"))]
