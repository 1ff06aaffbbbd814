"""Semantic segmentation, and your own data, in miniature from a pretrained checkpoint: they learn.

As in test_learn_detection.py: trained and evaluated on the same few scenes.
"""

import pytest

from densessl.d2_transfer import protocols

pytestmark = pytest.mark.slow

SMALL = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]


@pytest.mark.parametrize(
    "protocol, variant, gain, steps",
    [
        ("voc_semseg", "fcn_d8", 20, 75),  # nothing but background: 16
        ("voc_semseg", "moco_fcn", 20, 75),
        ("cityscapes_semseg", "fcn_d8", 15, 30),
        ("cityscapes_semseg", "moco_fcn", 15, 50),
        ("ade20k_semseg", "fcn_d8", 15, 30),
        ("ade20k_semseg", "semantic_fpn", 15, 50),
        ("cityscapes_semseg", "deeplab_v3plus", 15, 50),
    ],
)
def test_a_segmentor_learns(
    protocol, variant, gain, steps, learns, pretrained, few_scenes, four_scenes, tmp_path
):
    data = few_scenes if variant == "deeplab_v3plus" else four_scenes  # tried on eight
    train = protocols.PROTOCOLS[protocol].datasets[0]
    depth = 50 if variant in ("moco_fcn", "deeplab_v3plus") else 18
    overrides = ["DATASETS.TEST", f"('{train}',)", *(SMALL if depth == 18 else [])]
    overrides += ["SOLVER.MAX_ITER", str(steps)]
    metric = "sem_seg/mIoU"
    learns(protocol, variant, pretrained(depth), data, tmp_path, overrides, metric, gain)


@pytest.mark.parametrize(
    "protocol, metric", [("custom_det", "bbox/AP50"), ("custom_mask", "bbox/AP50")]
)
def test_your_own_data_are_learnt(protocol, metric, learns, pretrained, four_scenes, tmp_path):
    from densessl.d2_transfer.datasets import custom

    annotations = four_scenes / "coco" / "annotations" / "instances_train2017.json"
    images = four_scenes / "coco" / "train2017"
    own = custom.read(
        annotations, images, annotations, images, need_masks=protocol == "custom_mask"
    )
    flags = ["--train-json", annotations, "--train-images", images]
    flags += ["--val-json", annotations, "--val-images", images]
    overrides = [*SMALL, "SOLVER.MAX_ITER", "60"]
    learns(
        *(protocol, "", pretrained(18), four_scenes, tmp_path, overrides, metric, 10),
        flags=[str(flag) for flag in flags],
        own=own,
    )
