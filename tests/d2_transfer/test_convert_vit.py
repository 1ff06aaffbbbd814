"""Vision transformers: DINO's, timm's and torchvision's files, and the proof by two libraries."""

import sys

import pytest
import timm
import torch
import torchvision

import densessl
from densessl.core.errors import EnvironmentLacks, InputError
from densessl.d2_transfer.convert import ProofFailed, convert, prove_vit, read_weights
from densessl.d2_transfer.convert.prove_timm import VIT_STAGES as STAGES
from densessl.weight_files import vit
from densessl.weight_files.recognise import recognise
from densessl.weight_files.vit import expected, to_timm, torchvision_names

WIDTHS = {"vit_tiny": 192, "vit_small": 384, "vit_base": 768}
NORMALIZATION = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "channel_order": "RGB",
}


HEAD = torch.zeros(2, 2)


def dinos_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """The names of DINO's own code."""
    wide = 4 * width
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 197, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,)}
    for block in range(12):
        for part, shape in (
            ("norm1", (width,)),
            ("attn.qkv", (3 * width, width)),
            ("attn.proj", (width, width)),
            ("norm2", (width,)),
            ("mlp.fc1", (wide, width)),
            ("mlp.fc2", (width, wide)),
        ):
            shapes[f"blocks.{block}.{part}.weight"] = shape
            shapes[f"blocks.{block}.{part}.bias"] = shape[:1]
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


def random_vit(network: str = "vit_small") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, shape in dinos_shapes(WIDTHS[network]).items():
        fan_in = torch.Size(shape[1:]).numel() if len(shape) in (2, 4) else 16
        state[name] = torch.randn(shape, generator=generator) / fan_in**0.5
        if "norm" in name and name.endswith("weight"):
            state[name] += 1
    return state


def ours(state: dict) -> dict:
    """A file as ``densessl pretrain`` writes it."""
    return {
        "model": {"center": torch.zeros(1, 4)},
        "backbone": state,
        "iteration": 12,
        "method": "dino",
        "normalization": NORMALIZATION,
        "pretrain": {"dataset": "imagenet100", "images": 126689, "epochs": 200},
    }


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def assert_same(state: dict, wanted: dict):
    assert state.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(state[name], wanted[name])] == []


@pytest.fixture(scope="module")
def small():
    return random_vit()


@pytest.fixture(scope="module")
def tiny():
    return random_vit("vit_tiny")


@pytest.fixture(scope="module")
def base():
    return random_vit("vit_base")


@pytest.fixture(scope="module")
def checkpoint(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "backbone_final.pth"
    torch.save(ours(small), path)
    return path


@pytest.fixture(scope="module")
def converted(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "torchvision.pth"
    return convert(checkpoint, out, target="torchvision"), out


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", sorted(WIDTHS))
def test_names_are_dinos_and_the_backbones(network):
    from densessl.pretrain.backbones.vit import build_vit

    assert expected(network) == dinos_shapes(WIDTHS[network])
    with torch.device("meta"):
        state = build_vit(network).state_dict()
    assert {name: tuple(t.shape) for name, t in state.items()} == expected(network)


def test_torchvisions_names_are_one_to_one():
    with torch.device("meta"):
        state = torchvision.models.vit_b_16().state_dict()
    wanted = {name for name in state if not name.startswith("heads.")}
    names = torchvision_names("vit_base")
    assert set(names.values()) == wanted and len(names) == 150
    assert all(to_timm(new) == name for name, new in names.items())


@pytest.mark.parametrize(
    "name", ["heads.head.weight", "encoder.ln.weight2", "x.class_token", "blocks.0.norm1.weight"]
)
def test_other_names_are_not_torchvisions(name):
    assert to_timm(name) is None


# Conversion --------------------------------------------------------------------------------------


def test_to_torchvision(converted, small):
    report, out = converted
    assert (report.network, report.title, report.depth) == ("vit_small", "ViT-S/16", None)
    assert (report.layout, report.method, report.tensors) == ("densessl", "dino", 150)
    assert [stage.name for stage in report.stages] == ["input", *STAGES]
    assert all(stage.difference <= 1e-5 * stage.magnitude for stage in report.stages)
    names = {"torchvision": torchvision, "torch": torch}
    exec("\n".join(line.strip() for line in report.next_command.splitlines()), names)
    state, network = torch.load(out, weights_only=True), names["network"]
    assert_same({to_timm(name): tensor for name, tensor in state.items()}, small)
    assert set(network.state_dict()) - set(state) == {"heads.head.weight", "heads.head.bias"}
    assert all(torch.equal(network.state_dict()[name], state[name]) for name in state)


def test_to_timm(checkpoint, small, tmp_path):
    report = convert(checkpoint, tmp_path / "timm.pth")  # a ViT's own way
    assert report.target == "timm"
    assert [stage.name for stage in report.stages] == ["input", *STAGES]
    assert_same(torch.load(tmp_path / "timm.pth", weights_only=True), small)
    network = eval(report.next_command, {"timm": timm})
    assert_same(network.state_dict(), small)


def test_to_safetensors_and_back(tiny, tmp_path):
    torch.save(ours(tiny), tmp_path / "c.pth")
    report = convert(tmp_path / "c.pth", tmp_path / "w.safetensors")
    assert (report.target, report.stages[-1].name) == ("safetensors", "cls")
    assert_same(eval(report.next_command, {"timm": timm}).state_dict(), tiny)
    back = convert(tmp_path / "w.safetensors", tmp_path / "back.pth")
    assert (back.layout, back.method) == ("timm", "dino")
    assert_same(torch.load(tmp_path / "back.pth", weights_only=True), tiny)


def test_the_smallest_of_twins(tiny, tmp_path):
    torch.save(ours(tiny), tmp_path / "c.pth")
    report = convert(tmp_path / "c.pth", tmp_path / "timm.pth", target="timm")
    assert (report.network, report.title) == ("vit_tiny", "ViT-Ti/16")
    assert_same(eval(report.next_command, {"timm": timm}).state_dict(), tiny)


@pytest.mark.slow
def test_vit_base_fits_torchvisions_own(base, tmp_path):
    torch.save(ours(base), tmp_path / "c.pth")
    report = convert(tmp_path / "c.pth", tmp_path / "w.pth", target="torchvision")
    assert (report.title, report.tensors) == ("ViT-B/16", 150)
    state = torch.load(tmp_path / "w.pth", weights_only=True)
    with torch.device("meta"):
        network = torchvision.models.vit_b_16()
    loaded = network.load_state_dict(state, strict=False, assign=True)
    assert loaded.missing_keys == ["heads.head.weight", "heads.head.bias"]
    assert not loaded.unexpected_keys


def test_by_way_of_torchvision_to_timm_nothing_is_lost(converted, small, tmp_path):
    report = convert(converted[1], tmp_path / "back.pth", target="timm")
    state = torch.load(tmp_path / "back.pth", weights_only=True)
    assert_same(state, small)
    assert (report.layout, report.method) == ("torchvision", "dino")
    assert report.pretrain == {"dataset": "imagenet100", "images": 126689, "epochs": 200}
    assert state.densessl["network"] == "vit_small"
    assert state.densessl["normalization"] == {
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }


def test_the_same_input_gives_the_same_bytes(converted, checkpoint, tmp_path):
    convert(checkpoint, tmp_path / "torchvision.pth", target="torchvision")
    assert (tmp_path / "torchvision.pth").read_bytes() == converted[1].read_bytes()


# The files of others -----------------------------------------------------------------------------


def dinos_file(state: dict, wrapper: str = "") -> dict:
    """As DINO's training writes it; every tensor but the teacher's backbone is a decoy."""
    seven = torch.tensor(7.0)
    head = {"head.mlp.0.weight": seven, "head.last_layer.weight_v": seven}
    decoy = {name: seven.expand(tensor.shape) for name, tensor in state.items()}
    student = prefixed(decoy, "module.backbone.") | prefixed(head, "module.")
    teacher = prefixed(state, "backbone.") | head
    return {
        "student": student,
        "teacher": prefixed(teacher, wrapper),
        "optimizer": {},
        "epoch": 100,
        "args": {"arch": "vit_small"},
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_dinos_teacher_is_taken(small, wrapper):
    file = dinos_file(small, wrapper)
    for name in ("auto", "dino_vit"):
        found = recognise(file, name)
        assert (found.layout, found.method, found.network) == ("dino_vit", "dino", "vit_small")
        assert_same(found.backbone, small)


def test_dinos_file_is_converted_and_proved(small, tmp_path, capsys):
    torch.save(dinos_file(small), tmp_path / "checkpoint.pth")
    out = tmp_path / "w.pth"
    command = ["convert", str(tmp_path / "checkpoint.pth"), "-o", str(out), "--to", "timm"]
    assert densessl.main(command) == 0
    said = capsys.readouterr().out
    for expected_words in ("dino_vit layout", "150 of ViT-S/16", "block12", "timm.create_model"):
        assert expected_words in said
    assert_same(torch.load(out, weights_only=True), small)


def test_released_files(small):
    head = {"head.weight": torch.zeros(2, 384), "head.bias": torch.zeros(2)}
    heads = {"heads.head.weight": torch.zeros(2, 384), "heads.head.bias": torch.zeros(2)}
    names = torchvision_names("vit_small")
    today = {names[name]: tensor for name, tensor in small.items()}
    old = {  # the names in the files that torchvision offers
        name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): tensor
        for name, tensor in today.items()
    }
    for layout, file in (
        ("timm", small),  # DINO's backbone files are also like this
        ("timm", small | head),
        ("torchvision", today | heads),
        ("torchvision", old | heads),
        ("state_dict", {"state_dict": prefixed(small, "module.")}),
    ):
        found = recognise(file)
        assert (found.layout, found.method, found.title) == (layout, "unknown", "ViT-S/16")
        assert_same(found.backbone, small)


def test_moco_v3s_small_vit_has_other_heads_than_timms(small, base):
    file = {"state_dict": prefixed(small | {"head.0.weight": HEAD}, "module.base_encoder.")}
    with pytest.raises(InputError, match="MoCo-v3's ViT-S has 12 heads"):
        recognise(file, where="vit-s-300ep.pth.tar")
    file = {"state_dict": prefixed(base | {"head.0.weight": HEAD}, "module.base_encoder.")}
    found = recognise(file)
    assert (found.layout, found.title) == ("moco_v3", "ViT-B/16")
    assert_same(found.backbone, base)


def test_the_students_vit(small):
    file = dinos_file(small)
    found = recognise(file, branch="student")
    assert (found.layout, found.branch, found.other) == ("dino_vit", "student", "teacher")
    assert found.place == "student:module.backbone."
    assert float(found.backbone["norm.bias"].unique()) == 7


def test_what_is_near_a_vit_says_which_tensors_are_not(small):
    for file, words in (
        (small | {"reg_token": torch.zeros(1, 4, 384)}, r"ViT-S/16 but also holds reg_token"),
        (small | {"pos_embed": torch.zeros(1, 785, 384)}, r"pos_embed \(1, 785, 384\) instead of"),
        (small | {"norm.bias": "none"}, r"norm\.bias \(\) instead of \(384,\)"),
        (small | {"norm.bias": torch.full((384,), torch.nan)}, r"norm\.bias holds NaN"),
        (small | {"cls_token": torch.zeros(1, 1, 1024)}, r"none of .*ViT-S/16 \(384\), ViT-B/16"),
        (small | {"class_token": small["cls_token"]}, r"also holds class_token"),
        ({n: t for n, t in small.items() if n != "norm.bias"}, r"lacks norm\.bias"),
    ):
        with pytest.raises(InputError, match=words):
            recognise(file, where="file.pth")


# The proof can fail ------------------------------------------------------------------------------


@pytest.fixture(params=["timm", "torchvision"])
def proof(request, tiny):
    """The arguments of a proof that holds."""
    names = torchvision_names("vit_tiny") if request.param == "torchvision" else {}
    written = {names.get(name, name): tensor for name, tensor in tiny.items()}
    scaled = {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375]}
    facts = {"network": "vit_tiny", "channel_order": "RGB", "normalization": scaled}
    return [tiny, NORMALIZATION, written, facts, request.param]


def in_file(proof, name: str) -> str:
    return torchvision_names("vit_tiny")[name] if proof[4] == "torchvision" else name


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("pos_embed", "tokens"),
        ("blocks.3.attn.qkv.weight", "block4"),
        ("blocks.9.mlp.fc2.bias", "block12"),
        ("norm.weight", "cls"),
    ],
)
def test_a_tampered_tensor_names_its_stage_and_itself(proof, name, stage):
    proof[2][in_file(proof, name)] = proof[0][name].flip(-1)
    with pytest.raises(ProofFailed) as failure:
        prove_vit(*proof)
    message = str(failure.value)
    assert f"{in_file(proof, name)}: not the source's tensor" in message
    differing = [s for s in ("input", *STAGES) if f"{s}: largest difference" in message]
    assert differing == list(STAGES[STAGES.index(stage) :])


def test_a_missing_tensor_and_one_too_many(proof):
    name = in_file(proof, "blocks.5.norm2.bias")
    tensor = proof[2].pop(name)
    with pytest.raises(ProofFailed, match=name.replace(".", r"\.")):
        prove_vit(*proof)
    proof[2] |= {name: tensor, "another": tensor}
    with pytest.raises(ProofFailed, match="another"):
        prove_vit(*proof)


def test_channels_in_another_order(proof):
    proof[3]["channel_order"] = "BGR"
    with pytest.raises(ProofFailed, match="input: largest difference"):
        prove_vit(*proof)


def test_a_wrong_mapping_is_caught_and_nothing_is_written(checkpoint, tmp_path, monkeypatch):
    names = dict(torchvision_names("vit_small"))
    a, b = "blocks.6.norm1.weight", "blocks.6.norm2.weight"
    names[a], names[b] = names[b], names[a]
    monkeypatch.setattr(vit, "torchvision_names", lambda network: names)
    for target in ("torchvision", "timm"):
        with pytest.raises(ProofFailed, match="block8: largest difference"):
            convert(checkpoint, tmp_path / "w.pth", target=target)
    assert list(tmp_path.iterdir()) == []


# Refusals ----------------------------------------------------------------------------------------


def test_to_detectron2_it_is_timms_network(checkpoint, small, tmp_path):
    report = convert(checkpoint, tmp_path / "w.pkl")
    assert report.network == "timm/vit_small_patch16_224" and report.tensors == 150
    held = read_weights(tmp_path / "w.pkl")["model"]
    assert_same(
        {name.removeprefix("timm_network."): torch.as_tensor(a) for name, a in held.items()}, small
    )
    assert densessl.load_backbone(tmp_path / "w.pkl").name == report.network


def test_without_timm_nothing_is_written(checkpoint, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoTimm(), *sys.meta_path])
    with pytest.raises(EnvironmentLacks, match="pip install 'timm"):
        convert(checkpoint, tmp_path / "w.pth")
    assert list(tmp_path.iterdir()) == []


class NoTimm:
    def find_spec(self, name, path=None, target=None):
        if name == "timm":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
