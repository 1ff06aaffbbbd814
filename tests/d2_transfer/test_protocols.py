"""The protocols' configs against the papers' tables, and what changes them."""

import pytest
import yaml

from densessl.core.errors import InputError
from densessl.d2_transfer import compat, main, protocols
from densessl.d2_transfer.resolve import NORMS, describe_scaling, resolve
from densessl.d2_transfer.results import flat

BATCH = "SOLVER.IMS_PER_BATCH"
DETECTORS = [each.name for each in protocols.PROTOCOLS.values() if each.family == "detection"]


def options(cfg) -> dict:
    return flat(yaml.safe_load(cfg.dump()))


def test_the_two_fpn_variants_differ_in_their_heads_alone():
    one = options(resolve("coco_mask_fpn_1x", "moco2fc"))
    other = options(resolve("coco_mask_fpn_1x", "4conv1fc"))
    assert {key for key in one if one[key] != other[key]} == {
        *("MODEL.ROI_BOX_HEAD.NUM_CONV", "MODEL.ROI_BOX_HEAD.NUM_FC", "MODEL.ROI_BOX_HEAD.NORM"),
        "MODEL.ROI_MASK_HEAD.NORM",
    }


def test_fewer_gpus_scale_batch_rate_and_schedule():
    solver = resolve("voc_det_c4", gpus=2).SOLVER
    assert (4, pytest.approx(0.005)) == (solver.IMS_PER_BATCH, solver.BASE_LR)
    assert (solver.STEPS, solver.MAX_ITER, solver.WARMUP_ITERS) == ((72000, 88000), 96000, 400)


def test_the_floor_of_a_poly_schedule_scales_with_its_rate():
    solver = resolve("voc_semseg", gpus=2).SOLVER  # the source's are four
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER) == (8, 40000)
    assert pytest.approx(0.005) == solver.BASE_LR and pytest.approx(0.00005) == solver.MIN_LR


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("name", DETECTORS)
def test_the_rule_is_detectron2s_with_the_floor_beside_it(name, gpus):
    from detectron2.engine import DefaultTrainer

    source = resolve(name)
    scaled = DefaultTrainer.auto_scale_workers(source, gpus)
    scaled.defrost()
    scaled.SOLVER.MIN_LR *= gpus / source.SOLVER.REFERENCE_WORLD_SIZE
    assert resolve(name, gpus=gpus).dump() == scaled.dump()


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_a_config_to_be_read_is_the_one_that_is_trained_with(name):
    for how in ({}, {"gpus": 2, "cuda": False}, {"gpus": 1, "mini": True}):
        assert resolve(name, plain=True, **how).dump() == resolve(name, **how).dump()


def test_more_gpus_share_the_batch_of_the_source():
    assert options(resolve("voc_semseg", gpus=8)) | {"SOLVER.REFERENCE_WORLD_SIZE": 4} == options(
        resolve("voc_semseg")
    )


def test_what_the_linear_rule_changes_is_said():
    source = resolve("voc_det_c4")
    said = describe_scaling(source, resolve("voc_det_c4", gpus=2), 2)
    assert "2 instead of 8 GPUs: images a step 16 -> 4, learning rate 0.02 -> 0.005" in said
    assert "iterations 24000 -> 96000" in said
    assert describe_scaling(source, resolve("voc_det_c4", gpus=2, keep_batch=True), 2) == ""
    named = ["SOLVER.MAX_ITER", "SOLVER.BASE_LR"]  # the user's own, which the rule leaves alone
    said = describe_scaling(source, resolve("voc_det_c4", gpus=2), 2, named)
    assert "GPUs: images a step 16 -> 4; --keep-batch" in said
    assert not describe_scaling(source, resolve("voc_det_c4", gpus=2), 2, [*named, BATCH])


def test_channels_last_is_the_same_model():
    import torch

    from densessl.d2_transfer.trainer import Trainer

    sizes = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    levels = []
    for layout in ("False", "True"):
        options = [*sizes, "MODEL.CHANNELS_LAST", layout]
        cfg = resolve("coco_mask_fpn_1x", gpus=1, mini=True, cuda=False, overrides=options)
        torch.manual_seed(0)
        model = Trainer.build_model(cfg).eval()
        with torch.no_grad():
            levels.append(model.backbone(image))
    plain, last = levels
    assert last["p2"].is_contiguous(memory_format=torch.channels_last)
    assert not plain["p2"].is_contiguous(memory_format=torch.channels_last)
    for name in plain:
        torch.testing.assert_close(last[name], plain[name], atol=1e-4, rtol=1e-4)


def test_the_batch_can_be_kept_on_fewer_gpus():
    kept = options(resolve("voc_det_c4", gpus=2, keep_batch=True))
    full = options(resolve("voc_det_c4"))
    changed = {key: value for key, value in kept.items() if value != full[key]}
    assert changed == {"SOLVER.REFERENCE_WORLD_SIZE": 2}


def test_without_cuda_the_norm_is_plain_bn_in_one_process():
    cfg = resolve("coco_mask_fpn_1x", "4conv1fc", gpus=1, cuda=False)
    norms = [cfg.MODEL[node][key] for node, key in NORMS]
    assert (cfg.MODEL.DEVICE, norms[:4]) == ("cpu", ["BN"] * 4)
    two = resolve("coco_mask_fpn_1x", "moco2fc", gpus=2, cuda=False)
    assert [two.MODEL[n][k] for n, k in NORMS[:4]] == ["naiveSyncBN"] * 2 + [""] * 2


def test_overrides_win_over_scaling_and_mini():
    cfg = resolve(
        "voc_det_c4",
        gpus=1,
        mini=True,
        overrides=["SOLVER.MAX_ITER", "30", "MODEL.RPN.NMS_THRESH", ".6"],
    )
    assert (cfg.SOLVER.MAX_ITER, cfg.MODEL.RPN.NMS_THRESH) == (30, 0.6)
    assert cfg.SOLVER.STEPS == (22, 27)  # 18/24 and 22/24 of the way, as in the full protocol
    steps = ["SOLVER.MAX_ITER", "30", "SOLVER.STEPS", "(7,)"]
    assert resolve("voc_det_c4", gpus=1, mini=True, overrides=steps).SOLVER.STEPS == (7,)


@pytest.mark.parametrize("name, variant", [("voc_det_c4", ""), ("coco_mask_fpn_1x", "4conv1fc")])
def test_mini_shrinks_every_protocol_and_keeps_what_it_is_about(name, variant):
    mini, full = (
        resolve(name, variant, gpus=1, mini=True),
        resolve(name, variant),
    )
    sizes = [size for level in mini.MODEL.ANCHOR_GENERATOR.SIZES for size in level]
    ratio = mini.INPUT.MIN_SIZE_TEST / full.INPUT.MIN_SIZE_TEST
    assert sizes == pytest.approx([size * ratio for size in (32, 64, 128, 256, 512)])
    assert mini.MODEL.RPN.POST_NMS_TOPK_TEST <= 50
    assert mini.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE <= 32
    for key in ("MODEL.RESNETS", "MODEL.FPN.NORM", "MODEL.BACKBONE", "DATASETS"):
        node, whole = mini, full
        for part in key.split("."):
            node, whole = node[part], whole[part]
        assert node == whole


@pytest.mark.parametrize(
    "name, variant",
    [("coco_mask_c4", ""), ("coco_mask_fpn", "moco2fc"), ("coco_mask_fpn", "4conv1fc")]
    + [("coco_mask_fpn", "resim_released"), ("coco_keypoint_fpn", "")],
)
def test_the_miniatures_of_1x_and_2x_are_one(name, variant):
    """So what the tests see a 1x miniature do holds for its 2x."""
    one = options(resolve(f"{name}_1x", variant, gpus=1, mini=True))
    two = options(resolve(f"{name}_2x", variant, gpus=1, mini=True))
    assert {key for key in one if one[key] != two[key]} <= {"SOLVER.STEPS"}


@pytest.mark.parametrize(
    "overrides, says",
    [
        (["SOLVER.BASE_RL", "1"], "SOLVER.BASE_LR"),
        (["SOLVER.BASE_LR"], "no value"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER is 'many'; it must be a whole number"),
        (["DATASETS.TRAIN", "5"], "DATASETS.TRAIN is '5'; it must be a list"),
        (["SOLVER.IMS_PER_BATCH", "3"], "multiple of the number of GPUs"),
        (["SOLVER.STEPS", "(24000,)"], "SOLVER.STEPS"),
        (["SOLVER.BASE_LR", "0."], "more than 0"),
    ],
)
def test_a_wrong_override_is_one_message(overrides, says):
    with pytest.raises(InputError) as caught:
        resolve("voc_det_c4", gpus=8, overrides=overrides)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [["MODEL.DEVICE", "cuda"], ["MODEL.RESNETS.NORM", "SyncBN"]],
)
def test_what_needs_cuda_is_refused_without(overrides):
    with pytest.raises(InputError, match="CUDA"):
        resolve("voc_det_c4", gpus=1, cuda=False, overrides=overrides)


def test_unknown_names_get_the_nearest():
    with pytest.raises(InputError, match="'voc_det_c4'"):
        resolve("voc_det_c5")
    with pytest.raises(InputError, match="'moco2fc'"):
        resolve("coco_mask_fpn_1x", "moco2f")
    with pytest.raises(InputError, match="no variants"):
        resolve("voc_det_c4", "moco2fc")


def test_the_printed_config_reads_back_as_itself(capsys, tmp_path):
    words = ["--protocol", "coco_mask_fpn_1x", "--variant", "4conv1fc", "--print-config"]
    assert main.main([*words, "SOLVER.BASE_LR", "0.01"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "config.yaml").write_text(printed)
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(tmp_path / "config.yaml"), allow_unsafe=False)
    assert yaml.safe_load(cfg.dump()) == yaml.safe_load(printed)
    changed = ["SOLVER.BASE_LR", "0.01"]
    assert options(cfg) == options(resolve("coco_mask_fpn_1x", "4conv1fc", overrides=changed))


def test_the_list_names_protocols_variants_and_metrics(capsys):
    assert main.main(["--list"]) == 0
    printed = capsys.readouterr().out
    for protocol in protocols.PROTOCOLS.values():
        assert protocol.name in printed
        assert all(word in printed for word in (*protocol.variants, *protocol.metrics))


@pytest.mark.parametrize("name, variant", [("voc_det_c4", ""), ("coco_mask_fpn_1x", "4conv1fc")])
def test_the_detector_is_as_large_as_the_disk_check_assumes(name, variant):
    from detectron2.modeling import build_model

    from densessl.d2_transfer import modeling  # noqa: F401

    protocol, _ = protocols.find(name, variant)
    model = build_model(resolve(name, variant, gpus=1, cuda=False))
    parameters = sum(each.numel() for each in model.parameters()) / 1e6
    assert 0.9 * protocol.parameters < parameters < 1.1 * protocol.parameters


def trained(model) -> set[str]:
    return {name for name, each in model.named_parameters() if each.requires_grad}


@pytest.mark.parametrize("variant", ["res5_trainable", "res5_frozen"])
def test_frozen_means_what_the_variant_says(variant):
    """FREEZE_AT 4: stem to res4; the norms keep the pretrained statistics as FrozenBN."""
    from detectron2.layers import FrozenBatchNorm2d

    from densessl.d2_transfer.trainer import Trainer

    cfg = resolve("voc_det_c4_frozen", variant, gpus=1, cuda=False, mini=True)
    model = Trainer.build_model(cfg)
    names = trained(model)
    assert not any(name.startswith("backbone.") for name in names)
    res5 = {name for name in names if name.startswith("roi_heads.res5.") and ".norm.w" in name}
    blocks = {
        name for name in names if name.startswith(tuple(f"roi_heads.res5.{n}" for n in "012"))
    }
    assert bool(blocks) == (variant == "res5_trainable")
    assert "roi_heads.res5.norm.weight" in names and res5
    assert {name.split(".")[0] for name in names} == {"proposal_generator", "roi_heads"}
    frozen = [each for each in model.modules() if isinstance(each, FrozenBatchNorm2d)]
    assert len(frozen) == (53 if variant == "res5_frozen" else 53 - 10)


@pytest.mark.parametrize("norm", ["BN", "naiveSyncBN"])
def test_the_extra_norm_follows_res5(norm):
    from detectron2.modeling import build_model

    from densessl.d2_transfer import modeling  # noqa: F401

    cfg = resolve("voc_det_c4", gpus=1, cuda=False, overrides=["MODEL.RESNETS.NORM", norm])
    model = build_model(cfg)
    fresh = [key for key in model.state_dict() if key.startswith("roi_heads.res5.norm.")]
    assert {key.rsplit(".", 1)[1] for key in fresh} == {
        *("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert list(dict(model.roi_heads.res5.named_children())) == ["0", "1", "2", "norm"]
    assert type(model.roi_heads.res5.norm) is type(model.roi_heads.res5[0].conv1.norm)
    assert model.roi_heads.res5.norm.num_features == 2048
