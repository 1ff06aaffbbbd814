"""Every field of the semantic protocols' configs against the papers' tables."""

import pytest
import yaml

from densessl.configs import FOLDER
from densessl.d2_transfer import compat, config_files
from densessl.d2_transfer.results import flat

SHARED = {
    "MODEL.META_ARCHITECTURE": "FCNSegmentor",
    "MODEL.PIXEL_MEAN": [123.675, 116.280, 103.530],
    "MODEL.PIXEL_STD": [58.395, 57.120, 57.375],
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.SEM_SEG_HEAD.NAME": "FCNHead",
    "MODEL.SEM_SEG_HEAD.NORM": "SyncBN",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
    "MODEL.SEM_SEG_HEAD.NUM_CONVS": 2,
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 1.0,
    "INPUT.FORMAT": "RGB",
    "INPUT.RATIO_RANGE": [0.5, 2.0],
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute",
    "DATALOADER.ASPECT_RATIO_GROUPING": False,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY_BIAS": None,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.AMP.ENABLED": False,
    "TEST.EVAL_PERIOD": 0,
    "TEST.PRECISE_BN.ENABLED": False,
    "TEST.AUG.ENABLED": False,
    "CUDNN_BENCHMARK": True,
    "VERSION": 2,
}
FCN_D8 = SHARED | {
    "MODEL.BACKBONE.NAME": "build_resnet_d8_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res4", "res5"],
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 512,
    "MODEL.SEM_SEG_HEAD.DILATION": 1,
    "MODEL.SEM_SEG_HEAD.CONCAT_INPUT": True,
    "MODEL.SEM_SEG_HEAD.DROPOUT": 0.1,
    "MODEL.SEM_SEG_HEAD.AUX_IN_FEATURES": ["res4"],
    "MODEL.SEM_SEG_HEAD.AUX_CONVS_DIM": 256,
    "MODEL.SEM_SEG_HEAD.AUX_NUM_CONVS": 1,
    "MODEL.SEM_SEG_HEAD.AUX_LOSS_WEIGHT": 0.4,
    "INPUT.PHOTOMETRIC_DISTORTION": True,
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 0.75,
    "SOLVER.REFERENCE_WORLD_SIZE": 4,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.WEIGHT_DECAY": 0.0005,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0005,
    "SOLVER.LR_SCHEDULER_NAME": "PolyLR",
    "SOLVER.POLY_POWER": 0.9,
    "SOLVER.MIN_LR": 0.0001,
    "SOLVER.STEPS": [],
}
ON_512 = {
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": False,
    "INPUT.SCALE": [2048, 512],
    "INPUT.CROP.SIZE": [512, 512],
    "TEST.SLIDING_WINDOW.ENABLED": False,
}
VOC = {
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 21,
    "DATASETS.TRAIN": ["voc_2012_aug_semseg_train"],
    "DATASETS.TEST": ["voc_2012_semseg_val"],
}
CITYSCAPES = {
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 19,
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": True,
    "INPUT.CROP.SIZE": [769, 769],
    "DATASETS.TRAIN": ["cityscapes_fine_sem_seg_train"],
    "DATASETS.TEST": ["cityscapes_fine_sem_seg_val"],
}
MOCO_FCN = SHARED | {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res5"],
    "MODEL.RESNETS.RES5_DILATION": 2,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
    "MODEL.SEM_SEG_HEAD.DILATION": 6,
    "MODEL.SEM_SEG_HEAD.CONCAT_INPUT": False,
    "MODEL.SEM_SEG_HEAD.DROPOUT": 0.0,
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": True,
    "MODEL.SEM_SEG_HEAD.AUX_IN_FEATURES": [],
    "INPUT.SCALE": [],
    "INPUT.PHOTOMETRIC_DISTORTION": False,
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 1.0,
    "SOLVER.REFERENCE_WORLD_SIZE": 8,
    "SOLVER.WEIGHT_DECAY": 0.0001,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.GAMMA": 0.1,
    "TEST.SLIDING_WINDOW.ENABLED": False,
}
# mmsegmentation, configs/_base_/models/fpn_r50.py and configs/sem_fpn.
SEMANTIC_FPN = (
    FCN_D8
    | ON_512
    | {
        "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.FPN.OUT_CHANNELS": 256,
        "MODEL.FPN.NORM": "",
        "MODEL.SEM_SEG_HEAD.NAME": "SemSegFPNHead",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 128,
        "MODEL.SEM_SEG_HEAD.AUX_IN_FEATURES": [],
    }
)
# Detectron2, projects/DeepLab, deeplab_v3_plus_R_103_os16_mg124_poly_90k_bs16.yaml with its base,
# for a ResNet-50 with the plain stem.
DEEPLAB = {key: value for key, value in SHARED.items() if ".NUM_CONVS" not in key} | {
    "MODEL.META_ARCHITECTURE": "DeepLabSegmentor",
    "MODEL.BACKBONE.NAME": "build_resnet_deeplab_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res5"],
    "MODEL.RESNETS.STEM_TYPE": "basic",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.RES4_DILATION": 1,
    "MODEL.RESNETS.RES5_DILATION": 2,
    "MODEL.RESNETS.RES5_MULTI_GRID": [1, 2, 4],
    "MODEL.SEM_SEG_HEAD.NAME": "DeepLabV3PlusHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res5"],
    "MODEL.SEM_SEG_HEAD.PROJECT_FEATURES": ["res2"],
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [48],
    "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS": 256,
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": [6, 12, 18],
    "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT": 0.1,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
    "MODEL.SEM_SEG_HEAD.LOSS_TYPE": "hard_pixel_mining",
    "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV": False,
    "INPUT.SCALE": [2048, 1024],
    "INPUT.CROP.SIZE": [512, 1024],
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 1.0,
    "INPUT.PHOTOMETRIC_DISTORTION": False,
    "SOLVER.REFERENCE_WORLD_SIZE": 8,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.WEIGHT_DECAY": 0.0001,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupPolyLR",
    "SOLVER.POLY_LR_POWER": 0.9,
    "SOLVER.POLY_LR_CONSTANT_ENDING": 0.0,
    "SOLVER.WARMUP_ITERS": 1000,
    "SOLVER.WARMUP_FACTOR": 0.001,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.STEPS": [],
    "SOLVER.MAX_ITER": 90000,
    "TEST.SLIDING_WINDOW.ENABLED": False,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 19,
    "DATASETS.TRAIN": ["cityscapes_fine_sem_seg_train"],
    "DATASETS.TEST": ["cityscapes_fine_sem_seg_val"],
}
EXPECTED = {
    "cityscapes_semseg_deeplab_v3plus": DEEPLAB,
    "ade20k_semseg_semantic_fpn": SEMANTIC_FPN
    | {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 150,
        "DATASETS.TRAIN": ["ade20k_sem_seg_train"],
        "DATASETS.TEST": ["ade20k_sem_seg_val"],
        "SOLVER.MAX_ITER": 160000,
    },
    "cityscapes_semseg_semantic_fpn": SEMANTIC_FPN
    | CITYSCAPES
    | {
        "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": False,
        "INPUT.SCALE": [2048, 1024],
        "INPUT.CROP.SIZE": [512, 1024],
        "SOLVER.IMS_PER_BATCH": 8,
        "SOLVER.MAX_ITER": 80000,
    },
    "voc_semseg_fcn_d8": FCN_D8 | ON_512 | VOC | {"SOLVER.MAX_ITER": 20000},
    "cityscapes_semseg_fcn_d8": FCN_D8
    | CITYSCAPES
    | {
        "INPUT.SCALE": [2049, 1025],
        "SOLVER.IMS_PER_BATCH": 8,
        "SOLVER.MAX_ITER": 40000,
        "TEST.SLIDING_WINDOW.ENABLED": True,
        "TEST.SLIDING_WINDOW.SIZE": 769,
        "TEST.SLIDING_WINDOW.STRIDE": 513,
    },
    "ade20k_semseg_fcn_d8": FCN_D8
    | ON_512
    | {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 150,
        "DATASETS.TRAIN": ["ade20k_sem_seg_train"],
        "DATASETS.TEST": ["ade20k_sem_seg_val"],
        "SOLVER.MAX_ITER": 80000,
    },
    "voc_semseg_moco_fcn": MOCO_FCN
    | VOC
    | {
        "INPUT.CROP.SIZE": [513, 513],
        "SOLVER.BASE_LR": 0.003,
        "SOLVER.STEPS": [21000, 27000],
        "SOLVER.MAX_ITER": 30000,
    },
    "cityscapes_semseg_moco_fcn": MOCO_FCN
    | CITYSCAPES
    | {
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.STEPS": [63000, 81000],
        "SOLVER.MAX_ITER": 90000,
    },
}


def options(*files, named=()):
    cfg = compat.get_cfg(named)
    for name in files:
        cfg.merge_from_file(str(FOLDER / "transfer" / f"{name}.yaml"))
    return flat(yaml.safe_load(cfg.dump()))


def named(name):
    """The projects that a config is made of."""
    return config_files.read(FOLDER / "transfer" / f"{name}.yaml").projects


@pytest.mark.parametrize("name", EXPECTED)
def test_a_semantic_protocol_is_what_its_paper_says(name):
    found = options(name, named=named(name))
    assert {key: found[key] for key in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_else_differs_from_the_defaults_of_detectron2(name):
    found, default = options(name, named=named(name)), options(named=named(name))
    assert {key for key in found if found[key] != default[key]} <= set(EXPECTED[name])


def test_every_semantic_config_is_in_the_table():
    data = ("ade20k", "cityscapes", "voc")
    files = [path for each in data for path in (FOLDER / "transfer").glob(f"{each}_semseg_*.yaml")]
    assert {path.stem for path in files} == set(EXPECTED)
