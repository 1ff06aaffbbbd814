"""Files of frameworks and later methods: the names as their code writes them, the proof for each.

Sources of the names: the repositories' own code (VISSL, solo-learn, lightly, MMSelfSup 1.x,
MoCo-v3, Barlow Twins, VICRegL, timm, torchvision, Detectron2).
"""

import argparse
import pickle

import numpy
import pytest
import torch
import torchvision

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer.convert import convert, read_weights
from densessl.weight_files.keys import detectron2_names
from densessl.weight_files.recognise import recognise

HEAD = torch.full((2, 2), 7.0)  # stands for every head: its shape is of no matter
LIGHTNING = {"pytorch-lightning_version": "2.1.2", "epoch": 399, "global_step": 100}
CONFIG = "model = dict(\n    type='BarlowTwins',\n    backbone=dict(type='ResNet', depth=50))"


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def numbered(state: dict) -> dict:
    """The names in ``nn.Sequential(*resnet.children())``: conv1, bn1, relu, maxpool, layer1 …"""
    parts = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    names = {name: name.split(".", 1) for name in state}
    return {f"{parts[part]}.{rest}": state[name] for name, (part, rest) in names.items()}


def heads(*names: str) -> dict:
    return dict.fromkeys(names, HEAD)


def trunk(state: dict) -> dict:
    model = {"trunk": prefixed(state, "_feature_blocks."), "heads": heads("0.clf.0.weight")}
    return {"base_model": {"model": model, "meters": {}}, "optimizer": {"optim": {}}, "hooks": {}}


def files(ours: dict, other: dict) -> dict:
    """Layout: a file of it (the backbone ``ours``; its other network ``other``) and its method."""
    return {
        "barlow_twins": (
            {
                "epoch": 1000,
                "model": prefixed(
                    prefixed(ours, "backbone.")
                    | heads("projector.0.weight", "projector.1.running_mean", "bn.running_mean"),
                    "module.",
                ),
                "optimizer": {},
            },
            "barlow_twins",
        ),
        "vicregl": (
            {
                "epoch": 300,
                "model": prefixed(
                    prefixed(ours, "backbone.")
                    | heads("maps_projector.0.weight", "projector.0.bias", "classifier.weight"),
                    "module.",
                ),
            },
            "vicregl",
        ),
        "moco_v3": (
            {
                "epoch": 300,
                "arch": "resnet50",
                "state_dict": prefixed(
                    prefixed(ours | heads("fc.0.weight", "fc.1.running_mean"), "base_encoder.")
                    | prefixed(other | heads("fc.0.weight"), "momentum_encoder.")
                    | heads("predictor.0.weight"),
                    "module.",
                ),
            },
            "moco_v3",
        ),
        "vissl": (
            {"type": "consolidated", "phase_idx": 99, "classy_state_dict": trunk(ours)},
            None,
        ),
        "vissl_model": ({"model_state_dict": prefixed(ours, "_feature_blocks.")}, None),
        "vissl_trunk": (prefixed(ours, "_feature_blocks."), None),
        "solo_learn": (
            LIGHTNING
            | {
                "state_dict": prefixed(ours, "backbone.")
                | prefixed(other, "momentum_backbone.")
                | heads("classifier.weight", "classifier.bias", "projector.0.weight", "queue")
            },
            None,
        ),
        "solo_learn_encoder": (
            LIGHTNING
            | {
                "state_dict": prefixed(ours, "encoder.")
                | prefixed(other, "momentum_encoder.")
                | heads("classifier.weight", "projector.0.weight")
            },
            None,
        ),
        "lightly_moco": (
            LIGHTNING
            | {
                "state_dict": prefixed(ours, "query_backbone.")
                | prefixed(other, "backbone.")  # its key encoder
                | heads("query_projection_head.layers.0.weight", "criterion.memory_bank.bank")
            },
            "moco_v2",
        ),
        "lightly_dino": (
            LIGHTNING
            | {
                "state_dict": prefixed(numbered(ours), "teacher_backbone.")
                | prefixed(numbered(other), "student_backbone.")
                | heads("student_head.layers.0.weight", "teacher_head.layers.0.weight")
            },
            "dino",
        ),
        "lightly_dino_benchmark": (
            LIGHTNING
            | {
                "state_dict": prefixed(ours, "backbone.")
                | prefixed(other, "student_backbone.")
                | heads("projection_head.layers.0.weight", "criterion.center.center")
            },
            "dino",
        ),
        "lightly_byol_benchmark": (
            LIGHTNING
            | {
                "state_dict": prefixed(ours, "backbone.")
                | prefixed(other, "teacher_backbone.")
                | heads("prediction_head.layers.0.weight", "online_classifier.weight")
            },
            "byol",
        ),
        "lightly_momentum": (
            LIGHTNING
            | {
                "state_dict": prefixed(numbered(ours), "backbone.")
                | prefixed(numbered(other), "backbone_momentum.")
                | heads(
                    "projection_head.layers.0.weight", "projection_head_momentum.layers.0.weight"
                )
            },
            None,
        ),
        "densecl_mmselfsup": (
            {
                "meta": {"epoch": 200, "mmengine_version": "0.5.0", "cfg": "model = dict()"},
                "state_dict": prefixed(ours, "backbone.")
                | prefixed(other, "encoder_k.module.0.")
                | heads("queue", "queue2", "neck.mlp.0.weight", "encoder_k.module.1.mlp.0.weight")
                | {"encoder_k.steps": torch.tensor(7)},
            },
            "densecl",
        ),
        "moco_mmselfsup": (
            {
                "meta": {"epoch": 200},
                "state_dict": prefixed(ours, "backbone.")
                | prefixed(other, "encoder_k.module.0.")
                | heads("queue", "queue_ptr", "neck.mlp.0.weight"),
            },
            "moco_v2",
        ),
        "byol_mmselfsup": (
            {
                "meta": {"epoch": 200},
                "state_dict": prefixed(ours, "backbone.")
                | prefixed(other, "target_net.module.0.")
                | heads("head.predictor.fc0.weight"),
            },
            "byol",
        ),
        "backbone": (
            {
                "meta": {"epoch": 300, "cfg": CONFIG},
                "state_dict": prefixed(ours, "backbone.") | heads("neck.projector.0.weight"),
            },
            "barlow_twins",
        ),
        "backbone_bare": (prefixed(numbered(ours), "backbone.") | heads("head.0.weight"), None),
        "state_dict": (  # timm's training
            {
                "epoch": 99,
                "arch": "resnet50",
                "state_dict": ours | heads("fc.weight", "fc.bias"),
                "state_dict_ema": other | heads("fc.weight", "fc.bias"),
                "args": argparse.Namespace(model="resnet50", lr=0.5),
                "metric": numpy.float64(79.0),
            },
            None,
        ),
        "model": (  # torchvision's training
            {
                "model": prefixed(ours | heads("fc.weight", "fc.bias"), "module."),
                "args": argparse.Namespace(model="resnet50", lr=0.5),
                "epoch": 89,
            },
            None,
        ),
    }


WITH_TWO = {  # the layouts of two networks, and what the other one is
    "moco_v3": "key",
    "solo_learn": "target",
    "solo_learn_encoder": "target",
    "lightly_moco": "key",
    "lightly_dino": "student",
    "lightly_dino_benchmark": "student",
    "lightly_byol_benchmark": "target",
    "lightly_momentum": "key",
    "densecl_mmselfsup": "key",
    "moco_mmselfsup": "key",
    "byol_mmselfsup": "target",
    "state_dict": "ema",
}


@pytest.fixture(scope="module")
def resnets(random_resnet):
    return random_resnet(18), random_resnet(18, seed=1)


@pytest.fixture(scope="module")
def every_file(resnets):
    return files(*resnets)


def assert_same(tensors: dict, wanted: dict):
    assert tensors.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(tensors[name], wanted[name])] == []


def in_file(path, state: dict, depth: int) -> dict:
    """The backbone of a Detectron2 weights file under torchvision's names."""
    model, names = read_weights(path)["model"], detectron2_names(depth)
    assert model.keys() == {names[name] for name in state}
    return {name: torch.as_tensor(model[names[name]]) for name in state}


@pytest.mark.parametrize("layout", sorted(files({"conv1.weight": HEAD}, {"conv1.weight": HEAD})))
def test_the_file_is_found_converted_and_proved(every_file, resnets, tmp_path, layout):
    file, method = every_file[layout]
    torch.save(file, tmp_path / "checkpoint.ckpt")
    report = convert(tmp_path / "checkpoint.ckpt", tmp_path / "w.pkl")
    assert (report.layout, report.method) == (layout, method or "unknown")
    assert report.other == WITH_TWO.get(layout, "")
    assert [stage.name for stage in report.stages][1:] == ["stem", "res2", "res3", "res4", "res5"]
    assert_same(in_file(tmp_path / "w.pkl", resnets[0], 18), resnets[0])


@pytest.mark.parametrize("layout", sorted(WITH_TWO))
def test_the_other_network(every_file, resnets, layout):
    file, _ = every_file[layout]
    found = recognise(file, branch=WITH_TWO[layout])
    assert found.layout == layout and found.branch == WITH_TWO[layout]
    assert_same(found.backbone, resnets[1])


def test_the_command_line_says_the_branch_and_chooses_it(every_file, resnets, tmp_path, capsys):
    path, out = tmp_path / "vit.pth.tar", tmp_path / "w.pkl"
    torch.save(every_file["moco_v3"][0], path)
    assert densessl.main(["convert", str(path), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{path}: MoCo-v3 (moco_v3 layout), query branch -> {out} (detectron2)" in said
    assert "from state_dict:module.base_encoder.*" in said and "--branch key takes it" in said
    assert read_weights(out)["densessl"]["branch"] == "query"
    options = ["--branch", "teacher", "--method", "mine", "--force"]
    assert densessl.main(["convert", str(path), "-o", str(out), *options]) == 0
    assert "moco_v3 layout), key branch" in capsys.readouterr().out
    assert_same(in_file(out, resnets[1], 18), resnets[1])
    assert read_weights(out)["densessl"]["method"] == "mine"


def test_without_its_momentum_network_a_module_has_one_branch(resnets):
    state = prefixed(resnets[0], "backbone.") | heads("classifier.weight", "projector.0.weight")
    found = recognise(LIGHTNING | {"state_dict": state})
    assert (found.layout, found.branch, found.other) == ("solo_learn", "", "")


@pytest.mark.slow
def test_deep_networks_of_timm_and_torchvision(random_resnet, tmp_path):
    resnet = random_resnet(101)
    torch.save(resnet | heads("fc.weight"), tmp_path / "resnet101.pth")
    report = convert(tmp_path / "resnet101.pth", tmp_path / "w.pkl", method="supervised")
    assert (report.title, report.tensors, report.method) == ("ResNet-101", 624, "supervised")
    assert_same(in_file(tmp_path / "w.pkl", resnet, 101), resnet)


def test_the_method_in_an_openmmlab_config(resnets):
    state = prefixed(resnets[0], "backbone.")
    for meta, method in (
        ({"config": CONFIG.replace("BarlowTwins", "SimSiam")}, "simsiam"),
        ({"cfg": CONFIG.replace("BarlowTwins", "MoCoV3")}, "moco_v3"),
        ({"cfg": "no model"}, "unknown"),
        ({}, "unknown"),
    ):
        assert recognise({"meta": meta, "state_dict": state}).method == method


# Detectron2 and back ------------------------------------------------------------------------------


def detector(state: dict, depth: int, c4: bool) -> dict:
    """The arrays of a detector: its backbone, in an FPN or with res5 in the head, and its heads."""
    names, arrays = detectron2_names(depth), {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue  # FrozenBatchNorm2d has none
        place = "roi_heads." if c4 and names[name].startswith("res5") else "backbone."
        place += "" if c4 else "bottom_up."
        arrays[place + names[name]] = tensor.numpy()
    others = ("proposal_generator.rpn_head.conv.weight", "roi_heads.res5.norm.weight")
    others += ("roi_heads.box_predictor.cls_score.bias", "roi_heads.mask_head.deconv.weight")
    return arrays | {name: numpy.full((2, 2), 7.0, "f4") for name in others}


@pytest.mark.parametrize("depth, c4", [(50, True), (18, False)], ids=["C4", "FPN"])
def test_a_detectors_backbone_goes_back_to_torchvision(random_resnet, tmp_path, depth, c4):
    resnet = random_resnet(depth)
    held = {"model": detector(resnet, depth, c4), "__author__": "someone"}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(held))
    report = convert(tmp_path / "model_final.pkl", tmp_path / "w.pth")
    assert (report.layout, report.target) == ("detectron2_model", "torchvision")
    assert report.title == f"ResNet-{depth}"
    assert report.counters_added == (53 if c4 else 20) and "does not say how its images" in str(
        report
    )
    state = torch.load(tmp_path / "w.pth", weights_only=True)
    counters = {name for name in resnet if name.endswith("num_batches_tracked")}
    assert state.keys() == resnet.keys()
    assert all(torch.equal(state[n], t) for n, t in resnet.items() if n not in counters)
    assert {int(state[n]) for n in counters} == {0}


def test_a_detectors_fpn_travels_too(resnets, tmp_path):
    arrays = detector(resnets[0], 18, c4=False)
    for level, channels in ((2, 64), (3, 128), (4, 256), (5, 512)):
        for part, side, width in (("lateral", 1, channels), ("output", 3, 256)):
            name = f"backbone.fpn_{part}{level}"
            weight = torch.randn(256, width, side, side, generator=torch.Generator().manual_seed(1))
            arrays[f"{name}.weight"] = (weight / (width * side**2) ** 0.5).numpy()
            arrays[f"{name}.bias"] = numpy.full(256, 0.1, "f4")
    torch.save({"model": arrays_as_tensors(arrays), "iteration": 9}, tmp_path / "model_final.pth")
    report = convert(tmp_path / "model_final.pth", tmp_path / "w.pkl")
    assert report.fpn_tensors == 16
    assert [stage.name for stage in report.stages][-4:] == ["p5", "p4", "p3", "p2"]


def arrays_as_tensors(arrays: dict) -> dict:
    return {name: torch.as_tensor(array) for name, array in arrays.items()}


def test_the_model_zoos_networks_keep_their_stride_and_their_images(random_resnet, tmp_path):
    resnet = random_resnet(50)
    held = {"model": detector(resnet, 50, c4=False), "__author__": "Detectron2 Model Zoo"}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(held))
    report = convert(tmp_path / "zoo.pkl", tmp_path / "w.pth")
    assert "BGR, mean 103.53 116.28 123.675, deviation 1 1 1" in str(report)
    assert "stride in the 1x1" in str(report)
    lines = "\n".join(line.removeprefix(" " * 14) for line in report.next_command.splitlines())
    names = {"torchvision": torchvision, "torch": torch}
    exec(lines, names)
    assert names["network"].layer3[0].conv1.stride == (2, 2)
    assert names["network"].layer3[0].conv2.stride == (1, 1)
    back = convert(tmp_path / "w.pth", tmp_path / "back.pkl")
    facts = read_weights(tmp_path / "back.pkl")["densessl"]
    assert back.stages[-1].equal and facts["stride_in_1x1"] is True
    assert facts["channel_order"] == "BGR"
    assert facts["normalization"]["pixel_std"] == [1, 1, 1]


def test_two_tensors_of_one_place_are_refused(resnets):
    model = detector(resnets[0], 18, c4=False)
    model["backbone.stem.conv1.weight"] = model["backbone.bottom_up.stem.conv1.weight"] + 1
    with pytest.raises(InputError, match=r"holds conv1\.weight twice"):
        recognise({"model": model, "__author__": "someone"})


def test_a_part_of_a_network_under_caffe2s_names():
    blobs = {"conv1_w": numpy.zeros((64, 3, 7, 7)), "res2_0_branch2a_w": numpy.zeros(1)}
    with pytest.raises(InputError, match="have 1, 0, 0, 0 blocks"):
        recognise({"model": blobs, "__author__": "Caffe2"})
