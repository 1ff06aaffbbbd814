"""What a step of fine-tuning asks of a GPU, and the loader processes that feed it.

    python -m benchmarks.roofline_transfer [--protocols coco_mask_fpn_1x linear …]

The first table is arithmetic, as that of ``benchmarks.roofline``, of the dense part of a step: the
backbone and its pyramid, the heads at every position, a detector's heads on as many regions as a
step samples at most, the losses of segmentation and classification, all with the backward pass, and
the optimizer. Left out are what depends on the data: anchors and their labels, NMS, ROIAlign, a
detector's losses.

The second is measured: the processor time of a training sample, from the file to the tensor, on one
thread, and from it the processes that keep up with a GPU at 40 % of its limit. The photographs are
made here: 640 x 480, JPEG of quality 90, of 7 objects.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.roofline import GPUS, Cost, counted
from densessl.d2_transfer import compat
from densessl.d2_transfer.classification.images import Images
from densessl.d2_transfer.classification.loading import TrainingCrops
from densessl.d2_transfer.classification.models import Classifier, LinearClassifier, loss_of
from densessl.d2_transfer.classification.networks import build_backbone
from densessl.d2_transfer.classification.settings import configured
from densessl.d2_transfer.datasets.layouts import are_semantic
from densessl.d2_transfer.resolve import resolve
from densessl.d2_transfer.trainer import Trainer, build_mapper
from densessl.pretrain.engine.memory import META

compat.setup()
from detectron2.modeling import GeneralizedRCNN, SemanticSegmentor  # noqa: E402
from detectron2.structures import BoxMode  # noqa: E402

PROTOCOLS = ["voc_det_c4", "coco_mask_c4_1x", "coco_mask_fpn_1x", "coco_keypoint_fpn_1x"]
PROTOCOLS += ["coco_retinanet_1x", "coco_fcos_1x", "cityscapes_inst"]
PROTOCOLS += ["voc_semseg", "cityscapes_semseg", "ade20k_semseg", "linear", "finetune_cls"]
LARGER = ("cityscapes_inst", "cityscapes_semseg")  # than photographs: 2,048 x 1,024, PNG
PHOTOGRAPH, CITYSCAPE = 4 / 3, 2.0  # width over height
DIVISOR = 32  # of an image's sides, which are padded
REACHED = 0.4  # of a limit, by code that is good
PROCESSES = 8  # of classification, which has the same images a step on any number
WIDTH, HEIGHT, OBJECTS, SAMPLES, REPEATS = 640, 480, 7, 12, 3


def size_of(name: str, cfg) -> tuple[int, int]:
    """Height and width of a training image: of photographs the mean shorter side."""
    if "TASK" in cfg:
        return cfg.INPUT.SIZE, cfg.INPUT.SIZE
    if are_semantic(cfg.DATASETS.TRAIN):
        return tuple(cfg.INPUT.CROP.SIZE)
    shorter = sum(cfg.INPUT.MIN_SIZE_TRAIN) / len(cfg.INPUT.MIN_SIZE_TRAIN)
    sides = shorter, shorter * (CITYSCAPE if name in LARGER else PHOTOGRAPH)
    height, width = (math.ceil(min(side, cfg.INPUT.MAX_SIZE_TRAIN) / DIVISOR) for side in sides)
    return height * DIVISOR, width * DIVISOR


def cost(name: str, *overrides: str) -> tuple[Cost, int, tuple[int, int]]:
    """Of a protocol's step on one GPU: what it takes, its images and their size."""
    cfg = resolve(name, overrides=overrides)
    size = size_of(name, cfg)
    if "TASK" in cfg:
        return (*_of_classification(cfg, size), size)
    cfg = cfg.clone()
    cfg.defrost()
    images, cfg.MODEL.DEVICE = cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.REFERENCE_WORLD_SIZE, "meta"
    with META:
        model = Trainer.build_model(cfg).train()
        optimizer = Trainer.build_optimizer(cfg, model)
        batch = torch.empty(images, 3, *size)
        return counted(model, optimizer, lambda: _dense(model, cfg, batch)), images, size


def _of_classification(cfg, size: tuple[int, int]) -> tuple[Cost, int]:
    images = cfg.SOLVER.IMS_PER_BATCH // PROCESSES
    backbone = build_backbone("resnet50", "", size, 0)
    model: nn.Module = (
        LinearClassifier(backbone, 1000, (cfg.SOLVER.BASE_LR,), cfg)
        if cfg.TASK == "linear"
        else Classifier(backbone, 1000, configured(cfg), cfg)
    )
    model = model.to(META).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM)
    with META:
        batch, labels = torch.empty(images, 3, *size), torch.empty(images, dtype=torch.long)
        return counted(model, optimizer, lambda: loss_of(model(batch), labels).sum()), images


def _dense(model: nn.Module, cfg, images: Tensor) -> Tensor:
    """What a loss depends on, summed; of segmentation the loss."""
    features = model.backbone(images)
    if isinstance(model, SemanticSegmentor):
        labels = torch.empty(len(images), *images.shape[2:], dtype=torch.long)
        return sum(model.sem_seg_head(features, labels)[1].values())
    if not isinstance(model, GeneralizedRCNN):
        names = getattr(model, "head_in_features", None) or model.in_features
        return _sum(model.head([features[each] for each in names]))
    proposing = model.proposal_generator
    outputs = [proposing.rpn_head([features[name] for name in proposing.in_features])]
    heads = model.roi_heads
    regions = len(images) * cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
    objects = int(regions * cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION)
    channels = features[heads.in_features[0]].shape[1]

    def pooled(count: int, side: int) -> Tensor:
        return torch.empty(count, channels, side, side, requires_grad=True)

    side = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
    if hasattr(heads, "res5"):
        last = heads.res5(pooled(regions, side))
        outputs.append(heads.box_predictor(last.mean(dim=[2, 3])))
    else:
        outputs.append(heads.box_predictor(heads.box_head(pooled(regions, side))))
    if cfg.MODEL.MASK_ON:
        of_objects = (
            last[:objects]
            if hasattr(heads, "res5")
            else pooled(objects, cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION)
        )
        outputs.append(heads.mask_head.layers(of_objects))
    if cfg.MODEL.KEYPOINT_ON:
        given = pooled(objects, cfg.MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION)
        outputs.append(heads.keypoint_head.layers(given))
    return _sum(outputs)


def _sum(values) -> Tensor:
    """Of all tensors in nested lists."""
    if isinstance(values, Tensor):
        return values.float().mean()
    return torch.stack([_sum(each) for each in values]).sum()


def photograph(rng: np.random.Generator) -> Image.Image:
    """Noise at several scales, which takes a JPEG as many bytes as a photograph of COCO's."""
    pixels = np.zeros((HEIGHT, WIDTH, 3))
    for cell, strength in ((80, 60), (20, 30), (5, 14), (1, 7)):
        cells = rng.normal(0, strength, (HEIGHT // cell, WIDTH // cell, 3))
        grey = np.clip(128 + cells, 0, 255).astype(np.uint8)
        scaled = Image.fromarray(grey).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        pixels += np.asarray(scaled, dtype=float) - 128
    return Image.fromarray(np.clip(128 + pixels, 0, 255).astype(np.uint8))


def entries(folder: Path, classes: int) -> list[dict]:
    """Data set dicts, with boxes, outlines, keypoints and a label image, of which each mapper takes
    what it needs."""
    rng, found = np.random.default_rng(0), []
    for number in range(SAMPLES):
        image, labels = folder / f"{number}.jpg", folder / f"{number}.png"
        photograph(rng).save(image, quality=90)
        blocks = rng.integers(0, classes, (HEIGHT // 40, WIDTH // 40), dtype=np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((40, 40), np.uint8))).save(labels)
        entry = {"file_name": str(image), "image_id": number, "height": HEIGHT, "width": WIDTH}
        entry |= {"sem_seg_file_name": str(labels), "annotations": []}
        for _ in range(OBJECTS):
            x, y, w, h = (rng.uniform(0, 0.7, 4) * (WIDTH, HEIGHT, WIDTH, HEIGHT)).tolist()
            w, h = min(w + 9, WIDTH - x), min(h + 9, HEIGHT - y)
            turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            outline = np.stack((x + w / 2 * (1 + np.cos(turn)), y + h / 2 * (1 + np.sin(turn))), 1)
            points = np.column_stack((rng.uniform((x, y), (x + w, y + h), (17, 2)), np.full(17, 2)))
            entry["annotations"].append(
                {
                    "bbox": [x, y, w, h],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": 0,
                    "iscrowd": 0,
                    "segmentation": [outline.ravel().tolist()],
                    "keypoints": points.ravel().tolist(),
                }
            )
        found.append(entry)
    return found


def seconds(name: str, folder: Path) -> float:
    """Processor time of a training sample: the median of REPEATS means over SAMPLES."""
    cfg, given = resolve(name, cuda=False), entries(folder, 8)
    load: Callable[[int], object]
    if "TASK" in cfg:
        names = np.array([Path(each["file_name"]).name.encode() for each in given])
        labels = np.zeros(len(given), dtype=np.int64)
        crops = TrainingCrops(Images("photographs", folder, names, labels, ("all",)), cfg)
        load = lambda number: crops[number, number]  # noqa: E731
    else:
        mapper = build_mapper(cfg, is_train=True)
        load = lambda number: mapper(given[number])  # noqa: E731
    np.random.seed(0)  # noqa: NPY002  (the generator that Detectron2's augmentations draw from)
    load(0)
    found = []
    for _ in range(REPEATS):
        start = time.process_time()
        for number in range(SAMPLES):
            load(number)
        found.append((time.process_time() - start) / SAMPLES)
    return float(np.median(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocols", nargs="+", default=PROTOCOLS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rates = " | ".join(f"{gpu}: images/s at 100 / 40 %" for gpu in GPUS)
    print(f"| protocol | images | TFLOP | GB moved | GB kept | {rates} | ms a sample | workers |")
    print("|---|---|" + "--:|" * (5 + len(GPUS)))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.protocols:
            step, images, (height, width) = cost(name)
            cells = [f"{images} of {width} × {height}", f"{step.operations / 1e12:.2f}"]
            cells += [f"{step.moved / 1e9:.0f}", f"{step.memory / 1e9:.1f}"]
            found = [step.rate(images, peak, bandwidth) for peak, bandwidth, _ in GPUS.values()]
            cells += [f"{rate:,.0f} / {REACHED * rate:,.0f}" for rate in found]
            if name in LARGER:
                cells += ["–", "–"]
            else:
                each = seconds(name, Path(folder))
                busy = [math.ceil(REACHED * rate * each) for rate in found]
                cells += [f"{1000 * each:.0f}", " / ".join(map(str, busy))]
            print(f"| `{name}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
