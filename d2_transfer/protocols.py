"""The protocols: a config file a variant, data sets and metrics each."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from densessl.core.errors import InputError, unknown

from . import classification, dense_probes
from .classification import table as of_classification
from .dense_probes import table as of_dense_probes

SCHEDULES = {"1x": "90k iterations", "2x": "180k iterations"}


@dataclass(frozen=True)
class Protocol:
    """What a paper's row of numbers was measured with.

    ``configs``: variant → file below ``configs/transfer``; where there is but one way, its variant
    is the empty string, and the first is the default. ``evaluator``: Detectron2's
    ``evaluator_type``. ``metrics``: those of the papers' tables. ``parameters``: millions, of the
    largest variant.
    """

    name: str
    title: str
    configs: dict[str, str]
    metrics: tuple[str, ...]
    datasets: tuple[str, ...]
    parameters: float

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(self.configs)


BOX = ("bbox/AP", "bbox/AP50", "bbox/AP75")
MASK = ("segm/AP", "segm/AP50", "segm/AP75")
KEYPOINT = ("keypoints/AP", "keypoints/AP50", "keypoints/AP75")
VOC = ("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test")
COCO = ("coco_2017_train", "coco_2017_val")
COCO_KEYPOINTS = ("keypoints_coco_2017_train", "keypoints_coco_2017_val")
FPN_VARIANTS = ("moco2fc", "4conv1fc", "resim_released")


def _of_variants(name: str, variants: Sequence[str]) -> dict[str, str]:
    return {variant: f"{name}_{variant}.yaml" for variant in variants}


_WITH_DETECTRON2 = (
    Protocol(
        name="voc_det_c4",
        title="VOC07+12 detection, Faster R-CNN R50-C4, 24k iterations",
        configs={"": "voc_det_c4.yaml"},
        metrics=BOX,
        datasets=VOC,
        parameters=33.0,
    ),
    Protocol(
        name="voc_det_c4_frozen",
        title="VOC07+12 detection, Faster R-CNN R50-C4, pretrained layers frozen, 24k iterations",
        configs=_of_variants("voc_det_c4_frozen", ("res5_trainable", "res5_frozen")),
        metrics=BOX,
        datasets=VOC,
        parameters=33.0,
    ),
    *(
        Protocol(
            name=f"coco_mask_c4_{schedule}",
            title=f"COCO detection and instance segmentation, Mask R-CNN R50-C4, {iterations}",
            configs={"": f"coco_mask_c4_{schedule}.yaml"},
            metrics=BOX + MASK,
            datasets=COCO,
            parameters=36.0,
        )
        for schedule, iterations in SCHEDULES.items()
    ),
    *(
        Protocol(
            name=f"coco_mask_fpn_{schedule}",
            title=f"COCO detection and instance segmentation, Mask R-CNN R50-FPN, {iterations}",
            configs=_of_variants(f"coco_mask_fpn_{schedule}", FPN_VARIANTS),
            metrics=BOX + MASK,
            datasets=COCO,
            parameters=47.0,
        )
        for schedule, iterations in SCHEDULES.items()
    ),
    *(
        Protocol(
            name=f"coco_keypoint_fpn_{schedule}",
            title=f"COCO person keypoints, Keypoint R-CNN R50-FPN, {iterations}",
            configs={"": f"coco_keypoint_fpn_{schedule}.yaml"},
            metrics=KEYPOINT + BOX,
            datasets=COCO_KEYPOINTS,
            parameters=60.0,
        )
        for schedule, iterations in SCHEDULES.items()
    ),
    Protocol(
        name="cityscapes_inst",
        title="Cityscapes instance segmentation, Mask R-CNN R50-FPN, 24k iterations",
        configs={"": "cityscapes_inst.yaml"},
        metrics=MASK[:2],
        datasets=(
            "cityscapes_fine_instance_seg_train",
            "cityscapes_fine_instance_seg_val",
        ),
        parameters=45.0,
    ),
    Protocol(
        name="voc_semseg",
        title="VOC12 semantic segmentation, FCN-R50, 20k iterations (moco_fcn: 30k)",
        configs=_of_variants("voc_semseg", ("fcn_d8", "moco_fcn")),
        metrics=("sem_seg/mIoU",),
        datasets=("voc_2012_aug_semseg_train", "voc_2012_semseg_val"),
        parameters=49.5,
    ),
    Protocol(
        name="cityscapes_semseg",
        title="Cityscapes semantic segmentation, FCN-R50, 40k iterations (moco_fcn: 90k)",
        configs=_of_variants("cityscapes_semseg", ("fcn_d8", "moco_fcn")),
        metrics=("sem_seg/mIoU",),
        datasets=("cityscapes_fine_sem_seg_train", "cityscapes_fine_sem_seg_val"),
        parameters=49.5,
    ),
    Protocol(
        name="ade20k_semseg",
        title="ADE20K semantic segmentation, FCN-R50, 80k iterations",
        configs=_of_variants("ade20k_semseg", ("fcn_d8",)),
        metrics=("sem_seg/mIoU",),
        datasets=("ade20k_sem_seg_train", "ade20k_sem_seg_val"),
        parameters=49.6,
    ),
    Protocol(
        name="custom_det",
        title="your own boxes in COCO's format, Faster R-CNN R50-FPN (see docs/data.md)",
        configs={"": "custom_det.yaml"},
        metrics=BOX,
        datasets=("custom_train", "custom_val"),
        parameters=44.0,
    ),
    Protocol(
        name="custom_mask",
        title="your own masks in COCO's format, Mask R-CNN R50-FPN (see docs/data.md)",
        configs={"": "custom_mask.yaml"},
        metrics=BOX + MASK,
        datasets=("custom_train", "custom_val"),
        parameters=47.0,
    ),
)
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        *_WITH_DETECTRON2,
        *of_classification.protocols(),
        *of_dense_probes.protocols(),
    )
}
ROOMS = (classification, dense_probes)


def room(protocol: str) -> ModuleType | None:
    """The room with a protocol's own ``resolve``, ``check_data``, ``run_trial`` and so on; None for
    those that Detectron2 trains."""
    return next((each for each in ROOMS if protocol in each.NAMES), None)


def room_of(cfg) -> ModuleType | None:
    """The same for a protocol's config, which tells it by its TASK."""
    return next((each for each in ROOMS if cfg.get("TASK") in each.TASKS), None)


def find(name: str, variant: str | None = None) -> tuple[Protocol, str]:
    """The protocol of that name and its variant (the first unless named); InputError otherwise."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS, "--protocol")
    protocol = PROTOCOLS[name]
    if variant is None:
        return protocol, protocol.variants[0]
    if variant not in protocol.configs:
        if protocol.variants == ("",):
            raise InputError(f"--variant is '{variant}', but {name} has no variants")
        raise unknown("variant", variant, protocol.variants, f"--variant of {name}")
    return protocol, variant
