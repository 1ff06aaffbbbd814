"""Your own images with each channel in a file of its own: as the same images in one file each."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import channels, compat, main, own_data, resolve, results
from densessl.d2_transfer.protocols import PROTOCOLS
from tests.decoding.images import tiff_of_channels

compat.setup()

SIDE, SQUARE = 64, 24
WORDS = ("_red", "_nir", "_blue", "_edge")
FLAG = ("--channel-files", ",".join(WORDS))


def picture(n: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Noise ``[64, 64, 4]`` of 10 bits, with a square that shows in one channel; its corner."""
    rng = np.random.default_rng(n)
    values = rng.integers(0, 400, (SIDE, SIDE, 4), dtype=np.uint16)
    x, y = (int(edge) for edge in rng.integers(4, SIDE - SQUARE - 4, 2))
    values[y : y + SQUARE, x : x + SQUARE, 2] = 900
    return values, (x, y)


def save(file: Path, n: int, words=WORDS) -> None:
    """Picture ``n`` as ``file``, or each channel beside it with its word in the name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = picture(n)[0]
    if not words:
        tiff_of_channels(file, values)
    for place, word in enumerate(words):
        name = file.with_name(f"{file.stem}{word}{file.suffix}")
        tiff_of_channels(name, values[:, :, place : place + 1])


def box(n: int) -> tuple[int, int, int, int]:
    x, y = picture(n)[1]
    return x, y, x + SQUARE, y + SQUARE


def yolo(root: Path, words=WORDS) -> dict[str, Path]:
    """Labels beside the second channel; the folder of images holds all."""
    for split, numbers in (("train", range(6)), ("val", range(6, 9))):
        for n in numbers:
            save(root / split / "images" / f"{n}.tif", n, words)
            x1, y1, x2, y2 = (edge / SIDE for edge in box(n))
            line = f"0 {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1}\n"
            labels = root / split / "labels"
            labels.mkdir(exist_ok=True)
            (labels / f"{n}{words[1] if words else ''}.txt").write_text(line)
        (root / split / "classes.txt").write_text("square\n")
    return {split: root / split for split in ("train", "val")}


def masks(root: Path, words=WORDS) -> dict[str, Path]:
    """A label image for the first channel of each."""
    for split, numbers in (("train", range(6)), ("val", range(6, 9))):
        for n in numbers:
            save(root / split / "images" / f"{n}.tif", n, words)
            labels = np.zeros((SIDE, SIDE), np.uint8)
            x1, y1, x2, y2 = box(n)
            labels[y1:y2, x1:x2] = 1
            (root / split / "masks").mkdir(exist_ok=True)
            name = f"{n}{words[0] if words else ''}.png"
            Image.fromarray(labels).save(root / split / "masks" / name)
    return {split: root / split for split in ("train", "val")}


def classes(root: Path, words=WORDS) -> dict[str, Path]:
    for split, numbers in (("train", range(6)), ("val", range(6, 10))):
        for n in numbers:
            save(root / split / ("even", "odd")[n % 2] / f"{n}.tif", n, words)
    return {split: root / split for split in ("train", "val")}


def flags(given: dict[str, Path], *more: str) -> list[str]:
    words = [word for name, path in given.items() for word in (f"--{name}", str(path))]
    return [*words, *more]


FORMS = {"custom_det": yolo, "custom_semseg": masks, "custom_cls": classes}


@pytest.mark.parametrize("protocol", FORMS)
def test_an_image_counts_once_and_has_all_its_channels(protocol, tmp_path):
    given = FORMS[protocol](tmp_path / "own")
    own = own_data.of(
        PROTOCOLS[protocol], {"output_dir": tmp_path / "out", "channel_files": FLAG[1], **given}
    ).written()
    assert own.facts["channel_files"] == FLAG[1]
    cfg = resolve.resolve(protocol, mini=True, cuda=False, gpus=1, custom=own)
    assert (4, FLAG[1]) == (cfg.INPUT.CHANNELS, cfg.INPUT.CHANNEL_FILES)
    cfg = channels.settle(cfg, {}).clone()
    cfg.defrost()
    cfg.INPUT.RANGE = "0 to 255"  # of 10 bits: what is above is clipped
    expected = [np.minimum(picture(n)[0], 255) for n in range(6)]
    if protocol == "custom_det":
        from densessl.d2_transfer.datasets import coco_content
        from densessl.d2_transfer.datasets.reading import Reading

        records = coco_content.records(own.train_json, own.train_images, {1: 0})
        files = [each["file_name"] for each in records]
        found = [Reading.of(cfg)(file)[0] for file in files]
        assert [Path(file).stem for file in files] == [f"{n}_nir" for n in range(6)]
        x1, y1, x2, y2 = box(0)
        assert records[0]["annotations"][0]["bbox"] == [x1, y1, x2 - x1, y2 - y1]
    else:
        family = PROTOCOLS[protocol].family
        data = importlib.import_module(f"densessl.d2_transfer.{family}.data")
        train, val = data.read(cfg, own)
        assert (len(train), len(val)) == (6, 4 if protocol == "custom_cls" else 3)
        order = [int(Path(train.path(index)).stem.split("_")[0]) for index in range(6)]
        found = [train.open(order.index(n)).values for n in range(6)]
    np.testing.assert_array_equal(found, expected)


def test_a_file_that_is_missing_is_a_fault(tmp_path):
    given = yolo(tmp_path / "own")
    (given["train"] / "images" / "3_blue.tif").unlink()
    with pytest.raises(InputError, match=r"3_nir.tif: the file of another .*3_blue.tif"):
        own_data.of(PROTOCOLS["custom_det"], {"output_dir": "", "channel_files": FLAG[1], **given})


def test_objects_in_two_files_of_an_image_are_a_fault_unless_they_are_the_same(tmp_path):
    given = yolo(tmp_path / "own")
    labels = given["train"] / "labels"
    first, second = labels / "2_nir.txt", labels / "2_edge.txt"
    second.write_text(first.read_text())
    words = {"output_dir": tmp_path, "channel_files": FLAG[1], **given}
    assert own_data.of(PROTOCOLS["custom_det"], words).images == 6
    second.write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(InputError, match="2_nir.tif: other objects than in 2_edge.tif"):
        own_data.of(PROTOCOLS["custom_det"], words)


@pytest.mark.slow
def test_a_trial_is_that_on_one_file_each(tmp_path):
    small = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    small += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.MAX_ITER", "3"]
    made = []
    for name, words, more in (("one", (), ["INPUT.CHANNELS", "4"]), ("files", WORDS, [])):
        given = yolo(tmp_path / name, words)
        command = ["random", "--protocol", "custom_det", "--mini", "--trials", "1"]
        command += flags(given, *FLAG[: 2 * bool(words)]) + ["-o", str(tmp_path / f"out_{name}")]
        assert main.main([*command, *small, *more]) == 0
        trial = tmp_path / f"out_{name}" / "trial_1"
        final = torch.load(trial / "model_final.pth", weights_only=True)["model"]
        made.append((final, results.load(trial)))
    (one, record), (files, own) = made
    assert all(torch.equal(files[key], each) for key, each in one.items())
    assert own.metrics == record.metrics and own.range == record.range == [0, 1023]
    run = json.loads((tmp_path / "out_files" / "run.json").read_text())
    assert FLAG[1] in json.dumps(run)


def test_three_files_are_a_picture_and_other_numbers_are_refused(tmp_path):
    given = yolo(tmp_path / "own", WORDS[:3])
    own = own_data.of(
        PROTOCOLS["custom_det"],
        {"output_dir": tmp_path, "channel_files": ",".join(WORDS[:3]), **given},
    ).written()
    cfg = resolve.resolve("custom_det", mini=True, cuda=False, gpus=1, custom=own)
    assert cfg.INPUT.CHANNELS == 0 and channels.settle(cfg, {}) is cfg
    channels.require_readable(cfg, own, {})
    with pytest.raises(InputError, match="--channel-files has 3 words .* of 4 channels"):
        channels.settle(cfg, {"channels": 4})
