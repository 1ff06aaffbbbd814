"""``--labels`` of known data sets: which training images keep their labels."""

import json
from collections import Counter

import numpy as np
import pytest
from fvcore.common.config import CfgNode
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import compat, main, results
from densessl.d2_transfer.datasets import labelled
from densessl.d2_transfer.resolve import resolve

compat.setup()


def images(count: int = 200) -> list[dict]:
    """Half of class 0, the rest of 1 to 3; every tenth also has a crowd of class 9."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        kinds = [0] if number % 2 else [int(rng.integers(1, 4))]
        objects = [{"category_id": kind} for kind in kinds]
        if number % 10 == 0:
            objects.append({"category_id": 9, "iscrowd": 1})
        found.append({"file_name": f"{number}.jpg", "annotations": objects})
    return found


def kept(dicts, amount: str, seed: int = 0, says: bool = False) -> list[dict]:
    cfg = CfgNode({"DATASETS": {"LABELS": amount, "LABELS_SEED": seed}})
    return labelled.kept(dicts, cfg, says)


def names(dicts) -> list[str]:
    return [each["file_name"] for each in dicts]


def test_they_are_nested_stratified_and_follow_from_the_seed(caplog):
    every = images()
    ten = kept(every, "10%")
    assert len(ten) == 20 and names(ten) == [n for n in names(every) if n in set(names(ten))]
    assert {*names(kept(every, "2%"))} < {*names(ten)}
    assert names(kept(every, "20")) == names(ten)
    assert names(kept(every, "10%", 1)) != names(ten)
    counts = Counter(each["annotations"][0]["category_id"] for each in ten)
    assert counts[0] == 10 and {*counts} == {0, 1, 2, 3}
    with caplog.at_level("INFO", "densessl"):
        kept(every, "10%", says=True)
    assert "trains on 20 of 200 images (--labels 10%, --data-seed 0)" in caplog.text
    with pytest.raises(InputError, match="--labels is '300'; allowed: .* from 1 to 200"):
        kept(every, "300")


def test_label_images_are_read_for_their_classes(tmp_path):
    dicts = []
    for number in range(20):
        file = tmp_path / f"{number}.png"
        values = np.full((4, 4), 255, np.uint8)
        values[0] = 7 if number == 13 else 1
        Image.fromarray(values).save(file)
        dicts.append({"file_name": f"{number}.jpg", "sem_seg_file_name": str(file)})
    for seed in range(3):  # the rarest class comes first
        assert "13.jpg" in names(kept(dicts, "2", seed))
    Image.new("RGB", (4, 4)).save(tmp_path / "3.png")
    with pytest.raises(InputError, match="3.png is a picture in colour"):
        kept(dicts, "2")


@pytest.mark.parametrize(
    "protocol",
    ["voc_det_c4", "coco_mask_fpn_1x", "cityscapes_semseg", "linear", "linear_semseg", "knn"],
)
def test_they_are_part_of_the_config(protocol):
    every = resolve(protocol, cuda=False, gpus=1)
    ten = resolve(protocol, cuda=False, gpus=1, labels="10%", data_seed=2)
    assert (ten.DATASETS.LABELS, ten.DATASETS.LABELS_SEED) == ("10%", 2)
    assert ten.get("SOLVER") == every.get("SOLVER")
    hashes = [results.config_fingerprint(results.as_dict(each)) for each in (every, ten)]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--protocol", "voc_det_c4", "--labels", "many"], "--labels is 'many'; allowed: a share"),
        (["--protocol", "voc_det_c4", "--labels", "0%"], "--labels is '0%'; allowed: a share"),
        (["--protocol", "knn", "--labels", "x"], "--labels is 'x'; allowed: a share"),
        (
            ["--protocol", "voc_det_c4", "--data-seed", "3"],
            "--data-seed is 3, but without --labels",
        ),
        (["--protocol", "voc_det_c4", "--groups", "g"], "--groups is 'g', but voc_det_c4 reads"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(words, message, tmp_path):
    with pytest.raises(InputError, match=message):
        main.main(["random", *words, "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_trial_trains_on_them_alone_and_its_record_says_so(few_scenes, tmp_path):
    words = ["random", "--protocol", "voc_det_c4", "--mini", "--trials", "1", "--labels", "25%"]
    words += ["--data", str(few_scenes), "-o", str(tmp_path / "out"), "SOLVER.MAX_ITER", "2"]
    assert main.main(words) == 0
    record = results.load(tmp_path / "out" / "trial_1")
    assert record.labels == {"amount": "25%", "percent": 25.0, "seed": 0}
    assert "trains on 2 of 8 images" in (tmp_path / "out" / "log.txt").read_text()
    assert json.loads((tmp_path / "out" / "trial_1" / "result.json").read_text())["labels"]
    assert main.main(words) == 0  # it is finished
    with pytest.raises(InputError, match="DATASETS.LABELS '25%' there, '50%' here"):
        main.main(["50%" if word == "25%" else word for word in words])


@pytest.mark.parametrize(
    "protocol, size",
    [
        ("knn", ["INPUT.SIZE", "32", "INPUT.RESIZE", "32"]),
        ("linear_semseg", ["INPUT.SIZE", "(64, 64)", "LINEAR.STEPS", "3"]),
    ],
)
def test_frozen_networks_are_measured_with_them(protocol, size, scenes, tmp_path):
    words = ["random", "--protocol", protocol, "--mini", "--trials", "1", "--data", str(scenes)]
    words += ["MODEL.BACKBONE", "resnet18", *size]
    for amount, expected in (
        ("50%", {"amount": "50%", "percent": 50, "seed": 0}),
        ("3", {"amount": "3 images", "seed": 0}),
    ):
        out = tmp_path / amount
        assert main.main([*words, "--labels", amount, "-o", str(out)]) == 0
        assert results.load(out / "trial_1").labels == expected
    assert "trains on 3 of " in (tmp_path / "3" / "log.txt").read_text()


def test_a_list_of_labelled_images_goes_without_them(scenes, tmp_path):
    words = ["random", "--protocol", "semisup_10pct", "--mini", "--trials", "1", "--labels", "10%"]
    with pytest.raises(InputError, match="DATASETS.LIST .* says already which"):
        main.main([*words, "--data", str(scenes), "-o", str(tmp_path / "out")])
