"""Models in the place of a protocol's own, and options that nothing reads."""

import pytest

from densessl.core.errors import InputError
from densessl.d2_transfer import compat, datasets
from densessl.d2_transfer.resolve import resolve

compat.setup()  # before any test imports Detectron2

SMALL = [*("MODEL.RESNETS.DEPTH", "18"), *("MODEL.RESNETS.RES2_OUT_CHANNELS", "64")]
LEVELS = "['res2', 'res3', 'res4', 'res5']"
FPN = [*("MODEL.RESNETS.OUT_FEATURES", LEVELS), *("MODEL.FPN.IN_FEATURES", LEVELS)]
SEMANTIC_FPN = [
    *("MODEL.META_ARCHITECTURE", "SemanticSegmentor"),
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.SEM_SEG_HEAD.NAME"),
    *("SemSegFPNHead", "MODEL.SEM_SEG_HEAD.IN_FEATURES", "['p2', 'p3', 'p4', 'p5']"),
    *FPN,
]
RETINANET = [
    *("MODEL.META_ARCHITECTURE", "RetinaNet"),
    *("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone", "MODEL.RESNETS.OUT_FEATURES"),
    *("['res3', 'res4', 'res5']", "MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[32], [64], [128], [256], [512]]"),
]


def check(scenes, protocol, *overrides, mini=True):
    """The config, when its model passes the check."""
    from densessl.d2_transfer.model_check import check_model

    datasets.register(scenes)
    words = [*SMALL, *overrides]
    cfg = resolve(protocol, gpus=1, mini=mini, cuda=False, overrides=words)
    check_model(cfg, words[::2])
    return cfg


def refused(scenes, protocol, *overrides) -> str:
    with pytest.raises(InputError) as caught:
        check(scenes, protocol, *overrides)
    return str(caught.value)


def test_a_depth_that_a_network_does_not_have_is_named(scenes):
    said = refused(scenes, "coco_mask_fpn_1x", "MODEL.RESNETS.DEPTH", "20")
    assert "DEPTH is 20, which MODEL.BACKBONE.NAME" in said and "allowed: 18, 34, 50" in said
    datasets.register(scenes)
    deeplab = resolve(
        "cityscapes_semseg",
        variant="deeplab_v3plus",
        gpus=1,
        mini=True,
        cuda=False,
        overrides=SMALL,
    )
    from densessl.d2_transfer.model_check import check_model

    with pytest.raises(InputError, match="DEPTH is 18, .*deeplab.* allowed: 50, 101, 152$"):
        check_model(deeplab)


def test_another_model_of_a_semantic_protocol_gets_the_same_crops(scenes):
    from detectron2.data import DatasetCatalog

    from densessl.d2_transfer.trainer import build_mapper

    cfg = check(scenes, "ade20k_semseg", *SEMANTIC_FPN)
    record = DatasetCatalog.get("ade20k_sem_seg_train")[0]
    made = build_mapper(cfg, is_train=True)(record)
    assert made["image"].shape == (3, 65, 65) and made["sem_seg"].shape == (65, 65)


def test_sliding_windows_that_a_model_does_not_know_are_refused(scenes):
    from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor

    class OwnSegmentor(SemanticSegmentor):
        """A user's network, which reads no windows."""

    check(scenes, "cityscapes_semseg", *SEMANTIC_FPN)  # Detectron2's own has them
    META_ARCH_REGISTRY._do_register("OwnSegmentor", OwnSegmentor)
    try:
        own = [*SEMANTIC_FPN, "MODEL.META_ARCHITECTURE", "OwnSegmentor"]
        said = refused(scenes, "cityscapes_semseg", *own)
        assert "TEST.SLIDING_WINDOW.ENABLED is True, but MODEL.META_ARCHITECTURE Own" in said
        check(scenes, "cityscapes_semseg", *own, "TEST.SLIDING_WINDOW.ENABLED", "False")
    finally:
        del META_ARCH_REGISTRY._obj_map["OwnSegmentor"]


def test_a_detectors_windows_need_to_be_enabled(scenes):
    words = ["TEST.SLIDING_WINDOW.SIZE", "64", "TEST.SLIDING_WINDOW.STRIDE", "32"]
    said = refused(scenes, "coco_mask_fpn_1x", *words)
    assert said.startswith("TEST.SLIDING_WINDOW.SIZE is set to 64, but TEST.SLIDING_WINDOW.ENABLED")
    check(scenes, "coco_mask_fpn_1x", *words, "TEST.SLIDING_WINDOW.ENABLED", "True")


@pytest.mark.parametrize(
    "protocol, key, value",
    [
        ("ade20k_semseg", "INPUT.MIN_SIZE_TRAIN", "(400,)"),
        ("ade20k_semseg", "SOLVER.GAMMA", "0.5"),
        ("coco_mask_fpn_1x", "INPUT.SCALE", "(65, 65)"),
        ("coco_mask_fpn_1x", "INPUT.PHOTOMETRIC_DISTORTION", "True"),
        ("coco_mask_fpn_1x", "MODEL.RETINANET.NUM_CONVS", "2"),
        ("coco_mask_fpn_1x", "SOLVER.POLY_POWER", "0.5"),
        ("coco_mask_fpn_1x", "DATALOADER.REPEAT_THRESHOLD", "0.01"),
        ("coco_mask_fpn_1x", "TEST.AUG.ENABLED", "True"),
        ("coco_mask_fpn_1x", "SOLVER.AMP.DTYPE", "bfloat16"),  # without AMP
    ],
)
def test_an_option_that_nothing_reads_is_refused(scenes, protocol, key, value):
    said = refused(scenes, protocol, key, value)
    assert f"{key} is set to " in said and "nothing of this config reads it" in said


def test_options_that_are_read_pass(scenes):
    words = [
        *("INPUT.MIN_SIZE_TRAIN", "(64,)", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16"),
        *("MODEL.FPN.OUT_CHANNELS", "32", "SOLVER.GAMMA", "0.5", "SOLVER.IMS_PER_BATCH", "2"),
        *("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "2.0"),
        *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
        *("DATALOADER.REPEAT_THRESHOLD", "0.01"),
        *("SOLVER.CHECKPOINT_PERIOD", "7", "TEST.EVAL_PERIOD", "3", "MODEL.CHANNELS_LAST", "True"),
        *("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "bfloat16"),
    ]
    check(scenes, "coco_mask_fpn_1x", *words)


@pytest.mark.parametrize(
    "protocol, words, needs, has",
    [
        (
            "coco_mask_fpn_1x",
            ["MODEL.META_ARCHITECTURE", "PanopticFPN"],
            "objects and label images",
            "objects",
        ),
        (
            "coco_mask_fpn_1x",
            ["MODEL.META_ARCHITECTURE", "SemanticSegmentor"],
            "label images",
            "objects",
        ),
        ("ade20k_semseg", RETINANET, "objects", "label images"),
    ],
)
def test_a_model_that_learns_from_what_the_data_lack_is_refused(
    scenes, protocol, words, needs, has
):
    said = refused(scenes, protocol, *words)
    assert f"which learns from {needs}; " in said and said.endswith(f" has {has} alone")


def test_retinanets_classes_are_its_own(scenes):
    check(scenes, "coco_mask_fpn_1x", *RETINANET)
    said = refused(scenes, "coco_mask_fpn_1x", *RETINANET, "MODEL.RETINANET.NUM_CLASSES", "20")
    assert "MODEL.RETINANET.NUM_CLASSES is 20, but coco_2017_train has 80 classes" in said


def test_fcos_takes_the_place_of_another_detector(scenes):
    fcos = ["MODEL.META_ARCHITECTURE", "FCOS"]
    said = refused(scenes, "coco_mask_fpn_1x", *fcos)
    assert "MODEL.FCOS.IN_FEATURES has p7, but MODEL.BACKBONE.NAME build_resnet_fpn_ba" in said
    fcos += ["MODEL.BACKBONE.NAME", "build_resnet_fpn_p5_backbone"]
    check(scenes, "coco_mask_fpn_1x", *fcos, "TEST.SLIDING_WINDOW.ENABLED", "True")
    said = refused(scenes, "coco_mask_fpn_1x", *fcos, "MODEL.FCOS.NUM_CLASSES", "20")
    assert "MODEL.FCOS.NUM_CLASSES is 20, but coco_2017_train has 80 classes" in said
    said = refused(scenes, "ade20k_semseg", *fcos, *FPN)
    assert "'FCOS', which learns from objects; " in said and said.endswith(" label images alone")
    said = refused(scenes, "coco_mask_fpn_1x", "MODEL.FCOS.NUM_CONVS", "2")
    assert "MODEL.FCOS.NUM_CONVS is set to 2, but nothing of this config reads it" in said


def test_what_is_read_of_a_config_is_noted_however_it_is_read(scenes):
    from densessl.d2_transfer.model_check import watched

    cfg, read = watched(resolve("voc_det_c4"))
    assert cfg["SOLVER"]["BASE_LR"] == cfg.SOLVER.BASE_LR and not cfg.is_frozen()
    cfg.clone().MODEL.get("MASK_ON")
    noted = {key for key in read if "." in key and key.isupper()}
    assert noted == {"SOLVER.BASE_LR", "MODEL.MASK_ON"}
