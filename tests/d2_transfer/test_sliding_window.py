"""Detection by sliding windows: what is merged, against plain arithmetic and whole images."""

import json

import numpy as np
import pytest
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import compat, datasets
from densessl.d2_transfer.resolve import resolve

compat.setup()
import torch  # noqa: E402
from detectron2.data import DatasetCatalog  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402
from pycocotools import mask as rle  # noqa: E402

from densessl.d2_transfer.datasets.detection_mapper import DetectionMapper  # noqa: E402
from densessl.d2_transfer.modeling.sliding_window import (  # noqa: E402
    SlidingWindowDetector,
    by_windows,
    merged,
    moved,
)
from densessl.d2_transfer.official_config import official_text  # noqa: E402
from densessl.d2_transfer.trainer import Trainer  # noqa: E402
from densessl.d2_transfer.windows import spans  # noqa: E402

SIZE = (80, 160)  # height, width of an image,
A, B = (0, 0, 100, 80), (60, 0, 160, 80)  # and two windows of it
MASK, RETINANET, FCOS = "coco_mask_fpn_1x", "coco_retinanet_1x", "coco_fcos_1x"


def shown(window, *objects) -> Instances:
    """What a detector would find of objects (box in the image, score, class) in a window: boxes cut
    at its edges, their masks, and their corners as keypoints, in the window's pixels."""
    left, top, right, bottom = window
    found = Instances((bottom - top, right - left))
    cut = [
        (max(x1, left) - left, max(y1, top) - top, min(x2, right) - left, min(y2, bottom) - top)
        for (x1, y1, x2, y2), _, _ in objects
    ]
    found.pred_boxes = Boxes(torch.tensor(cut, dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.tensor([float(each[1]) for each in objects])
    found.pred_classes = torch.tensor([each[2] for each in objects], dtype=torch.int64)
    masks = torch.zeros(len(objects), bottom - top, right - left, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, cut, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    found.pred_masks = masks
    points = [[(x1, y1, 0.5), (x2, y2, 0.25)] for x1, y1, x2, y2 in cut]
    found.pred_keypoints = torch.tensor(points, dtype=torch.float32).reshape(-1, 2, 3)
    return found


def together(in_a, in_b, most=100) -> Instances:
    found = [moved(shown(window, *each), window, SIZE) for window, each in ((A, in_a), (B, in_b))]
    return merged(found, [A, B], 0.5, most)


def listed(found: Instances, digits: int = 4) -> list[tuple]:
    boxes, scores = found.pred_boxes.tensor.tolist(), found.scores.tolist()
    classes = found.pred_classes.tolist()
    return [(tuple(b), round(s, digits), c) for b, s, c in zip(boxes, scores, classes, strict=True)]


def test_an_object_that_two_windows_show_is_found_once_and_whole():
    """Whole in both; cut by one, which is surer of its part; and the neighbours stay."""
    both, cut = (62, 20, 95, 50), (85, 10, 115, 40)
    other_class, edge = (84, 10, 100, 40), (92, 60, 104, 70)
    found = together(
        [(both, 0.6, 3), (cut, 0.99, 3), (other_class, 0.5, 4), (edge, 0.4, 3)],
        [(both, 0.8, 3), (cut, 0.7, 3)],
    )
    assert listed(found) == [
        (both, 0.8, 3),
        (cut, 0.7, 3),
        (other_class, 0.5, 4),
        ((92, 60, 100, 70), 0.4, 3),  # no other window shows it
    ]
    for mask, (x1, y1, x2, y2) in zip(found.pred_masks, [both, cut], strict=False):
        wanted = torch.zeros(SIZE, dtype=torch.bool)
        wanted[y1:y2, x1:x2] = True
        assert mask.shape == SIZE and (mask == wanted).all()
    assert found.pred_keypoints[1].tolist() == [[85, 10, 0.5], [115, 40, 0.25]]


def test_what_no_window_holds_whole_is_left_as_its_largest_part_or_in_parts():
    assert listed(together([((50, 0, 140, 9), 0.9, 0)], [((50, 0, 140, 9), 0.8, 0)])) == [
        ((60, 0, 140, 9), 0.8, 0)
    ]
    assert len(together([((5, 0, 155, 9), 0.9, 0)], [((5, 0, 155, 9), 0.8, 0)])) == 2
    # Each reaches beyond the other's window by half a pixel: one of them must stay.
    shaken = together([((59.5, 0, 100, 9), 0.9, 0)], [((60, 0, 100.5, 9), 0.8, 0)])
    assert len(shaken) == 1


def test_the_best_scores_of_all_windows_are_kept():
    rows = [(10 * n, 10 * n + 9) for n in range(8)]
    left = [((1, y1, 30, y2), 0.9 - y1 / 100, 0) for y1, y2 in rows]
    right = [((130, y1, 159, y2), 0.85 - y1 / 100, 1) for y1, y2 in rows]
    found = together(left, right, most=5)
    assert (
        listed(found)
        == sorted(
            [(box, round(score, 4), kind) for box, score, kind in left + right], key=lambda e: -e[1]
        )[:5]
    )
    assert len(found.pred_masks) == 5 and found.pred_masks[4][20:29, 1:30].all()
    assert len(together([], [])) == 0 == len(together([], []).pred_masks)


def detector(protocol, size, stride, *overrides):
    """Config and model of a miniature whose every region counts, with windows."""
    words = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    words += ["TEST.DETECTIONS_PER_IMAGE", "20", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    words += ["TEST.SLIDING_WINDOW.ENABLED", "True", "TEST.SLIDING_WINDOW.SIZE", str(size)]
    words += ["TEST.SLIDING_WINDOW.STRIDE", str(stride), *overrides]
    cfg = resolve(protocol, gpus=1, mini=True, cuda=False, overrides=words)
    torch.manual_seed(0)
    return cfg, Trainer.build_model(cfg).eval()


def whole(cfg):
    """The config without windows."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.SLIDING_WINDOW.ENABLED = False
    return cfg


@torch.no_grad()
def detected(model, entry) -> Instances:
    return model([entry])[0]["instances"]


def plain_merge(parts, places, threshold, most):
    """``merged`` by loops: (box, score, class, window) of what is kept, best first."""

    def iou(p, q):
        sides = [min(p[k + 2], q[k + 2]) - max(p[k], q[k]) for k in (0, 1)]
        both = max(sides[0], 0) * max(sides[1], 0)
        return both / (area(p) + area(q) - both) if both else 0.0

    def area(p):
        return (p[2] - p[0]) * (p[3] - p[1])

    every = [
        (np.array(box, np.float32), score, kind, number)
        for number, part in enumerate(parts)
        for box, score, kind in listed(part, 9)
    ]
    left = []
    for box, score, kind, number in every:
        x1, y1, x2, y2 = places[number]
        cuts = [
            (np.clip(other, [x1, y1, x1, y1], [x2, y2, x2, y2]), other)
            for other, _, other_kind, other_number in every
            if other_kind == kind and other_number != number
        ]
        if not any(
            (cut != other).any() and iou(box, cut) > threshold and area(other) > area(box)
            for cut, other in cuts
        ):
            left.append((box, score, kind, number))
    kept = []
    for each in sorted(left, key=lambda e: -e[1]):
        if all(each[2] != k[2] or iou(each[0], k[0]) <= threshold for k in kept):
            kept.append(each)
    return kept[:most]


@pytest.mark.parametrize(
    "protocol, node", [(MASK, "ROI_HEADS"), (RETINANET, "RETINANET"), (FCOS, "FCOS")]
)
def test_windows_are_seen_as_images_of_their_own(few_scenes, tmp_path, protocol, node):
    """A real model on files that hold what the windows show, merged by loops."""
    datasets.register(few_scenes)
    cfg, model = detector(protocol, 80, 50, f"MODEL.{node}.NMS_THRESH_TEST", "0.3")
    entry = DatasetCatalog.get("coco_2017_val")[0]
    found = detected(by_windows(cfg, model), DetectionMapper(cfg, is_train=False)(entry))
    image = Image.open(entry["file_name"]).convert("RGB")
    places, parts = [], []
    for top, bottom in spans(image.height, 80, 50):
        for left, right in spans(image.width, 80, 50):
            places.append((left, top, right, bottom))
            image.crop(places[-1]).save(tmp_path / "window.png")
            given = DetectionMapper(whole(cfg), False)({"file_name": tmp_path / "window.png"})
            part = detected(model, given)
            parts.append(moved(part, places[-1], (image.height, image.width)))
    assert len(places) == 4 and found.image_size == (image.height, image.width)
    wanted = plain_merge(parts, places, 0.3, 20)
    assert len(wanted) == len(found) == 20
    np.testing.assert_array_equal(found.pred_boxes.tensor, np.array([each[0] for each in wanted]))
    assert found.pred_classes.tolist() == [each[2] for each in wanted]
    assert len({each[3] for each in wanted}) > 1  # of several windows


@pytest.mark.parametrize("most_pixels, side", [(0, 128), (5000, 64)])
def test_a_window_as_large_as_the_image_gives_the_very_numbers_of_the_whole_one(
    few_scenes, tmp_path, most_pixels, side
):
    """Detections, and the protocol's metrics through the evaluator, also of reduced images."""
    datasets.register(few_scenes)
    cfg, model = detector(MASK, 128, 128, "INPUT.MAX_PIXELS", str(most_pixels))
    entry = DatasetCatalog.get("coco_2017_val")[0]
    plain = detected(model, DetectionMapper(whole(cfg), False)(entry))
    slid = by_windows(cfg, model)
    assert isinstance(slid, SlidingWindowDetector)
    given = DetectionMapper(cfg, False)(entry)
    assert given["image"].shape == (3, side, side)
    found = detected(slid, given)
    assert len(found) == 20 and (found.pred_boxes.tensor == plain.pred_boxes.tensor).all()
    assert (found.scores == plain.scores).all() and (found.pred_masks == plain.pred_masks).all()
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(tmp_path)
    metrics = {how: Trainer.test(each, model) for how, each in ((1, cfg), (0, whole(cfg)))}
    np.testing.assert_equal(metrics[1], metrics[0])


def test_masks_of_windows_are_evaluated_as_masks_of_the_image(few_scenes, tmp_path):
    datasets.register(few_scenes)
    cfg, model = detector(MASK, 40, 24, "INPUT.MAX_PIXELS", "5000")  # read as 64 x 64
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(tmp_path)
    metrics = Trainer.test(cfg, model)
    assert {"bbox", "segm"} <= metrics.keys()
    held = json.loads((tmp_path / "evaluation" / "coco_instances_results.json").read_text())
    corners = []
    for each in held:
        mask = rle.decode(each["segmentation"])
        x, y, w, h = each["bbox"]
        assert mask.shape == (128, 128) and 0 <= x <= x + w <= 128 and 0 <= y <= y + h <= 128
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if len(rows):
            assert x - 1 <= columns[0] and columns[-1] <= x + w + 1
            assert y - 1 <= rows[0] and rows[-1] <= y + h + 1
            corners.append((columns[-1], rows[-1]))
    assert len(held) == 40 and max(x for x, _ in corners) > 80 < max(y for _, y in corners)


def test_windows_are_recorded_and_plain_detectron2_has_none():
    words = ["TEST.SLIDING_WINDOW.ENABLED", "True"]
    cfg = resolve(MASK, gpus=1, cuda=False, overrides=words)
    with pytest.raises(InputError, match="nothing for TEST.SLIDING_WINDOW.ENABLED True"):
        official_text(cfg)
    for stride in ("0", "770"):
        with pytest.raises(InputError, match=f"SLIDING_WINDOW.STRIDE is {stride} and SIZE 769"):
            resolve(MASK, overrides=[*words, "TEST.SLIDING_WINDOW.STRIDE", stride])
