"""Dense probes on windows of large images: what is cut, and that their predictions are merged."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import dense_probes, results, trials
from densessl.d2_transfer.dense_probes import features
from densessl.d2_transfer.dense_probes.data import read
from densessl.d2_transfer.dense_probes.trial import ready
from densessl.d2_transfer.dense_probes.windows import bands, cut
from densessl.d2_transfer.windows import spans

SMALL = ["INPUT.SIZE", "(32, 32)", "MODEL.BACKBONE", "resnet18", "FEATURES.LEVELS", "('res3',)"]
VALUES = {"ENABLED": True, "SIZE": 40, "STRIDE": 25}


def slid(**changed) -> list[str]:
    pairs = (VALUES | changed).items()
    return [word for key, value in pairs for word in (f"TEST.SLIDING_WINDOW.{key}", str(value))]


def resolved(*overrides, protocol="knn_semseg"):
    words = [*SMALL, *overrides]
    return dense_probes.resolve(protocol, "voc", 1, mini=True, overrides=words, cuda=False)


def measured(folder, data, *overrides, protocol="knn_semseg") -> results.Record:
    """The record of one trial, made as ``densessl transfer --mini`` makes it."""
    cfg = resolved(*overrides, protocol=protocol)
    run = trials.Run(
        folder=folder,
        protocol=protocol,
        variant="voc",
        mini=True,
        weights=dense_probes.prepare("random", folder, cfg),
        data=dense_probes.check_data(cfg, data, stand_in=True),
    )
    (record,), failed = trials.run_trials(run, cfg, 1, 1, dense_probes.run_trial)
    assert not failed
    return record


@pytest.mark.parametrize("most_pixels", [0, 2000])
def test_windows_are_cut_from_images_and_show_each_labelled_pixel_once(scenes, most_pixels):
    """Also of files that are read at reduced scale, at half here."""
    cfg = resolved(*slid(), "INPUT.MAX_PIXELS", str(most_pixels))
    train, _ = read(cfg, scenes)
    found = cut(train, cfg)
    scale = 2 if most_pixels else 1
    assert len(found) == 4 * len(train)
    last = len(found) - 1  # the lower right of the last image
    image, labels = train.open(len(train) - 1), train.labels_of(len(train) - 1)
    shown = np.asarray(image.crop([24 // scale, 24 // scale, 64 // scale, 64 // scale]))
    assert (np.asarray(found.open(last)) == shown).all()
    assert (found.labels_of(last)[16:, 16:] == labels[40:, 40:]).all()
    assert (found.labels_of(last)[:16] == 255).all() and found.path(last) == train.path(-1)
    for number, windows in enumerate(found.of_images()):
        counts = [np.bincount(found.labels_of(each).ravel(), minlength=256) for each in windows]
        whole = np.bincount(train.labels_of(number).ravel(), minlength=256)
        assert (sum(counts)[:255] == whole[:255]).all()
    assert found.fingerprint() != train.fingerprint()


@pytest.mark.parametrize(
    "size, window", [((23, 31), (10, 6)), ((23, 31), (23, 9)), ((9, 9), (4, 4))]
)
def test_predictions_are_averaged_where_windows_overlap(size, window):
    generator = torch.Generator().manual_seed(0)
    boxes = [
        (*row, *column) for row in spans(size[0], *window) for column in spans(size[1], *window)
    ]
    maps = [torch.randn(2, 1, 5, 3, 4, generator=generator) for _ in boxes]
    total, count = torch.zeros(2, 5, *size), torch.zeros(size)
    for (top, bottom, left, right), both in zip(boxes, maps, strict=True):
        shape = (bottom - top, right - left)
        part = F.interpolate(both[:, 0], shape, mode="bilinear", align_corners=False)
        total[:, :, top:bottom, left:right] += part
        count[top:bottom, left:right] += 1
    wanted = (total / count).argmax(1)
    assert count.min() >= 1
    found = list(bands((list(both) for both in maps), size, window))
    rows = [row for part, _ in found for row in range(part.start, part.stop)]
    assert rows == list(range(size[0]))
    for number in (0, 1):
        assert (torch.cat([classes[number] for _, classes in found]) == wanted[number]).all()


def test_a_window_as_large_as_the_image_gives_the_very_numbers_of_the_whole_one(tmp_path, scenes):
    plain = measured(tmp_path / "plain", scenes)
    window = measured(tmp_path / "window", scenes, *slid(SIZE=64, STRIDE=64))
    assert window.metrics == pytest.approx(plain.metrics, rel=0, abs=0, nan_ok=True)
    assert window.config_sha256 != plain.config_sha256
    assert results.config_of(window)["TEST.SLIDING_WINDOW.ENABLED"] is True


def test_pieces_of_features_may_part_an_images_windows(tmp_path, scenes, monkeypatch):
    one = measured(tmp_path / "one", scenes, *slid(), "TEST.PREDICTIONS", "1")
    (picture,) = (tmp_path / "one").rglob("*_predicted.png")
    assert Image.open(picture).size == (64, 64)  # of the whole image
    monkeypatch.setattr(features, "FLOATS", 3 * 16 * 128)  # three windows of four a piece
    parted = measured(tmp_path / "parted", scenes, *slid())
    assert len(list((tmp_path / "parted").rglob("counts_*.npy"))) == 8
    assert parted.metrics == pytest.approx(one.metrics, abs=0.2, nan_ok=True)


def test_windows_that_are_off_leave_records_as_they_were():
    held = results.as_dict(resolved())
    before = {**held, "TEST": {k: v for k, v in held["TEST"].items() if k != "SLIDING_WINDOW"}}
    assert results.config_fingerprint(before) == results.config_fingerprint(held)
    detector = {"TEST": held["TEST"]}  # whose configs always had them
    assert "TEST.SLIDING_WINDOW.SIZE" in results.flat(detector)


def test_windows_that_cannot_be_are_refused(tmp_path, scenes):
    with pytest.raises(InputError, match="SLIDING_WINDOW.STRIDE is 41 and SIZE 40; allowed: "):
        resolved(*slid(STRIDE=41))
    with pytest.raises(InputError, match="SLIDING_WINDOW.SIZE is 0; it must be at least 1"):
        resolved(*slid(SIZE=0))
    cfg = resolved(*slid(ENABLED=False))
    start = dense_probes.prepare("random", tmp_path, cfg)
    named = ("TEST.SLIDING_WINDOW.STRIDE",)
    run = trials.Run(tmp_path, "knn_semseg", "voc", True, start, scenes, named=named)
    with pytest.raises(InputError, match="STRIDE is set to 25, but TEST.SLIDING_WINDOW.ENABLED"):
        ready(cfg, run, evaluates=False)
