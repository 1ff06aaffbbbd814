"""The layouts of published checkpoints, from the key lists of the official code."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from densessl.core.errors import InputError
from densessl.d2_transfer.convert import convert, read_weights
from densessl.weight_files.keys import detectron2_names
from densessl.weight_files.layouts import BRANCHES, BY_NAME, LAYOUTS
from densessl.weight_files.recognise import recognise

GOLDEN = Path(__file__).parents[1] / "golden" / "keys"
FILES = {  # of the golden key list: the layout that 'auto' takes, and the method it tells
    "moco_v1": ("moco_v1", "moco_v1"),
    "moco_v2": ("moco_v2", "moco_v2"),
    "moco_v2_openselfsup": ("moco_v2_openselfsup", "moco_v2"),
    "byol_openselfsup": ("byol_openselfsup", "byol"),
    "simsiam": ("simsiam", "simsiam"),
    "densecl": ("densecl", "densecl"),
    "pixpro": ("pixpro", "pixpro"),
    "pixpro_ins": ("pixpro", "pixpro"),
    "setsim": ("setsim", "setsim"),
    "resim_c4": ("moco_v2", "moco_v2"),  # the known part of its names is MoCo-v2's
    "resim_fpn": ("resim_fpn", "resim_fpn"),
    "resim_fpn_bn": ("resim_fpn", "resim_fpn"),
    "dino_r50": ("dino", "dino"),
    "dino_r50_bnhead": ("dino", "dino"),
    "scfs": ("scfs", "scfs"),
    "swav": ("swav", "swav"),
    "vicreg": ("vicreg", "vicreg"),
}
OTHERS = {  # the second network: its branch, the prefix of its names, the container
    "moco_v1": ("key", "module.encoder_k.", "state_dict"),
    "resim_fpn": ("key", "module.encoder_k.", "state_dict"),
    "setsim": ("key", "module.encoder_k.0.", "state_dict"),
    "pixpro": ("key", "module.encoder_k.", "model"),
    "densecl": ("key", "encoder_k.0.", "state_dict"),
    "byol_openselfsup": ("target", "target_net.0.", "state_dict"),
    "dino_r50": ("student", "module.backbone.", "student"),
    "scfs": ("student", "module.backbone.model.", "student"),
}
OPPOSITE = {"key": "query", "target": "online", "student": "teacher"}
WHOLE = {"resim_fpn", "resim_fpn_bn"}  # converted as a ResNet-50
OPTIMIZER = {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
SECOND_NAMES = ("encoder_q.0.", "online_net.0.")  # of the tensors under mmcv's 'backbone.'
STAGES = ["input", "stem", "res2", "res3", "res4", "res5"]
PYRAMID = {"resim_fpn": ["p4", "p3"], "resim_fpn_bn": ["p4", "p3"]}
FPN = {
    f"backbone.fpn_{part}{level}": f"module.encoder_q.fpn_{part}{level}"
    for part, level in (("lateral", 3), ("lateral", 4), ("lateral", 5), ("output", 3))
}


@pytest.fixture(scope="module")
def resnet50(random_resnet):
    return random_resnet(50)


@pytest.fixture(scope="module")
def resnet18(random_resnet):
    return random_resnet(18)


@pytest.fixture(scope="module")
def checkpoint(resnet50):
    """``checkpoint(name)``: a file as the official code writes it, its backbone ``resnet50``.

    Every other tensor (heads, queues, momentum encoders, the student beside its teacher) is a
    constant in its shape, so that a tensor of another branch could not pass for the backbone's.
    What lies beside the tensors is as the official code leaves it, arguments as objects included.
    """

    def decoy(shape, dtype):
        return torch.full((), 7, dtype=getattr(torch, dtype)).expand(shape)

    def make(name: str) -> dict:
        golden = json.loads((GOLDEN / f"{name}_keys.json").read_text())
        prefixes = [golden["backbone_prefix"]]
        prefixes += SECOND_NAMES if prefixes == ["backbone."] else []
        state = {}
        for key, shape, dtype in golden["keys"]:
            tails = [key.removeprefix(p) for p in prefixes if key.startswith(p)]
            if tails and tails[0] in resnet50:
                state[key] = resnet50[tails[0]]
                assert list(state[key].shape) == shape
            elif key.startswith("module.encoder_q.fpn_"):
                state[key] = of_the_fpn(key, shape)
            else:
                state[key] = decoy(shape, dtype)
        top = {entry: {} for entry in golden["top_level_entries"]}
        beside = {"epoch": 200, "arch": "resnet50", "optimizer": OPTIMIZER}
        beside |= dict.fromkeys(("opt", "args"), argparse.Namespace(arch="resnet50", lr=0.1))
        top |= {entry: value for entry, value in beside.items() if entry in top}
        for entry in ("student", "teacher"):
            if entry in top:
                top[entry] = {key: decoy(shape, dtype) for key, shape, dtype in golden["keys"]}
        top["teacher" if "teacher" in top else golden["state_dict_entry"]] = state
        return top

    return make


def of_the_fpn(name: str, shape: list[int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(name) + sum(shape))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(3)
    if name.endswith("running_var"):
        return torch.rand(shape, generator=generator) + 0.5
    fan_in = torch.Size(shape[1:]).numel()
    return torch.randn(shape, generator=generator) / fan_in**0.5


def assert_same(tensors: dict, wanted: dict):
    assert list(tensors) == list(wanted)
    assert [name for name in wanted if not torch.equal(tensors[name], wanted[name])] == []


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


# Every official key list --------------------------------------------------------------------------


def test_every_key_list_is_tested():
    assert {path.name.removesuffix("_keys.json") for path in GOLDEN.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_backbone_of_the_query_branch_or_the_teacher_is_taken(checkpoint, resnet50, name):
    found = recognise(checkpoint(name))
    assert (found.layout, found.method) == FILES[name]
    assert (found.depth, len(found.backbone), found.counters_added) == (50, 318, 0)
    assert_same(found.backbone, resnet50)
    assert bool(found.fpn) == name.startswith("resim_fpn")


@pytest.mark.parametrize("norm", [False, True])
def test_the_query_encoders_fpn_is_taken_under_detectron2s_names(checkpoint, norm):
    given = checkpoint("resim_fpn_bn" if norm else "resim_fpn")
    found, state = recognise(given).fpn, given["state_dict"]
    assert len(found) == (5 * 6 if norm else 5 * 2)
    for place, source in FPN.items():
        assert torch.equal(found[f"{place}.weight"], state[f"{source}{'.0' * norm}.weight"])
        if norm:
            for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                assert torch.equal(found[f"{place}.norm.{part}"], state[f"{source}.1.{part}"])
        else:
            assert torch.equal(found[f"{place}.bias"], state[f"{source}.bias"])


def smaller(checkpoint: dict, resnet50: dict, resnet18: dict) -> dict:
    """The same file with ``resnet18`` for ``resnet50``, wherever that is: six times less to do."""
    of_50 = {id(tensor): name for name, tensor in resnet50.items()}

    def shrink(state: dict) -> dict:
        shrunk = {}
        for key, tensor in state.items():
            name = of_50.get(id(tensor))
            if name is None:
                shrunk[key] = tensor
            elif name == "conv1.weight":  # here the backbone's names begin
                prefix = key.removesuffix(name)
                shrunk |= {prefix + inner: value for inner, value in resnet18.items()}
        return shrunk

    return {k: shrink(v) if isinstance(v, dict) else v for k, v in checkpoint.items()}


@pytest.mark.parametrize("name", sorted(set(FILES) - WHOLE))
def test_the_file_is_converted_and_proved(checkpoint, resnet50, resnet18, tmp_path, name):
    given = smaller(checkpoint(name), resnet50, resnet18)
    torch.save(given, tmp_path / "checkpoint.pth.tar")
    assert_converted(tmp_path, name, resnet18, 18)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_whole_file_before_torch_1_6(checkpoint, resnet50, tmp_path, name):
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(checkpoint(name), path, _use_new_zipfile_serialization=False)
    assert_converted(tmp_path, name, resnet50, 50)


def assert_converted(folder: Path, name: str, resnet: dict, depth: int):
    report = convert(folder / "checkpoint.pth.tar", folder / "w.pkl")
    assert (report.layout, report.method, report.tensors) == (*FILES[name], len(resnet))
    assert [stage.name for stage in report.stages] == STAGES + PYRAMID.get(name, [])
    model, names = read_weights(folder / "w.pkl")["model"], detectron2_names(depth)
    assert_same({name: torch.as_tensor(model.pop(names[name])) for name in resnet}, resnet)
    assert len(model) == report.fpn_tensors
    assert all(left.startswith("backbone.fpn_") for left in model)


# The other network of the file --------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_the_other_branch_is_taken_when_asked_for(checkpoint, resnet50, name):
    given, other, prefix, container = checkpoint(name), *OTHERS[name]
    found = recognise(given)
    assert found.other == other and found.branch == OPPOSITE[other]
    state = dict(given[container])
    taken = {n.removeprefix(prefix): n for n in state if n.startswith(prefix)}
    for n, tensor in resnet50.items():  # the golden lists give the names, here are the values
        state[taken[n]] = tensor + 1 if tensor.is_floating_point() else tensor
    given[container] = state
    found = recognise(given, branch=other)
    assert (found.branch, found.other) == (other, OPPOSITE[other])
    assert found.place == f"{container}:{prefix}"
    assert torch.equal(found.backbone["layer4.2.bn3.bias"], resnet50["layer4.2.bn3.bias"] + 1)
    assert (found.layout, found.method) == FILES[name]
    assert_same(recognise(given, branch=OPPOSITE[other]).backbone, resnet50)


@pytest.mark.parametrize("side", [0, 1])
def test_a_branch_goes_by_all_the_names_of_the_field(random_resnet, side):
    networks = random_resnet(18), random_resnet(18, seed=1)
    for branch in BRANCHES[side]:
        found = recognise({"state_dict": moco(random_resnet)}, branch=branch)
        assert_same(found.backbone, networks[side])


def test_a_branch_of_a_file_with_one_network(random_resnet):
    with pytest.raises(InputError, match=r"file\.pth holds one network in the torchvision layout"):
        recognise(random_resnet(18), where="file.pth", branch="teacher")
    ours = {"backbone": random_resnet(18), "method": "dino", "normalization": {}}
    ours["model"] = prefixed(random_resnet(18), "backbone.")
    with pytest.raises(InputError, match=r"others in it: --from model:backbone\."):
        recognise(ours, branch="student")
    with pytest.raises(InputError, match="unknown branch 'teachr'.*'teacher'"):
        recognise(random_resnet(18), branch="teachr")
    file = {"state_dict": prefixed(random_resnet(18), "module.encoder_q.")}  # published: no keys
    assert recognise(file).branch == recognise(file).other == ""


# Other files of the same people -------------------------------------------------------------------


def test_released_files(random_resnet):
    resnet = random_resnet(18)
    head = torch.zeros(2, 2)
    released = {
        "densecl_released": {"state_dict": resnet, "author": "DenseCL"},
        "state_dict": {"state_dict": resnet, "author": "OpenSelfSup"},
        "pixpro": {"model": prefixed(resnet, "module.encoder.")},
        "swav_released": prefixed(resnet, "module.") | {"module.prototypes.weight": head},
        "dino": {"teacher": prefixed(resnet, "backbone.") | {"head.last_layer.weight_v": head}},
        "torchvision": resnet,  # DINO's and VICReg's
    }
    for layout, file in released.items():
        found = recognise(file)
        assert (found.layout, found.method) == (layout, BY_NAME[layout].method or "unknown")
        assert_same(found.backbone, resnet)


def test_resim_c4_is_told_by_its_own_layers_or_by_its_name(checkpoint, resnet50):
    given = checkpoint("resim_c4")
    assert recognise(given, "resim_c4").method == "resim_c4"
    given["state_dict"]["module.encoder_q.mocodet_conv_c3.weight"] = torch.zeros(2, 2)
    given["state_dict"]["module.mocodet_conv.weight"] = torch.zeros(2, 2)
    found = recognise(given)
    assert found.method == "resim_c4"
    assert_same(found.backbone, resnet50)


def test_a_named_layout_needs_its_prefix_and_nothing_else(random_resnet):
    file = {"state_dict": prefixed(random_resnet(18), "module.encoder_q.0.")}
    with pytest.raises(InputError, match="no ResNet in a known layout"):
        recognise(file)
    assert recognise(file, "setsim").method == "setsim"
    with pytest.raises(InputError, match="no ResNet in the layout 'moco_v1'"):
        recognise(file, "moco_v1")


# Files that are almost like these -----------------------------------------------------------------


def moco(random_resnet) -> dict:
    keys = prefixed(random_resnet(18, seed=1), "module.encoder_k.")
    return prefixed(random_resnet(18), "module.encoder_q.") | keys


@pytest.mark.parametrize(
    "rename, prefix",
    [
        (lambda name: f"module.{name}", "module.module.encoder_q."),
        (lambda name: name.replace("encoder_q", "my_encoder_q"), "module.my_encoder_q."),
        (lambda name: name.replace("encoder_q.", "encoder_q.model."), "module.encoder_q.model."),
    ],
    ids=["wrapped twice", "longer name", "one more module"],
)
def test_other_prefixes_are_refused_with_what_takes_them(random_resnet, rename, prefix):
    state = {rename(name): tensor for name, tensor in moco(random_resnet).items()}
    file = {"epoch": 200, "state_dict": state}
    with pytest.raises(InputError, match="no ResNet in a known layout") as refusal:
        recognise(file, where="file.pth")
    option = f"state_dict:{prefix}"
    assert f"--from {option}  (ResNet-18)" in str(refusal.value)
    assert ("wrapped twice" in str(refusal.value)) == prefix.startswith("module.module.")
    found = recognise(file, option)
    assert_same(found.backbone, random_resnet(18))
    assert (found.place, found.method) == (option, "unknown")


def test_names_that_are_wrapped_in_part_are_refused(random_resnet):
    state = {
        name.removeprefix("module.") if "layer4" in name else name: tensor
        for name, tensor in moco(random_resnet).items()
    }
    with pytest.raises(InputError, match="no ResNet in a known layout"):
        recognise({"state_dict": state})
    with pytest.raises(InputError, match=r"not a ResNet of depth .* have 2, 2, 2, 0 blocks"):
        recognise({"state_dict": state}, "state_dict:module.encoder_q.")


def test_behind_the_prefix_everything_must_be_the_backbone(random_resnet):
    state = moco(random_resnet)
    extra = state | {"module.encoder_q.fcn.weight": torch.zeros(2)}
    with pytest.raises(InputError, match=r"also holds fcn\.weight"):
        recognise({"state_dict": extra})
    del state["module.encoder_q.layer4.1.bn2.running_var"]
    with pytest.raises(InputError, match=r"lacks layer4\.1\.bn2\.running_var"):
        recognise({"state_dict": state})


def test_the_two_names_of_one_tensor_must_agree(random_resnet):
    resnet = random_resnet(18)
    other = resnet | {"layer2.0.bn1.bias": resnet["layer2.0.bn1.bias"] + 1}
    state = prefixed(resnet, "backbone.") | prefixed(other, "encoder_q.0.")
    state |= {"encoder_q.1.mlp2.0.weight": torch.zeros(2)}
    with pytest.raises(InputError, match=r"encoder_q\.0\.layer2\.0\.bn1\.bias differ"):
        recognise({"state_dict": state}, where="epoch_200.pth")


def test_an_fpn_tensor_under_two_names_is_refused(random_resnet):
    state = prefixed(random_resnet(18), "module.encoder_q.")
    for name in ("fpn_lateral5.weight", "fpn_lateral5.0.weight"):
        state[f"module.encoder_q.{name}"] = torch.zeros(256, 512, 1, 1)
    with pytest.raises(InputError, match=r"double names: .*fpn_lateral5\.0\.weight"):
        recognise({"state_dict": state})


def test_names_of_layouts_are_unique():
    assert len(BY_NAME) == len(LAYOUTS)
