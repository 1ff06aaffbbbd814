"""FCOS, the detector without anchors, as the meta architecture of both versions of Detectron2.

Detectron2 0.5 has none; main's is for LazyConfigs alone, has no learnt scales, and divides its
losses by other numbers. Sources: those of ``fcos_targets``; what papers leave open is as in
AdelaiDet (docs/protocols.md).
"""

import math
from collections.abc import Sequence

from densessl.core.errors import InputError

from .. import compat

compat.setup()
import torch  # noqa: E402
from detectron2.config import configurable  # noqa: E402
from detectron2.layers import Conv2d, ShapeSpec, batched_nms, get_norm  # noqa: E402
from detectron2.modeling import (  # noqa: E402
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    build_backbone,
    build_resnet_backbone,
    detector_postprocess,
)
from detectron2.modeling.backbone import FPN, Backbone  # noqa: E402
from detectron2.modeling.backbone.fpn import LastLevelP6P7  # noqa: E402
from detectron2.structures import Boxes, ImageList, Instances  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from .fcos_targets import Locations, assign, boxes_at, locations_of, losses  # noqa: E402

NORMS = ("GN", "")  # one of batch norm would be shared by levels whose statistics differ


@BACKBONE_REGISTRY.register()
def build_resnet_fpn_p5_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's FPN on a ResNet, with p6 and p7 by convolutions from p5 (RetinaNet's are from
    res5). Reads what ``build_resnet_fpn_backbone`` reads."""
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return FPN(
        build_resnet_backbone(cfg, input_shape),
        cfg.MODEL.FPN.IN_FEATURES,
        channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelP6P7(channels, channels, "p5"),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


class FCOSHead(nn.Module):
    """Two subnets of 3x3 convolutions that all levels share: one for the classes, one for the
    distances to a box's sides and for centerness. Distances have a learnt scale for each level."""

    def __init__(
        self, channels: int, levels: int, classes: int, convs: int, norm: str, prior: float
    ):
        """``prior``: the probability that every class of every location begins with."""
        super().__init__()
        self.cls_subnet = _subnet(channels, convs, norm)
        self.bbox_subnet = _subnet(channels, convs, norm)
        self.cls_score = Conv2d(channels, classes, 3, padding=1)
        self.bbox_pred = Conv2d(channels, 4, 3, padding=1)
        self.centerness = Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.cls_score.bias, math.log(prior / (1 - prior)))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Levels ``[N, C, h, w]`` → logits ``[N, R, K]``, distances in strides ``[N, R, 4]`` and
        logits of centerness ``[N, R]``, of the R locations of all levels."""
        found = []
        for feature, scale in zip(features, self.scales, strict=True):
            of_boxes = self.bbox_subnet(feature)
            logits = self.cls_score(self.cls_subnet(feature))
            distances = F.relu(self.bbox_pred(of_boxes) * scale)
            maps = (logits, distances, self.centerness(of_boxes))
            found.append([each.flatten(2).transpose(1, 2) for each in maps])
        logits, distances, centerness = (torch.cat(each, 1) for each in zip(*found, strict=True))
        return logits, distances, centerness[..., 0]


def _subnet(channels: int, convs: int, norm: str) -> nn.Sequential:
    layers = (
        Conv2d(channels, channels, 3, padding=1, norm=get_norm(norm, channels), activation=F.relu)
        for _ in range(convs)
    )
    return nn.Sequential(*layers)


@META_ARCH_REGISTRY.register()
class FCOS(nn.Module):
    """Boxes of objects from locations of a pyramid, each a class, four distances, a centerness."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: FCOSHead,
        in_features: Sequence[str],
        classes: int,
        limits: Sequence[float],
        radius: float,
        focal: tuple[float, float],
        score_threshold: float,
        candidates: int,
        nms_threshold: float,
        detections: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        """``limits`` and ``radius``: of ``fcos_targets``. ``focal``: alpha and gamma of the loss.
        ``candidates``: of each level before NMS at most. ``detections``: of an image at most."""
        super().__init__()
        self.backbone, self.head, self.in_features = backbone, head, tuple(in_features)
        shapes = backbone.output_shape()
        self.strides = [shapes[name].stride for name in self.in_features]
        self.classes, self.limits, self.radius = classes, tuple(limits), radius
        self.alpha, self.gamma = focal
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.candidates, self.detections = candidates, detections
        self.pixel_mean: Tensor
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg) -> dict:
        """Of MODEL.FCOS (d2_transfer/config.py); InputError for what makes no detector."""
        node, backbone = cfg.MODEL.FCOS, build_backbone(cfg)
        shapes = backbone.output_shape()
        _check(node, cfg.MODEL.BACKBONE.NAME, shapes)
        return {
            "backbone": backbone,
            "head": FCOSHead(
                shapes[node.IN_FEATURES[0]].channels,
                len(node.IN_FEATURES),
                node.NUM_CLASSES,
                node.NUM_CONVS,
                node.NORM,
                node.PRIOR_PROB,
            ),
            "in_features": node.IN_FEATURES,
            "classes": node.NUM_CLASSES,
            "limits": node.SIZES_OF_INTEREST,
            "radius": node.CENTER_SAMPLING_RADIUS,
            "focal": (node.FOCAL_LOSS_ALPHA, node.FOCAL_LOSS_GAMMA),
            "score_threshold": node.SCORE_THRESH_TEST,
            "candidates": node.TOPK_CANDIDATES_TEST,
            "nms_threshold": node.NMS_THRESH_TEST,
            "detections": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]):
        """Losses in training, else a dict with ``instances`` for each input.

        Each input has ``image [C, h, w]``, in training ``instances`` with ``gt_boxes`` and
        ``gt_classes``, otherwise ``height`` and ``width`` of the original image (the input's own
        when they are missing), in whose pixels the boxes of the output are.
        """
        images = [
            (each["image"].to(self.device) - self.pixel_mean) / self.pixel_std
            for each in batched_inputs
        ]
        batch = ImageList.from_tensors(images, self.backbone.size_divisibility)
        maps = self.backbone(batch.tensor)
        features = [maps[name] for name in self.in_features]
        shapes = [(each.shape[2], each.shape[3]) for each in features]
        locations = locations_of(shapes, self.strides, self.limits, self.device)
        logits, distances, centerness = self.head(features)
        if self.training:
            objects = [each["instances"].to(self.device) for each in batched_inputs]
            labels, targets = self.targets(locations, objects)
            focal = (self.alpha, self.gamma)
            return losses(logits, distances, centerness, labels, targets, *focal)
        outputs = []
        for number, (each, size) in enumerate(zip(batched_inputs, batch.image_sizes, strict=True)):
            of_image = (logits[number], distances[number], centerness[number])
            found = self.detect(locations, *of_image, size)
            height, width = each.get("height", size[0]), each.get("width", size[1])
            outputs.append({"instances": detector_postprocess(found, height, width)})
        return outputs

    @torch.no_grad()
    def targets(self, locations: Locations, objects: list[Instances]) -> tuple[Tensor, Tensor]:
        """:func:`assign` for each image: ``[N, R]`` and ``[N, R, 4]``."""
        found = [
            assign(locations, each.gt_boxes.tensor, each.gt_classes, self.classes, self.radius)
            for each in objects
        ]
        labels, distances = zip(*found, strict=True)
        return torch.stack(labels), torch.stack(distances)

    def detect(
        self,
        locations: Locations,
        logits: Tensor,
        distances: Tensor,
        centerness: Tensor,
        size: tuple[int, int],
    ) -> Instances:
        """The objects of one image of ``size`` (h, w), the best first.

        ``logits [R, K]``, ``distances [R, 4]`` in strides, ``centerness [R]``. Each class of a
        location whose probability is above the threshold is a candidate; its score is the
        geometric mean of that probability and of centerness. Of each level the best candidates go
        on to NMS, class by class.
        """
        boxes = boxes_at(locations.points, distances.float() * locations.strides[:, None])
        probabilities, centred = logits.float().sigmoid(), centerness.float().sigmoid()
        level = torch.arange(len(locations.counts), device=boxes.device)
        level = level.repeat_interleave(torch.tensor(locations.counts, device=boxes.device))
        place, kind = (probabilities > self.score_threshold).nonzero(as_tuple=True)
        scores = (probabilities[place, kind] * centred[place]).sqrt()
        best = []
        for number in range(len(locations.counts)):
            here = (level[place] == number).nonzero()[:, 0]
            best.append(here[scores[here].topk(min(self.candidates, len(here))).indices])
        chosen = torch.cat(best)
        place, kind, scores = place[chosen], kind[chosen], scores[chosen]
        kept = batched_nms(boxes[place], scores, kind, self.nms_threshold)[: self.detections]
        return Instances(
            size,
            pred_boxes=Boxes(boxes[place[kept]]),
            scores=scores[kept],
            pred_classes=kind[kept],
        )


def _check(node, backbone: str, shapes: dict[str, ShapeSpec]) -> None:
    """InputError for options of MODEL.FCOS that contradict the backbone or one another."""
    if lacking := [name for name in node.IN_FEATURES if name not in shapes]:
        raise InputError(
            f"MODEL.FCOS.IN_FEATURES has {', '.join(lacking)}, but MODEL.BACKBONE.NAME {backbone} "
            f"gives {', '.join(shapes)} alone; build_resnet_fpn_p5_backbone gives p6 and p7"
        )
    limits = [*node.SIZES_OF_INTEREST]
    if len(limits) != len(node.IN_FEATURES) - 1 or limits != sorted(set(limits)):
        raise InputError(
            f"MODEL.FCOS.SIZES_OF_INTEREST is {limits}; allowed: increasing numbers, one less than "
            f"the {len(node.IN_FEATURES)} levels of MODEL.FCOS.IN_FEATURES"
        )
    if node.NORM not in NORMS:
        raise InputError(
            f"MODEL.FCOS.NORM is '{node.NORM}'; allowed: 'GN', or '' for none, as the levels share "
            "the head"
        )
    if not node.CENTER_SAMPLING_RADIUS > 0:
        raise InputError(
            f"MODEL.FCOS.CENTER_SAMPLING_RADIUS is {node.CENTER_SAMPLING_RADIUS}; allowed: more "
            "than 0 strides"
        )
