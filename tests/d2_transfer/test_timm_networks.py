"""timm's networks from a checkpoint to timm, safetensors and a detector, each tensor proved."""

import pickle
import subprocess
import sys

import pytest
import timm
import torch
import torchvision

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import compat
from densessl.d2_transfer.backbone_choice import follow, use_weights
from densessl.d2_transfer.checkpoints import AtomicCheckpointer
from densessl.d2_transfer.classification.networks import build_backbone, stages_of
from densessl.d2_transfer.convert import ProofFailed, convert, prove_network, read_weights
from densessl.d2_transfer.convert.hub import write_folder
from densessl.d2_transfer.convert.inspection import examine
from densessl.d2_transfer.resolve import resolve
from densessl.d2_transfer.trainer import Trainer
from densessl.d2_transfer.weights import check_loaded, prepare
from densessl.weight_files import timm_networks
from densessl.weight_files.recognise import from_file, recognise

compat.setup()
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec  # noqa: E402

PYRAMID, VIT, NORMED = "test_convnext", "test_vit2", "test_efficientnet"
RGB = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "channel_order": "RGB"}


def random_state(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    made = timm_networks.build(f"timm/{name}")
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return made.state_dict()


@pytest.fixture(scope="module")
def checkpoint(our_checkpoint, tmp_path_factory):
    """``checkpoint(name)``: a file as ``densessl pretrain`` leaves it."""
    made = {}

    def file(name: str):
        if name not in made:
            made[name] = our_checkpoint(
                tmp_path_factory.mktemp(name) / "backbone_final.pth",
                backbone=random_state(name),
                config=f"BACKBONE:\n  GROUP_SIZE: 32\n  NAME: timm/{name}\n  NORM: split\n",
                method="densecl",
                normalization=RGB,
                pretrain={"dataset": "scenes", "images": 8, "epochs": 1},
            )
        return made[name]

    return file


@pytest.fixture(scope="module")
def for_detectron2(checkpoint, tmp_path_factory):
    made = {}

    def file(name: str):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(f"{name}_d2") / "w.pkl"
            convert(checkpoint(name), made[name])
        return made[name]

    return file


# Files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [PYRAMID, VIT, NORMED])
@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".pkl"])
def test_every_target_keeps_every_tensor_and_is_read_again(name, ending, checkpoint, tmp_path):
    out = tmp_path / f"w{ending}"
    report = convert(checkpoint(name), out)
    state = torch.load(checkpoint(name), weights_only=True)["backbone"]
    assert (report.network, report.method) == (f"timm/{name}", "densecl")
    assert report.tensors == len(state) and {"input"} < {stage.name for stage in report.stages}
    assert all(stage.equal for stage in report.stages)
    backbone = densessl.load_backbone(out).eval()
    assert backbone.name == f"timm/{name}" and backbone.method == "densecl"
    loaded = backbone.state_dict()
    assert loaded.keys() == state.keys()
    assert [key for key in state if not torch.equal(loaded[key], state[key])] == []
    rows, problem = examine(out)
    assert problem is None
    assert dict(rows)["backbone"].startswith(f"{name} (timm), {len(state)} tensors")


@pytest.mark.parametrize("name", [PYRAMID, NORMED])
def test_a_users_timm_gives_the_same_features(name, checkpoint, tmp_path):
    report = convert(checkpoint(name), tmp_path / "w.pth")
    names = {"timm": timm, "torch": torch}
    exec("\n".join(line.strip() for line in report.next_command.splitlines()), names)
    backbone = densessl.load_backbone(tmp_path / "w.pth", features_only=True).eval()
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        network = names["network"].eval()
        expected = network.forward_intermediates(images, intermediates_only=True)[-4:]
        maps = backbone(images)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]


def test_levels_can_be_chosen(checkpoint):
    backbone = densessl.load_backbone(checkpoint(VIT), levels=["block8"]).eval()
    assert [*backbone(torch.zeros(1, 3, 32, 48))] == ["block8"] == [*backbone.channels]
    with pytest.raises(InputError, match="'layer4' in levels of a timm/test_vit2"):
        densessl.load_backbone(checkpoint(VIT), levels=["layer4"])


def test_files_of_timm_are_taken_by_the_name_that_they_or_people_say(tmp_path):
    network = timm.create_model(PYRAMID).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    with pytest.raises(InputError, match=r"a ConvNeXt .*--from timm/NAME"):
        from_file(tmp_path / "mine.pth")
    _, found = from_file(tmp_path / "mine.pth", f"timm/{PYRAMID}")
    assert found.title == f"{PYRAMID} (timm)" and "head.norm.weight" in found.left
    assert recognise({"arch": PYRAMID, "state_dict": network.state_dict()}).network == found.network
    (tmp_path / "mine.pth").rename(tmp_path / f"{PYRAMID}.pth")
    _, found = from_file(tmp_path / f"{PYRAMID}.pth")
    levels = densessl.load_backbone(tmp_path / f"{PYRAMID}.pth").eval()(torch.ones(1, 3, 64, 64))
    with torch.no_grad():
        expected = network.forward_intermediates(torch.ones(1, 3, 64, 64), intermediates_only=True)
    torch.testing.assert_close([*levels.values()], expected, rtol=0, atol=0)


def test_every_network_is_found_in_timms_source():
    """In a process that has not imported timm, which does not import it."""
    script = (
        "import sys; from densessl.weight_files.timm_networks import may_know\n"
        "print(*filter(may_know, sys.argv[1:]), 'timm' in sys.modules)"
    )
    names = timm.list_models()[::20]
    command = [sys.executable, "-c", script, *names, "checkpoint_0199", "backbone_final", "w"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found == [*names, "False"] and len(names) > 50


def test_what_does_not_fit_is_one_message(checkpoint, tmp_path):
    with pytest.raises(InputError, match="holds no tensors of timm/test_convnext, by timm"):
        from_file(checkpoint(VIT), f"timm/{PYRAMID}")
    with pytest.raises(InputError, match="'timm/test_convnxt'.*mean 'timm/test_convnext'"):
        from_file(checkpoint(VIT), "timm/test_convnxt")
    with pytest.raises(InputError, match="whose names torchvision does not have"):
        convert(checkpoint(VIT), tmp_path / "w.pth", target="torchvision")
    with pytest.raises(InputError, match="--to hub is for torchvision's ResNets"):
        write_folder(checkpoint(VIT), tmp_path / "hub")
    assert [*tmp_path.iterdir()] == []


def test_the_proof_finds_a_tensor_that_is_not_the_sources():
    state = random_state(PYRAMID)
    facts = {"network": f"timm/{PYRAMID}", "channel_order": "RGB"}
    facts["normalization"] = {
        "pixel_mean": [255 * value for value in RGB["mean"]],
        "pixel_std": [255 * value for value in RGB["std"]],
    }
    place = "stages.3.downsample.0.weight"
    changed = state | {place: state[place] + 1}
    assert len(prove_network(state, RGB, state, facts, "timm")) == 5
    with pytest.raises(ProofFailed, match=r"(?s)layer4: largest difference.*stages.3.downsample"):
        prove_network(state, RGB, changed, facts, "timm")


@pytest.mark.parametrize(
    "name", ["resnext50_32x4d", pytest.param("wide_resnet50_2", marks=pytest.mark.slow)]
)
def test_resnexts_and_wide_resnets_convert_as_resnets_do(name, tmp_path):
    torch.manual_seed(0)
    state = getattr(torchvision.models, name)().state_dict()
    torch.save(state, tmp_path / "c.pth")
    report = convert(tmp_path / "c.pth", tmp_path / "w.pkl")
    assert report.network == name and report.depth == 50 and report.tensors == 318
    facts = read_weights(tmp_path / "w.pkl")["densessl"]
    cfg = compat.get_cfg()
    use_weights(cfg, tmp_path / "w.pkl")
    assert facts.get("num_groups", 1) == cfg.MODEL.RESNETS.NUM_GROUPS
    width = facts["num_groups"] * facts["width_per_group"]
    assert facts["width_per_group"] == cfg.MODEL.RESNETS.WIDTH_PER_GROUP
    assert width == state["layer1.0.conv2.weight"].shape[0]
    backbone = densessl.load_backbone(tmp_path / "w.pkl")
    assert backbone.name == name and backbone.channels["layer4"] == 2048


# Frozen features ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name, last", [(PYRAMID, "res5"), (VIT, "block8"), ("test_vit", "block6")])
def test_classification_and_dense_probes_take_its_levels(name, last, checkpoint, tmp_path):
    convert(checkpoint(name), tmp_path / "w.pth")
    network = build_backbone("auto", tmp_path / "w.pth", (96, 64), 0).eval()
    assert stages_of(network.name, ["last"]) == (last,) == (network.last,)
    images = torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8)
    with torch.no_grad():
        maps = network.maps(images, [last])[last]
        levels = densessl.load_backbone(tmp_path / "w.pth").eval()(network._normalised(images))
        expected = levels["cls"] if "cls" in levels else maps.mean((2, 3))
        torch.testing.assert_close(network(images), expected)
    assert maps.shape[1:] == (network.channels, *network.grid(last, (96, 64)))
    with pytest.raises(InputError, match="'res1' in KNN.STAGES with a timm/"):
        stages_of(network.name, ["res1"])


# Detectors ---------------------------------------------------------------------------------------


def config(protocol: str = "coco_mask_fpn_1x", *overrides: str):
    return resolve(protocol, gpus=1, mini=True, cuda=False, overrides=overrides)


@pytest.mark.parametrize("name", [PYRAMID, VIT, NORMED])
def test_a_protocols_backbone_follows_from_the_weights(name, checkpoint, tmp_path):
    cfg = config()
    weights = prepare(str(checkpoint(name)), tmp_path, cfg)
    assert weights.network == f"timm/{name}"
    cfg = follow(cfg, weights.network)
    model = Trainer.build_model(cfg)
    state = torch.load(checkpoint(name), weights_only=True)["backbone"]
    with pytest.raises(InputError, match="did not fill the detector's backbone"):
        check_loaded(model, weights.file)
    AtomicCheckpointer(model).load(weights.file)
    assert check_loaded(model, weights.file) == len(state)
    model.eval()
    levels = model.backbone(torch.zeros(1, 3, 128, 64))
    assert {key: tuple(level.shape[2:]) for key, level in levels.items()} == {
        f"p{n}": (128 >> n, 64 >> n) for n in range(2, 7)
    }
    assert {key: each.stride for key, each in model.backbone.output_shape().items()} == {
        f"p{n}": 2**n for n in range(2, 7)
    }


@pytest.mark.parametrize("protocol", ["coco_fcos_1x", "coco_retinanet_1x"])
@pytest.mark.parametrize("name", [PYRAMID, VIT])
def test_one_stage_detectors_have_their_levels_on_it_and_train_all(
    name, protocol, checkpoint, tmp_path
):
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    cfg = config(protocol)
    weights = prepare(str(checkpoint(name)), tmp_path, cfg)
    model = Trainer.build_model(follow(cfg, weights.network))
    AtomicCheckpointer(model).load(weights.file)
    check_loaded(model, weights.file)
    assert {key: each.stride for key, each in model.backbone.output_shape().items()} == {
        f"p{n}": 2**n for n in range(3, 8)
    }
    boxes = Boxes(torch.tensor([[10.0, 20, 30, 50]]))
    image = {"image": torch.rand(3, 128, 64) * 255}
    image["instances"] = Instances((128, 64), gt_boxes=boxes, gt_classes=torch.tensor([7]))
    with EventStorage():
        sum(model([image]).values()).backward()
    unused = {key for key, each in model.named_parameters() if each.grad is None}
    assert not [key for key in unused if "timm_network" not in key]


def test_a_config_names_the_network_of_a_random_start():
    cfg = follow(config("coco_mask_fpn_1x", "MODEL.BACKBONE.TIMM", PYRAMID))
    assert f"timm/{PYRAMID}" == cfg.MODEL.BACKBONE.TIMM and cfg.is_frozen()
    assert cfg.MODEL.BACKBONE.NAME == "build_timm_fpn_backbone"
    assert follow(config()) == config()


def test_models_that_are_made_of_a_resnets_stages_say_so():
    for protocol in ("coco_mask_c4_1x", "voc_semseg"):
        with pytest.raises(InputError, match="C4 heads and dilated networks are made of a ResNet"):
            follow(config(protocol), f"timm/{PYRAMID}")
    with pytest.raises(InputError, match="is timm/test_vit2, but the weights are of timm/test_con"):
        follow(config("coco_mask_fpn_1x", "MODEL.BACKBONE.TIMM", VIT), f"timm/{PYRAMID}")


def backbone(network: str, **options):
    from densessl.d2_transfer.modeling import TimmBackbone

    return TimmBackbone(network, **options)


def test_frozen_stages_and_norms():
    def frozen(at: int) -> set[str]:
        made = backbone(NORMED, norm="BN", freeze_at=at).timm_network
        return {name for name, p in made.named_parameters() if not p.requires_grad}

    assert frozen(0) == set()
    stem, first = frozen(1), frozen(2)
    assert "conv_stem.weight" in stem < first < frozen(3)
    level = timm_networks.described(f"timm/{NORMED}").modules_of["layer1"]
    assert not any(name.startswith(f"{level}.") for name in stem)
    assert any(name.startswith(f"{level}.") for name in first)
    made = backbone(NORMED, norm="BN", freeze_at=2).timm_network
    norms = {name: type(each) for name, each in made.named_modules() if hasattr(each, "eps")}
    resting = {name for name, kind in norms.items() if kind is FrozenBatchNorm2d}
    before = ("bn1", "blocks.0.", f"{level}.")
    assert resting == {name for name in norms if name.startswith(before)} < norms.keys()
    every = backbone(NORMED, norm="FrozenBN").modules()
    assert not [each for each in every if isinstance(each, torch.nn.BatchNorm2d)]
    with pytest.raises(InputError, match="MODEL.RESNETS.NORM is 'GN'; allowed"):
        backbone(NORMED, norm="GN")
    with pytest.raises(InputError, match="FREEZE_AT is 9; allowed: 0 to 5"):
        backbone(NORMED, freeze_at=9)


def test_frozen_norms_compute_what_batch_norm_computes_in_evaluation():
    state = random_state(NORMED)
    plain = timm_networks.build(f"timm/{NORMED}").eval()
    plain.load_state_dict(state)
    made = backbone(NORMED, norm="FrozenBN", freeze_at=5)
    made.timm_network.load_state_dict(state, strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(made(images).values(), plain(images).values(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_the_simple_pyramid_wants_patches_of_a_power_of_two():
    from densessl.d2_transfer.modeling import SimpleFeaturePyramid

    with pytest.raises(InputError, match="patches of 14 pixels; .* needs patches of 4, 8, 16, 32"):
        SimpleFeaturePyramid(backbone("vit_small_patch14_dinov2"), 8)


def test_a_registered_backbone_needs_a_name_or_weights_of_ours(tmp_path):
    from detectron2.modeling import build_backbone

    cfg = config("coco_mask_fpn_1x", "MODEL.BACKBONE.NAME", "build_timm_fpn_backbone").clone()
    with pytest.raises(InputError, match="MODEL.BACKBONE.TIMM is empty and MODEL.WEIGHTS ''"):
        build_backbone(cfg, ShapeSpec(channels=3))


def test_use_weights_sets_what_the_weights_need(for_detectron2, tmp_path):
    from detectron2.config import get_cfg

    cfg = get_cfg()
    with pytest.raises(InputError, match="MODEL.BACKBONE.NAME is build_resnet_backbone, in whose"):
        use_weights(cfg, for_detectron2(PYRAMID))
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    use_weights(cfg, for_detectron2(PYRAMID))
    assert (
        cfg.INPUT.FORMAT == "RGB"
        and pytest.approx([123.675, 116.28, 103.53]) == cfg.MODEL.PIXEL_MEAN
    )
    assert cfg.MODEL.BACKBONE.NAME == "build_timm_fpn_backbone"
    with open(tmp_path / "zoo.pkl", "wb") as stream:
        pickle.dump({"model": {}, "__author__": "Caffe2"}, stream)
    with pytest.raises(InputError, match="is not of densessl convert"):
        use_weights(cfg, tmp_path / "zoo.pkl")


@pytest.mark.slow
@pytest.mark.parametrize("name, steps", [(PYRAMID, 80), (VIT, 150)])
def test_a_detector_on_it_learns(name, steps, checkpoint, few_scenes, learns, tmp_path):
    overrides = ["DATASETS.TEST", "('coco_2017_train',)", "SOLVER.MAX_ITER", str(steps)]
    weights = tmp_path / "c.pth"
    torch.save(torch.load(checkpoint(name), weights_only=True) | {"method": "moco"}, weights)
    run = ("coco_mask_fpn_1x", "moco2fc", weights, few_scenes, tmp_path, overrides)
    learns(*run, "bbox/AP50", 5)
