"""Images of four channels the whole way: pretrained on, transferred to one's own data, resumed.

What is to be found shows in the fourth channel alone: whoever drops it finds nothing.
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError, StoppedEarly
from densessl.d2_transfer import channels, compat, convert, main, resolve, results
from densessl.pretrain.main import main as pretrain
from tests.decoding.images import tiff_of_channels

compat.setup()

SIDE, LOW, HIGH = 64, 100, 900


def picture(n: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Noise ``[64, 64, 4]`` of 10 bits; the corner of a square of 24 px, bright in channel 3."""
    rng = np.random.default_rng(n)
    values = rng.integers(0, 400, (SIDE, SIDE, 4), dtype=np.uint16)
    x, y = (int(edge) for edge in rng.integers(4, SIDE - 28, 2))
    values[y : y + 24, x : x + 24, 3] = HIGH + n
    return values, (x, y)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Images, COCO's JSON of the squares, and label images, of training and validation."""
    root = tmp_path_factory.mktemp("tiles")
    for split, numbers in (("train", range(12)), ("val", range(12, 18))):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        images, annotations = [], []
        for n in numbers:
            values, (x, y) = picture(n)
            tiff_of_channels(root / split / "images" / f"{n}.tif", values)
            labels = np.zeros((SIDE, SIDE), np.uint8)
            labels[y : y + 24, x : x + 24] = 1
            Image.fromarray(labels).save(root / split / "masks" / f"{n}.png")
            images.append({"id": n, "file_name": f"{n}.tif", "width": SIDE, "height": SIDE})
            box = {"bbox": [x, y, 24, 24], "area": 576, "iscrowd": 0}
            annotations.append({"id": n + 1, "image_id": n, "category_id": 1} | box)
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": 1, "name": "square"}]
        (root / split / "coco.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def weights(tiles, tmp_path_factory):
    """Of a pretraining of two steps on these images."""
    out = tmp_path_factory.mktemp("weights")
    words = ["--config", "moco_v2_scenes", "DATA.PATH", str(tiles / "train" / "images")]
    words += ["DATA.CHANNELS", "4", "BACKBONE.NAME", "resnet18", "VIEWS.SIZE", "32"]
    words += ["SOLVER.BATCH_SIZE", "4", "DATA.WORKERS", "0", "MOCO.QUEUE", "8"]
    assert pretrain([*words, "OUTPUT_DIR", str(out), "SOLVER.MAX_STEPS", "2"]) == 0
    return out / "backbone_final.pth"


def detection(tiles, start, out) -> list[str]:
    words = [str(start), "--protocol", "custom_det", "--mini", "--trials", "1", "-o", str(out)]
    for split in ("train", "val"):
        words += [f"--{split}-json", str(tiles / split / "coco.json")]
        words += [f"--{split}-images", str(tiles / split / "images")]
    words += ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    return [*words, "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"]


def segmentation(tiles, start, out, *more) -> list[str]:
    words = [str(start), "--protocol", "custom_semseg", "--mini", "--trials", "1", "-o", str(out)]
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            words += [f"--{split}-{kind}", str(tiles / split / kind)]
    return [*words, "INPUT.SIZE", "(64, 64)", "FEATURES.LEVELS", "('res2',)", *more]


def test_positions_are_classified_by_the_fourth_channel(tiles, weights, tmp_path):
    assert main.main(segmentation(tiles, weights, tmp_path / "out")) == 0
    record = results.load(tmp_path / "out" / "trial_1")
    assert record.metrics["sem_seg/mIoU"] > 70 and record.range[1] > 900
    config = (tmp_path / "out" / "config.yaml").read_text()
    assert "CHANNELS: 4" in config


@pytest.mark.slow
def test_weights_of_three_channels_are_compared_with_them(tiles, our_checkpoint, tmp_path):
    three = our_checkpoint(tmp_path / "three.pth", 18)
    with pytest.raises(InputError, match=r"cannot be read: .*INPUT.CHANNELS \(now 3\) says"):
        main.main(segmentation(tiles, three, tmp_path / "out"))
    assert not (tmp_path / "out" / "trial_1").exists()
    words = segmentation(tiles, three, tmp_path / "out", "INPUT.CHANNELS", "4")
    assert main.main(words) == 0
    assert results.load(tmp_path / "out" / "trial_1").metrics["sem_seg/mIoU"] > 70
    detect = [*detection(tiles, three, tmp_path / "det"), "INPUT.CHANNELS", "4"]
    assert main.main([*detect, "SOLVER.MAX_ITER", "2"]) == 0
    (file,) = (tmp_path / "det").glob("weights_*_4ch.pkl")
    stem = convert.read_weights(file)["model"]["stem.conv1.weight"]
    given = torch.load(three, weights_only=True)["backbone"]["conv1.weight"]
    assert stem.shape == (64, 4, 7, 7)
    np.testing.assert_allclose(stem.sum(1), given.sum(1), atol=1e-6)
    random = segmentation(tiles, "random_bn", tmp_path / "random", "INPUT.CHANNELS", "4")
    assert main.main([*random, "MODEL.BACKBONE", "resnet18"]) == 0
    assert results.load(tmp_path / "random" / "trial_1").metrics["sem_seg/mIoU"] > 40


@pytest.mark.slow
def test_a_detector_learns_stops_and_resumes(tiles, weights, tmp_path, stops_at):
    words = [*detection(tiles, weights, tmp_path / "out"), "SOLVER.MAX_ITER", "40"]
    with stops_at(2), pytest.raises(StoppedEarly, match="stopped at step 3 of 40"):
        main.main(words)
    assert main.main(words) == 0
    record = results.load(tmp_path / "out" / "trial_1")
    assert record.metrics["bbox/AP50"] > 80
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(tmp_path / "out" / "config.yaml"))
    assert (cfg.INPUT.FORMAT, cfg.INPUT.CHANNELS, len(cfg.MODEL.PIXEL_MEAN)) == ("as stored", 4, 4)
    final = torch.load(tmp_path / "out" / "trial_1" / "model_final.pth", weights_only=True)
    assert final["model"]["backbone.bottom_up.stem.conv1.weight"].shape == (64, 4, 7, 7)
    again = [str(tmp_path / "out" / "trial_1"), *words[1:], "--eval-only"]
    again[again.index("-o") + 1] = str(tmp_path / "again")
    assert main.main(again) == 0
    evaluated = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert evaluated["metrics"]["bbox/AP"] == pytest.approx(record.metrics["bbox/AP"])


@pytest.mark.slow
def test_images_are_classified_by_the_fourth_channel(tiles, weights, tmp_path):
    for split in ("train", "val"):
        for n, file in enumerate(sorted((tiles / split / "images").iterdir())):
            values, _ = picture(int(file.stem))
            name = "with" if n % 2 else "without"
            if name == "without":
                values = np.where(values >= HIGH, 200, values).astype(np.uint16)
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            tiff_of_channels(tmp_path / split / name / file.name, values)
    words = [str(weights), "--protocol", "custom_cls", "--mini", "--trials", "1"]
    words += ["--train", str(tmp_path / "train"), "--val", str(tmp_path / "val")]
    words += ["SEARCH.BASE_LR", "()", "SOLVER.MAX_ITER", "20", "SOLVER.IMS_PER_BATCH", "8"]
    assert main.main([*words, "-o", str(tmp_path / "out")]) == 0
    assert results.load(tmp_path / "out" / "trial_1").metrics["cls/top1"] == 100
    again = [str(tmp_path / "out" / "trial_1"), *words[1:], "--eval-only"]
    assert main.main([*again, "-o", str(tmp_path / "again")]) == 0
    assert results.load(tmp_path / "again").metrics["cls/top1"] == 100


def test_a_fourth_channel_is_no_transparency(tiles):
    """Resized and flipped as each channel alone would be."""
    from densessl.d2_transfer.datasets.detection_mapper import DetectionMapper

    cfg = compat.get_cfg()
    cfg.INPUT.FORMAT, cfg.INPUT.RANGE = "as stored", "0 to 1023"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * 4, [1.0] * 4
    cfg.INPUT.MIN_SIZE_TEST = 37
    values, _ = picture(0)
    entry = {"file_name": str(tiles / "train" / "images" / "0.tif"), "width": 64, "height": 64}
    found = DetectionMapper(cfg, is_train=False)(entry)["image"]
    wanted = np.rint(values / 1023 * 255).astype(np.uint8)
    for channel in range(4):
        plane = Image.fromarray(wanted[:, :, channel])
        small = np.asarray(plane.resize((37, 37), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(found[channel].numpy(), small)


def test_pictures_in_colour_are_refused():
    cfg = resolve.resolve("coco_mask_fpn_1x", cuda=False)
    with pytest.raises(InputError, match="4 channels, and coco_2017_train, coco_2017_val has pict"):
        channels.settle(cfg, {"channels": 4})
    probe = resolve.resolve("knn_semseg", "voc", cuda=False)
    with pytest.raises(InputError, match="this protocol has pictures in colour; allowed: custom_d"):
        channels.settle(probe, {"channels": 4})
    cfg = resolve.resolve("coco_mask_fpn_1x", cuda=False, overrides=["INPUT.CHANNELS", "5"])
    with pytest.raises(InputError, match="INPUT.CHANNELS is 5, but the weights take images of 4"):
        channels.settle(cfg, {"channels": 4})
