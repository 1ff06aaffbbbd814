"""Your own images of one, four and five channels, TIFF and NPY, in the protocols beside custom_det.

The square that is to be found is bright in the last channel alone.
"""

import json

import numpy as np
import pytest
import torch

from densessl.d2_transfer import compat, main, own_data, results
from densessl.d2_transfer.protocols import PROTOCOLS
from tests.decoding.images import tiff_of_channels

compat.setup()

SIDE, SQUARE = 64, 24
DETECTORS = {"custom_mask": "segm", "custom_keypoint": "keypoints"}


def picture(n: int, channels: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Noise ``[64, 64, channels]`` of 10 bits, and the corner of the square in it."""
    rng = np.random.default_rng(n)
    values = rng.integers(0, 400, (SIDE, SIDE, channels), dtype=np.uint16)
    x, y = (int(edge) for edge in rng.integers(4, SIDE - SQUARE - 4, 2))
    values[y : y + SQUARE, x : x + SQUARE, -1] = 900
    return values, (x, y)


def save(file, values: np.ndarray) -> None:
    if file.suffix == ".npy":
        np.save(file, values if values.shape[2] > 1 else values[:, :, 0])
    else:
        tiff_of_channels(file, values)


def coco(folder, form: str, channels: int) -> dict:
    """Six images for training, three for validation, a square in each: the flags that name them."""
    flags = {}
    for split, numbers in (("train", range(6)), ("val", range(6, 9))):
        (folder / split / "images").mkdir(parents=True)
        images, objects = [], []
        for n in numbers:
            values, (x, y) = picture(n, channels)
            save(folder / split / "images" / f"{n}.{form}", values)
            right, bottom = x + SQUARE, y + SQUARE
            images.append({"id": n, "file_name": f"{n}.{form}", "width": SIDE, "height": SIDE})
            objects.append(
                {
                    "id": n + 1,
                    "image_id": n,
                    "category_id": 1,
                    "bbox": [x, y, SQUARE, SQUARE],
                    "segmentation": [[x, y, right, y, right, bottom, x, bottom]],
                    "keypoints": [x, y, 2, right - 1, bottom - 1, 2],
                }
            )
        kinds = [{"id": 1, "name": "square", "keypoints": ["tip", "tail"], "skeleton": []}]
        content = {"images": images, "annotations": objects, "categories": kinds}
        flags[split] = folder / split / "coco.json"
        flags[split].write_text(json.dumps(content))
    return flags


def classes(folder, form: str, channels: int) -> dict:
    """Images in a folder a class: the flags that name them."""
    for split, numbers in (("train", range(6)), ("val", range(6, 9))):
        for n in numbers:
            kind = ("even", "odd")[n % 2]
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
            save(folder / split / kind / f"{n}.{form}", picture(n, channels)[0])
    return {split: folder / split for split in ("train", "val")}


def run(protocol: str, flags: dict, channels: int, out, *more: str) -> results.Record:
    words = ["random", "--protocol", protocol, "--mini", "--trials", "1", "-o", str(out)]
    for name, value in flags.items():
        words += [f"--{name}", str(value)]
    assert main.main([*words, "INPUT.CHANNELS", str(channels), *more]) == 0
    return results.load(out / "trial_1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "protocol, channels, form",
    [
        ("custom_mask", 1, "tif"),
        ("custom_mask", 5, "npy"),
        ("custom_keypoint", 1, "npy"),
        ("custom_keypoint", 4, "tif"),
    ],
)
def test_detectors_are_trained_and_evaluated(protocol, channels, form, tmp_path):
    small = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    small += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.MAX_ITER", "2"]
    flags = coco(tmp_path / "own", form, channels)
    record = run(protocol, flags, channels, tmp_path / "out", *small)
    found = [record.metrics[f"{kind}/AP"] for kind in ("bbox", DETECTORS[protocol])]
    assert np.isfinite(found).all() and record.range == [0, 1023]
    final = torch.load(tmp_path / "out" / "trial_1" / "model_final.pth", weights_only=True)
    assert final["model"]["backbone.bottom_up.stem.conv1.weight"].shape[1] == channels


@pytest.mark.slow
@pytest.mark.parametrize("channels, form", [(1, "npy"), (5, "tif")])
def test_positions_are_classified_by_the_last_channel(channels, form, tmp_path):
    flags = coco(tmp_path / "own", form, channels)
    size = ["INPUT.SIZE", "(64, 64)", "FEATURES.LEVELS", "('res2',)", "MODEL.BACKBONE", "resnet18"]
    record = run("custom_semseg", flags, channels, tmp_path / "out", *size)
    assert record.metrics["sem_seg/mIoU"] > 70


@pytest.mark.slow
@pytest.mark.parametrize("channels, form", [(1, "tif"), (5, "npy")])
def test_classifiers_are_trained_and_evaluated(channels, form, tmp_path):
    flags = classes(tmp_path / "own", form, channels)
    short = ["SEARCH.BASE_LR", "()", "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "4"]
    record = run("custom_cls", flags, channels, tmp_path / "out", *short)
    assert 0 <= record.metrics["cls/top1"] <= 100 and record.range == [0, 1023]
    final = torch.load(tmp_path / "out" / "trial_1" / "model_final.pth", weights_only=True)
    assert final["model"]["backbone.network.conv1.weight"].shape[1] == channels


@pytest.mark.parametrize("channels, form", [(1, "npy"), (4, "tif"), (5, "npy")])
def test_masks_and_keypoints_follow_the_channels(channels, form, tmp_path):
    """Resized and mirrored with the image: where the last channel is bright, there the mask is."""
    from detectron2.structures import BitMasks

    from densessl.d2_transfer.datasets import coco_content, custom
    from densessl.d2_transfer.datasets.detection_mapper import DetectionMapper
    from densessl.d2_transfer.resolve import resolve

    flags = coco(tmp_path / "own", form, channels)
    own = own_data.of(PROTOCOLS["custom_keypoint"], {"output_dir": tmp_path, **flags}).written()
    custom.register(own)
    words = ["INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.RANDOM_FLIP", "horizontal"]
    cfg = resolve("custom_keypoint", mini=True, cuda=False, gpus=1, custom=own, overrides=words)
    cfg.defrost()
    cfg.INPUT.FORMAT, cfg.INPUT.RANGE, cfg.MODEL.MASK_ON = "as stored", "0 to 1023", True
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * channels, [1.0] * channels
    mapper = DetectionMapper(cfg, is_train=True)
    entry = coco_content.records(own.train_json, own.train_images, {own.categories[0][0]: 0})[0]
    seen = set()
    for seed in range(8):
        np.random.seed(seed)  # noqa: NPY002  (Detectron2's transforms draw from it)
        made = mapper(entry)
        assert made["image"].shape == (channels, 128, 128)
        bright = made["image"][-1] > 160
        masks = BitMasks.from_polygon_masks(made["instances"].gt_masks, 128, 128).tensor[0]
        assert (masks != bright).sum() <= 4 * 2 * SQUARE  # a pixel of the edge
        (points,) = made["instances"].gt_keypoints.tensor[:, :, :2]
        rows, columns = bright.nonzero().T
        ends = {(0, 1): (columns.min(), columns.max()), (1, 0): (columns.max(), columns.min())}
        mirrored = bool(points[0, 0] > points[1, 0])
        wanted = ends[(1, 0) if mirrored else (0, 1)]
        assert (points[:, 0] - torch.stack(wanted)).abs().max() <= 3
        assert (points[:, 1] - torch.stack((rows.min(), rows.max()))).abs().max() <= 3
        seen.add(mirrored)
    assert seen == {False, True}
