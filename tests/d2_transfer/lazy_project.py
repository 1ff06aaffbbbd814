"""A LazyConfig as a user of Detectron2 has it; a test writes where the scenes lie."""

import json
from pathlib import Path

import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, ResNet
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import BasicStem
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from detectron2.structures import BoxMode
from fvcore.common.param_scheduler import MultiStepParamScheduler

ROOT = None
COCO = Path(ROOT or "") / "coco"


def read(split, most):
    held = json.loads((COCO / f"annotations/instances_{split}2017.json").read_text())
    ids = {each["id"]: number for number, each in enumerate(held["categories"])}
    return [
        {
            "file_name": str(COCO / f"{split}2017" / image["file_name"]),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "annotations": [
                {
                    "bbox": each["bbox"],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": ids[each["category_id"]],
                    "iscrowd": each["iscrowd"],
                }
                for each in held["annotations"]
                if each["image_id"] == image["id"]
            ],
        }
        for image in held["images"][:most]
    ]


for name, split, most in (("lazy_train", "train", 8), ("lazy_val", "val", 4)):
    DatasetCatalog.register(name, lambda split=split, most=most: read(split, most))
    MetadataCatalog.get(name).set(thing_classes=[str(number) for number in range(80)])

model = L(RetinaNet)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="BN"),
            stages=L(ResNet.make_default_stages)(depth=18, norm="BN"),
            out_features=["res3", "res4", "res5"],
            freeze_at=1,
        ),
        in_features=["res3", "res4", "res5"],
        out_channels=64,
        top_block=L(LastLevelP6P7)(in_channels=512, out_channels="${..out_channels}"),
    ),
    head=L(RetinaNetHead)(
        input_shape=[L(ShapeSpec)(channels=64)] * 5,
        num_classes="${..num_classes}",
        conv_dims=[64, 64],
        num_anchors=9,
    ),
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in [8, 16, 32, 64, 128]],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32, 64, 128],
        offset=0.0,
    ),
    box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
    anchor_matcher=L(Matcher)(
        thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
    ),
    num_classes=80,
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
    input_format="RGB",
)
dataloader = {
    "train": L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="lazy_train"),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(
                    short_edge_length=(128,), sample_style="choice", max_size=213
                ),
                L(T.RandomFlip)(horizontal=True),
            ],
            image_format="RGB",
        ),
        total_batch_size=4,
        num_workers=0,
    ),
    "test": L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="lazy_val", filter_empty=False),
        mapper=L(DatasetMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=128, max_size=213)],
            image_format="${...train.mapper.image_format}",
        ),
        num_workers=0,
    ),
    "evaluator": L(COCOEvaluator)(dataset_name="${..test.dataset.names}"),
}
optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[60, 90]),
    warmup_length=0.1,
    warmup_method="linear",
    warmup_factor=0.001,
)
train = {
    "output_dir": "./out",
    "init_checkpoint": "",
    "max_iter": 90,
    "amp": {"enabled": False},
    "eval_period": 0,
    "checkpointer": {"period": 5000, "max_to_keep": 2},
    "device": "cuda",
}
