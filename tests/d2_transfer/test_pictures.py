"""The picture of a trial's detections."""

import numpy as np
import pytest
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import pictures


def test_overlap_by_hand():
    one = (0, 0, 10, 10, 3, None)
    assert pictures._iou(one, (0, 0, 10, 10, 3, 0.9)) == 1.0
    assert pictures._iou(one, (5, 0, 15, 10, 3, 0.9)) == pytest.approx(50 / 150)
    assert pictures._iou(one, (20, 20, 30, 30, 3, 0.9)) == 0.0
    assert pictures._found((1, 0, 11, 10, 3, 0.9), [one])
    assert not pictures._found((1, 0, 11, 10, 4, 0.9), [one])  # another class
    assert not pictures._found((5, 0, 15, 10, 3, 0.9), [one])  # too little overlap


@pytest.mark.parametrize("count", [1, 4])
def test_ground_truth_and_detections_are_drawn_on_their_own_sides(tmp_path, count):
    example = pictures.Example(
        name="000001",
        pixels=np.full((64, 64, 3), 255, dtype=np.uint8),
        size=(64, 64),
        objects=[(10, 10, 50, 50, 0, None)],
        detections=[(12, 10, 52, 50, 0, 0.75)],
    )
    bare = pictures.Example("000001", example.pixels, example.size, [(10, 10, 50, 50, 0, None)], [])
    drawn = []
    for name, examples in (("full", [example] * count), ("bare", [bare] * count)):
        pictures._draw(examples, ["person"], tmp_path / f"{name}.png")
        drawn.append(np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int))
    different = np.abs(drawn[0] - drawn[1]).sum(-1) > 0
    below_title = different[100:]
    columns = np.flatnonzero(below_title.any(0)) / different.shape[1]
    assert columns.min() > 0.25  # the ground truth of the first image is left alone
    assert np.ptp(drawn[0]) > 0


def test_an_unfinished_trial_is_refused(tmp_path):
    with pytest.raises(InputError, match="no config.yaml"):
        pictures.detections(tmp_path, tmp_path / "out.png")


@pytest.mark.parametrize(
    "config, says",
    [
        ("TASK: linear_semseg\nMODEL: {BACKBONE: auto}\n", "trained a network of another kind"),
        ("MODEL: {META_ARCHITECTURE: FCNSegmentor}\n", "trained a FCNSegmentor"),
        ("[1, 2]\n", "config.yaml is not the config of a trial"),
    ],
)
def test_what_detects_nothing_is_refused(tmp_path, config, says):
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "model_final.pth").write_bytes(b"")
    with pytest.raises(InputError, match=says):
        pictures.main([str(tmp_path), "-o", str(tmp_path / "out.png")])


def test_missing_test_images_are_named(tmp_path, monkeypatch):
    config = "MODEL: {META_ARCHITECTURE: GeneralizedRCNN}\nDATASETS: {TEST: [voc_2007_test]}\n"
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "model_final.pth").write_bytes(b"")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(InputError, match=r"voc_2007_test: .* is not there"):
        pictures.main([str(tmp_path), "-o", str(tmp_path / "out.png")])
