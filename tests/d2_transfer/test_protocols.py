"""The protocols' configs against the papers' tables, and what changes them."""

import pytest
import yaml

from console.errors import InputError
from d2_transfer import compat, main, protocols
from d2_transfer.results import flat

# Every field of the C4 protocol that differs from Detectron2's defaults, and those left at their
# default that matter (MoCo, detection/configs/pascal_voc_R_50_C4_24k_moco.yaml).
VOC_DET_C4 = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
    "MODEL.ROI_HEADS.NUM_CLASSES": 20,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.MASK_ON": False,
    "MODEL.PIXEL_MEAN": [123.675, 116.280, 103.530],
    "MODEL.PIXEL_STD": [58.395, 57.120, 57.375],
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TRAIN": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.RANDOM_FLIP": "horizontal",
    "DATASETS.TRAIN": ["voc_2007_trainval", "voc_2012_trainval"],
    "DATASETS.TEST": ["voc_2007_test"],
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.STEPS": [18000, 22000],
    "SOLVER.GAMMA": 0.1,
    "SOLVER.MAX_ITER": 24000,
    "SOLVER.WARMUP_ITERS": 100,
    "SOLVER.WARMUP_FACTOR": 0.001,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.WEIGHT_DECAY": 0.0001,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.AMP.ENABLED": False,
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
    "TEST.EVAL_PERIOD": 0,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}

LEVELS = ["p2", "p3", "p4", "p5", "p6"]
COCO_MASK_FPN_1X = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.NORM": "SyncBN",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.IN_FEATURES": LEVELS,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": LEVELS[:4],
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.MASK_ON": True,
    "MODEL.PIXEL_MEAN": [123.675, 116.280, 103.530],
    "MODEL.PIXEL_STD": [58.395, 57.120, 57.375],
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
    "INPUT.MIN_SIZE_TEST": 800,
    "DATASETS.TRAIN": ["coco_2017_train"],
    "DATASETS.TEST": ["coco_2017_val"],
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.STEPS": [60000, 80000],
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.WARMUP_ITERS": 1000,
    "SOLVER.AMP.ENABLED": False,
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
}
FOUR_CONV_ONE_FC = {
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.NORM": "SyncBN",
    "MODEL.ROI_MASK_HEAD.NORM": "SyncBN",
}


def options(cfg) -> dict:
    return flat(yaml.safe_load(cfg.dump()))


@pytest.mark.parametrize(
    "name, variant, expected",
    [
        ("voc_det_c4", None, VOC_DET_C4),
        ("coco_mask_fpn_1x", None, COCO_MASK_FPN_1X),
        ("coco_mask_fpn_1x", "moco2fc", COCO_MASK_FPN_1X),
        ("coco_mask_fpn_1x", "4conv1fc", COCO_MASK_FPN_1X | FOUR_CONV_ONE_FC),
    ],
)
def test_a_protocol_is_what_its_paper_says(name, variant, expected):
    found = options(protocols.resolve(name, variant))
    assert {key: found[key] for key in expected} == expected


def test_nothing_else_differs_from_the_defaults_of_detectron2():
    found, default = options(protocols.resolve("voc_det_c4")), options(compat.get_cfg())
    changed = {key for key in found if found[key] != default[key]}
    assert changed - set(VOC_DET_C4) == {"SOLVER.REFERENCE_WORLD_SIZE"}


def test_the_two_fpn_variants_differ_in_their_heads_alone():
    one = options(protocols.resolve("coco_mask_fpn_1x", "moco2fc"))
    other = options(protocols.resolve("coco_mask_fpn_1x", "4conv1fc"))
    assert {key for key in one if one[key] != other[key]} == set(FOUR_CONV_ONE_FC)


def test_fewer_gpus_scale_batch_rate_and_schedule():
    solver = protocols.resolve("voc_det_c4", gpus=2).SOLVER
    assert (4, pytest.approx(0.005)) == (solver.IMS_PER_BATCH, solver.BASE_LR)
    assert (solver.STEPS, solver.MAX_ITER, solver.WARMUP_ITERS) == ((72000, 88000), 96000, 400)


def test_the_batch_can_be_kept_on_fewer_gpus():
    kept = options(protocols.resolve("voc_det_c4", gpus=2, keep_batch=True))
    full = options(protocols.resolve("voc_det_c4"))
    changed = {key: value for key, value in kept.items() if value != full[key]}
    assert changed == {"SOLVER.REFERENCE_WORLD_SIZE": 2}


def test_without_cuda_the_norm_is_plain_bn_in_one_process():
    cfg = protocols.resolve("coco_mask_fpn_1x", "4conv1fc", gpus=1, cuda=False)
    norms = [cfg.MODEL[node][key] for node, key in protocols.NORMS]
    assert (cfg.MODEL.DEVICE, norms) == ("cpu", ["BN"] * 4)
    two = protocols.resolve("coco_mask_fpn_1x", "moco2fc", gpus=2, cuda=False)
    assert [two.MODEL[n][k] for n, k in protocols.NORMS] == ["naiveSyncBN"] * 2 + [""] * 2


def test_overrides_win_over_scaling_and_mini():
    cfg = protocols.resolve(
        "voc_det_c4",
        gpus=1,
        mini=True,
        overrides=["SOLVER.MAX_ITER", "30", "MODEL.RPN.NMS_THRESH", ".6"],
    )
    assert (cfg.SOLVER.MAX_ITER, cfg.MODEL.RPN.NMS_THRESH) == (30, 0.6)
    assert cfg.SOLVER.STEPS == (22, 27)  # 18/24 and 22/24 of the way, as in the full protocol
    steps = ["SOLVER.MAX_ITER", "30", "SOLVER.STEPS", "(7,)"]
    assert protocols.resolve("voc_det_c4", gpus=1, mini=True, overrides=steps).SOLVER.STEPS == (7,)


@pytest.mark.parametrize("name, variant", [("voc_det_c4", ""), ("coco_mask_fpn_1x", "4conv1fc")])
def test_mini_shrinks_every_protocol_and_keeps_what_it_is_about(name, variant):
    mini, full = (
        protocols.resolve(name, variant, gpus=1, mini=True),
        protocols.resolve(name, variant),
    )
    sizes = [size for level in mini.MODEL.ANCHOR_GENERATOR.SIZES for size in level]
    ratio = mini.INPUT.MIN_SIZE_TEST / full.INPUT.MIN_SIZE_TEST
    assert sizes == pytest.approx([size * ratio for size in (32, 64, 128, 256, 512)])
    assert mini.MODEL.RPN.POST_NMS_TOPK_TEST <= 50
    assert mini.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE <= 32
    for key in ("MODEL.RESNETS", "MODEL.FPN", "MODEL.BACKBONE", "DATASETS"):
        node, whole = mini, full
        for part in key.split("."):
            node, whole = node[part], whole[part]
        assert node == whole


@pytest.mark.parametrize(
    "overrides, says",
    [
        (["SOLVER.BASE_RL", "1"], "SOLVER.BASE_LR"),
        (["SOLVER.BASE_LR"], "no value"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER is 'many'; allowed is a whole number"),
        (["MODEL.RESNETS.NORM", "5"], "allowed is a name"),
        (["SOLVER.IMS_PER_BATCH", "3"], "multiple of the number of GPUs"),
        (["SOLVER.STEPS", "(24000,)"], "SOLVER.STEPS"),
        (["SOLVER.BASE_LR", "0."], "more than 0"),
    ],
)
def test_a_wrong_override_is_one_message(overrides, says):
    with pytest.raises(InputError) as caught:
        protocols.resolve("voc_det_c4", gpus=8, overrides=overrides)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [["MODEL.DEVICE", "cuda"], ["SOLVER.AMP.ENABLED", "True"], ["MODEL.RESNETS.NORM", "SyncBN"]],
)
def test_what_needs_cuda_is_refused_without(overrides):
    with pytest.raises(InputError, match="CUDA"):
        protocols.resolve("voc_det_c4", gpus=1, cuda=False, overrides=overrides)


def test_unknown_names_get_the_nearest():
    with pytest.raises(InputError, match="'voc_det_c4'"):
        protocols.resolve("voc_det_c5")
    with pytest.raises(InputError, match="'moco2fc'"):
        protocols.resolve("coco_mask_fpn_1x", "moco2f")
    with pytest.raises(InputError, match="no variants"):
        protocols.resolve("voc_det_c4", "moco2fc")


def test_the_printed_config_reads_back_as_itself(capsys, tmp_path):
    words = ["--protocol", "coco_mask_fpn_1x", "--variant", "4conv1fc", "--print-config"]
    assert main.main([*words, "SOLVER.BASE_LR", "0.01"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "config.yaml").write_text(printed)
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(tmp_path / "config.yaml"), allow_unsafe=False)
    assert yaml.safe_load(cfg.dump()) == yaml.safe_load(printed)
    changed = ["SOLVER.BASE_LR", "0.01"]
    assert options(cfg) == options(
        protocols.resolve("coco_mask_fpn_1x", "4conv1fc", overrides=changed)
    )


def test_the_list_names_protocols_variants_and_metrics(capsys):
    assert main.main(["--list"]) == 0
    printed = capsys.readouterr().out
    for protocol in protocols.PROTOCOLS.values():
        assert protocol.name in printed
        assert all(word in printed for word in (*protocol.variants, *protocol.metrics))


@pytest.mark.parametrize("name, variant", [("voc_det_c4", ""), ("coco_mask_fpn_1x", "4conv1fc")])
def test_the_detector_is_as_large_as_the_disk_check_assumes(name, variant):
    from detectron2.modeling import build_model

    from d2_transfer import modeling  # noqa: F401

    protocol, _ = protocols.find(name, variant)
    model = build_model(protocols.resolve(name, variant, gpus=1, cuda=False))
    parameters = sum(each.numel() for each in model.parameters()) / 1e6
    assert 0.9 * protocol.parameters < parameters < 1.1 * protocol.parameters


@pytest.mark.parametrize("norm", ["BN", "naiveSyncBN"])
def test_the_extra_norm_follows_res5(norm):
    from detectron2.modeling import build_model

    from d2_transfer import modeling  # noqa: F401

    cfg = protocols.resolve(
        "voc_det_c4", gpus=1, cuda=False, overrides=["MODEL.RESNETS.NORM", norm]
    )
    model = build_model(cfg)
    fresh = [key for key in model.state_dict() if key.startswith("roi_heads.res5.norm.")]
    assert {key.rsplit(".", 1)[1] for key in fresh} == {
        *("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert list(dict(model.roi_heads.res5.named_children())) == ["0", "1", "2", "norm"]
    assert type(model.roi_heads.res5.norm) is type(model.roi_heads.res5[0].conv1.norm)
    assert model.roi_heads.res5.norm.num_features == 2048
