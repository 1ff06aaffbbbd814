"""Every field of every detection protocol against a table of the papers' and repositories' values.

The semantic protocols have theirs in test_semantic_configs.py.
"""

import pytest
import yaml

from densessl.d2_transfer import compat, projects
from densessl.d2_transfer.protocols import DETECTION, PROTOCOLS
from densessl.d2_transfer.resolve import resolve
from densessl.d2_transfer.results import flat

# Every field of a protocol that differs from Detectron2's defaults, and those left at their default
# that matter. VOC: MoCo, detection/configs/pascal_voc_R_50_C4_24k_moco.yaml.
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

TWO = {"SOLVER.STEPS": [120000, 160000], "SOLVER.MAX_ITER": 180000}
# PixPro, transfer/detection/configs/COCO_R_50_C4_1x.yaml: the C4 model with masks, on COCO.
COCO_MASK_C4_1X = VOC_DET_C4 | {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
    "DATASETS.TRAIN": ["coco_2017_train"],
    "DATASETS.TEST": ["coco_2017_val"],
    "SOLVER.STEPS": [60000, 80000],
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.WARMUP_ITERS": 1000,
}
RESIM_RELEASED = {"MODEL.BACKBONE.FREEZE_AT": 2, "TEST.PRECISE_BN.ENABLED": False}
# Detectron2, COCO-Keypoints/Base-Keypoint-RCNN-FPN.yaml, with mmselfsup's norms.
COCO_KEYPOINT_FPN_1X = COCO_MASK_FPN_1X | {
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINT_ON": True,
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1500,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": "KRCNNConvDeconvUpsampleHead",
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [512] * 8,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 17,
    "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE": 1,
    "DATASETS.TRAIN": ["keypoints_coco_2017_train"],
    "DATASETS.TEST": ["keypoints_coco_2017_val"],
}
# Detectron2, Cityscapes/mask_rcnn_R_50_FPN.yaml, with mmselfsup's norms.
CITYSCAPES_INST = COCO_MASK_FPN_1X | {
    "MODEL.ROI_HEADS.NUM_CLASSES": 8,
    "INPUT.MIN_SIZE_TRAIN": list(range(800, 1025, 32)),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.MIN_SIZE_TEST": 1024,
    "INPUT.MAX_SIZE_TRAIN": 2048,
    "INPUT.MAX_SIZE_TEST": 2048,
    "DATASETS.TRAIN": ["cityscapes_fine_instance_seg_train"],
    "DATASETS.TEST": ["cityscapes_fine_instance_seg_val"],
    "SOLVER.IMS_PER_BATCH": 8,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.STEPS": [18000],
    "SOLVER.MAX_ITER": 24000,
}
# Detectron2, Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml.
CASCADE = {
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.6, 0.7],
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
}
# MoCo, appendix A.4: the baseline of LVIS on v0.5, 2x; Detectron2, configs/LVISv0.5-… and LVISv1-….
LVIS = {
    "MODEL.ROI_HEADS.NUM_CLASSES": 1230,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0001,
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
    "DATASETS.TRAIN": ["lvis_v0.5_train"],
    "DATASETS.TEST": ["lvis_v0.5_val"],
    "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
    "DATALOADER.REPEAT_THRESHOLD": 0.001,
    "TEST.DETECTIONS_PER_IMAGE": 300,
}
LVIS_V1 = {
    "MODEL.ROI_HEADS.NUM_CLASSES": 1203,
    "DATASETS.TRAIN": ["lvis_v1_train"],
    "DATASETS.TEST": ["lvis_v1_val"],
}
# Detectron2, projects/PointRend, InstanceSegmentation/pointrend_rcnn_R_50_FPN_1x_coco.yaml.
POINTREND = {
    "MODEL.ROI_HEADS.NAME": "PointRendROIHeads",
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True,
    "MODEL.ROI_MASK_HEAD.NAME": "PointRendMaskHead",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "",
    "MODEL.ROI_MASK_HEAD.IN_FEATURES": ["p2"],
    "MODEL.ROI_MASK_HEAD.FC_DIM": 1024,
    "MODEL.ROI_MASK_HEAD.NUM_FC": 2,
    "MODEL.ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON": True,
    "MODEL.POINT_HEAD.NAME": "StandardPointHead",
    "MODEL.POINT_HEAD.NUM_CLASSES": 80,
    "MODEL.POINT_HEAD.CLS_AGNOSTIC_MASK": False,
    "MODEL.POINT_HEAD.IN_FEATURES": ["p2"],
    "MODEL.POINT_HEAD.FC_DIM": 256,
    "MODEL.POINT_HEAD.NUM_FC": 3,
    "MODEL.POINT_HEAD.TRAIN_NUM_POINTS": 196,
    "MODEL.POINT_HEAD.OVERSAMPLE_RATIO": 3,
    "MODEL.POINT_HEAD.IMPORTANCE_SAMPLE_RATIO": 0.75,
    "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 5,
    "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS": 784,
    "INPUT.MASK_FORMAT": "bitmask",
}
# Detectron2, COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml, _3x.yaml.
PANOPTIC = {
    "MODEL.META_ARCHITECTURE": "PanopticFPN",
    "MODEL.SEM_SEG_HEAD.NAME": "SemSegFPNHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 128,
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 54,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 0.5,
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": 0.5,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": 4096,
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": 0.5,
    "DATASETS.TRAIN": ["coco_2017_train_panoptic_separated"],
    "DATASETS.TEST": ["coco_2017_val_panoptic_separated"],
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
}
THREE = {"SOLVER.STEPS": [210000, 250000], "SOLVER.MAX_ITER": 270000}
# mmselfsup, benchmarks/detection/configs/coco_R_50_RetinaNet_1x_moco.yaml.
COCO_RETINANET_1X = {
    "MODEL.META_ARCHITECTURE": "RetinaNet",
    "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.FPN.NORM": "SyncBN",
    "MODEL.ANCHOR_GENERATOR.SIZES": [
        [x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in (32, 64, 128, 256, 512)
    ],
    "MODEL.RETINANET.NUM_CLASSES": 80,
    "MODEL.RETINANET.IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
    "MODEL.RETINANET.IOU_THRESHOLDS": [0.4, 0.5],
    "MODEL.RETINANET.IOU_LABELS": [0, -1, 1],
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.0,
    "MODEL.RETINANET.NORM": "",
    "MODEL.MASK_ON": False,
    "MODEL.PIXEL_MEAN": [123.675, 116.280, 103.530],
    "MODEL.PIXEL_STD": [58.395, 57.120, 57.375],
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
    "INPUT.MIN_SIZE_TEST": 800,
    "DATASETS.TRAIN": ["coco_2017_train"],
    "DATASETS.TEST": ["coco_2017_val"],
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.STEPS": [60000, 80000],
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.WARMUP_ITERS": 1000,
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
}
# AdelaiDet, configs/DenseCL/FCOS_R50_1x_DenseCL.yaml; test_fcos.py has those of MODEL.FCOS.
COCO_FCOS_1X = {
    key: value
    for key, value in COCO_RETINANET_1X.items()
    if not key.startswith(("MODEL.RETINANET", "MODEL.ANCHOR"))
} | {
    "MODEL.META_ARCHITECTURE": "FCOS",
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_p5_backbone",
    "MODEL.FPN.OUT_CHANNELS": 256,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
# Li et al. 2022, appendix; Detectron2, projects/ViTDet, COCO/mask_rcnn_vitdet_b_100ep.py, with
# common/models/mask_rcnn_vitdet.py and common/coco_loader_lsj.py.
COCO_VITDET_B_100EP = {
    key: value
    for key, value in COCO_MASK_FPN_1X.items()
    if not key.startswith(("MODEL.RESNETS", "MODEL.FPN", "INPUT.MIN", "TEST.PRECISE_BN"))
} | {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.BACKBONE.NAME": "build_vitdet_backbone",
    "MODEL.BACKBONE.DROP_PATH": 0.1,
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.RPN.CONV_DIMS": [-1, -1],
    "MODEL.ROI_BOX_HEAD.NAME": "ViTDetBoxHead",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NORM": "LN",
    "MODEL.ROI_MASK_HEAD.NAME": "ViTDetMaskHead",
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.NORM": "LN",
    "INPUT.LSJ.SIZE": 1024,
    "INPUT.LSJ.SCALE": [0.1, 2.0],
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.MASK_FORMAT": "bitmask",
    "INPUT.MIN_SIZE_TEST": 1024,
    "INPUT.MAX_SIZE_TEST": 1024,
    "SOLVER.OPTIMIZER": "adamw",
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.BASE_LR": 0.0001,
    "SOLVER.BETAS": [0.9, 0.999],
    "SOLVER.LAYER_DECAY": 0.7,
    "SOLVER.WEIGHT_DECAY": 0.1,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.STEPS": [163889, 177546],
    "SOLVER.GAMMA": 0.1,
    "SOLVER.MAX_ITER": 184375,
    "SOLVER.WARMUP_ITERS": 250,
    "SOLVER.WARMUP_FACTOR": 0.001,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.AMP.ENABLED": True,
    "TEST.PRECISE_BN.ENABLED": False,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
TABLES = {
    ("voc_det_c4", ""): VOC_DET_C4,
    ("voc_det_c4_frozen", "res5_trainable"): VOC_DET_C4 | {"MODEL.BACKBONE.FREEZE_AT": 4},
    ("voc_det_c4_frozen", "res5_frozen"): VOC_DET_C4
    | {"MODEL.BACKBONE.FREEZE_AT": 4, "MODEL.ROI_HEADS.FREEZE_RES5": True},
    ("coco_mask_c4_1x", ""): COCO_MASK_C4_1X,
    ("coco_mask_c4_2x", ""): COCO_MASK_C4_1X | TWO,
    ("coco_mask_fpn_1x", "moco2fc"): COCO_MASK_FPN_1X,
    ("coco_mask_fpn_1x", "4conv1fc"): COCO_MASK_FPN_1X | FOUR_CONV_ONE_FC,
    ("coco_mask_fpn_1x", "resim_released"): COCO_MASK_FPN_1X | RESIM_RELEASED,
    ("coco_mask_fpn_2x", "moco2fc"): COCO_MASK_FPN_1X | TWO,
    ("coco_mask_fpn_2x", "4conv1fc"): COCO_MASK_FPN_1X | FOUR_CONV_ONE_FC | TWO,
    ("coco_mask_fpn_2x", "resim_released"): COCO_MASK_FPN_1X | RESIM_RELEASED | TWO,
    ("coco_keypoint_fpn_1x", ""): COCO_KEYPOINT_FPN_1X,
    ("coco_keypoint_fpn_2x", ""): COCO_KEYPOINT_FPN_1X | TWO,
    ("coco_cascade_mask_fpn_1x", ""): COCO_MASK_FPN_1X | CASCADE,
    ("coco_pointrend_1x", ""): COCO_MASK_FPN_1X | POINTREND,
    ("coco_retinanet_1x", ""): COCO_RETINANET_1X,
    ("coco_retinanet_2x", ""): COCO_RETINANET_1X | TWO,
    ("coco_fcos_1x", ""): COCO_FCOS_1X,
    ("coco_panoptic_fpn_1x", ""): COCO_MASK_FPN_1X | PANOPTIC,
    ("coco_panoptic_fpn_3x", ""): COCO_MASK_FPN_1X | PANOPTIC | THREE,
    ("coco_vitdet_b_100ep", ""): COCO_VITDET_B_100EP,
    ("lvis_mask_fpn_2x", ""): COCO_MASK_FPN_1X | TWO | LVIS,
    ("lvis_v1_mask_fpn_2x", ""): COCO_MASK_FPN_1X | TWO | LVIS | LVIS_V1,
    ("cityscapes_inst", ""): CITYSCAPES_INST,
}


def options(cfg) -> dict:
    return flat(yaml.safe_load(cfg.dump()))


def test_every_detection_protocol_has_a_table():
    detection = {
        (protocol.name, variant)
        for protocol in PROTOCOLS.values()
        for variant in protocol.variants
        if protocol.family == DETECTION
        and not protocol.name.endswith("_semseg")
        and not protocol.name.startswith("custom_")
    }
    assert detection == set(TABLES)


@pytest.mark.parametrize("name, variant", TABLES, ids="-".join)
def test_a_protocol_is_what_its_paper_says(name, variant):
    found, table = options(resolve(name, variant)), TABLES[name, variant]
    default = options(compat.get_cfg(projects.among(found)))
    assert {key: found[key] for key in table} == table
    changed = {key for key in found if found[key] != default[key]}
    assert changed - set(table) == {"SOLVER.REFERENCE_WORLD_SIZE"}


@pytest.mark.parametrize("name, variant", TABLES, ids="-".join)
def test_the_datasets_of_the_list_are_those_of_the_config(name, variant):
    cfg = resolve(name, variant)
    assert (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) == PROTOCOLS[name].datasets


@pytest.mark.parametrize("name, variant", TABLES, ids="-".join)
def test_the_first_variant_is_the_default(name, variant):
    first = PROTOCOLS[name].variants[0]
    assert options(resolve(name)) == options(resolve(name, first))
