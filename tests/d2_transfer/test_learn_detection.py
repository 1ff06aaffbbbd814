"""Every kind of detector in miniature, from a pretrained checkpoint, through the verb: it learns.

A detector that is trained on a handful of scenes and evaluated on the same ones gets well above
what it has untrained, by the protocol's own metric; this is what a wrong label, a wrong box
convention or a head that is not trained cannot do. (On other scenes than those trained on, so few
steps from a barely pretrained backbone show little.) The 2x protocols are, in miniature, the 1x
ones: test_protocols.py compares their configs.
"""

import pytest

from densessl.d2_transfer import protocols

pytestmark = pytest.mark.slow

SMALL = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
# Most of a C4 detector's work is the ResNet-50's last stage, once for each region of each image.
# Two of four scenes are VOC2007's.
TWO_IMAGES = ["SOLVER.IMS_PER_BATCH", "2", "MODEL.RPN.POST_NMS_TOPK_TEST", "16"]
TWO_IMAGES += ["TEST.PRECISE_BN.NUM_ITER", "2"]
COCO = ["DATASETS.TEST", "('coco_2017_train',)"]
VOC = [
    *("DATASETS.TRAIN", "('voc_2007_trainval',)"),
    *("DATASETS.TEST", "('voc_2007_trainval',)"),
]


@pytest.mark.parametrize(
    "protocol, variant, metric, gain, steps",
    [
        ("voc_det_c4", "", "bbox/AP50", 20, 50),
        ("voc_det_c4_frozen", "res5_trainable", "bbox/AP50", 20, 50),
        ("voc_det_c4_frozen", "res5_frozen", "bbox/AP50", 20, 50),
        ("coco_mask_c4_1x", "", "bbox/AP50", 10, 60),
    ],
)
def test_a_c4_detector_learns(
    protocol, variant, metric, gain, steps, learns, pretrained, few_scenes, four_scenes, tmp_path
):
    voc = protocol.startswith("voc")
    data = four_scenes if voc else few_scenes
    overrides = [*([*VOC, *TWO_IMAGES] if voc else COCO), "SOLVER.MAX_ITER", str(steps)]
    learns(protocol, variant, pretrained(50), data, tmp_path, overrides, metric, gain)


@pytest.mark.parametrize(
    "protocol, variant, metric, gain, steps",
    [
        ("coco_mask_fpn_1x", "moco2fc", "bbox/AP50", 10, 60),
        ("coco_mask_fpn_1x", "4conv1fc", "bbox/AP50", 5, 60),
        ("coco_mask_fpn_1x", "resim_released", "bbox/AP50", 5, 60),
        ("coco_keypoint_fpn_1x", "", "bbox/AP50", 10, 60),
        ("coco_cascade_mask_fpn_1x", "", "bbox/AP50", 5, 60),
        ("coco_fcos_1x", "", "bbox/AP50", 10, 60),
        ("coco_pointrend_1x", "", "segm/AP50", 2, 90),
        ("cityscapes_inst", "", "segm/AP50", 5, 120),
        ("coco_panoptic_fpn_1x", "", "panoptic_seg/PQ", 10, 40),
        ("lvis_mask_fpn_2x", "", "bbox/AP50", 5, 120),
    ],
)
def test_an_fpn_detector_learns(
    protocol, variant, metric, gain, steps, learns, pretrained, few_scenes, four_scenes, tmp_path
):
    data = four_scenes if steps == 60 else few_scenes  # what takes longer was tried on eight
    train = protocols.PROTOCOLS[protocol].datasets[0]
    overrides = [*SMALL, "DATASETS.TEST", f"('{train}',)", "SOLVER.MAX_ITER", str(steps)]
    if protocol == "coco_pointrend_1x":  # its masks take 120 steps at the protocol's own rate
        overrides += ["SOLVER.BASE_LR", "0.04"]
    learns(protocol, variant, pretrained(18), data, tmp_path, overrides, metric, gain)
