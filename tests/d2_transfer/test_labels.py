"""``--labels`` of known data sets: which training images keep their labels."""

import json
from collections import Counter

import numpy as np
import pytest
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


def names(dicts) -> list[str]:
    return [each["file_name"] for each in dicts]


def test_they_are_nested_stratified_and_follow_from_the_seed(caplog):
    every = images()
    ten = labelled.kept(every, "10%", 0, says=False)
    assert len(ten) == 20 and names(ten) == [n for n in names(every) if n in set(names(ten))]
    assert {*names(labelled.kept(every, "2%", 0, False))} < {*names(ten)}
    assert names(labelled.kept(every, "20", 0, False)) == names(ten)
    assert names(labelled.kept(every, "10%", 1, False)) != names(ten)
    counts = Counter(each["annotations"][0]["category_id"] for each in ten)
    assert counts[0] == 10 and {*counts} == {0, 1, 2, 3}
    with caplog.at_level("INFO", "densessl"):
        labelled.kept(every, "10%", 0, says=True)
    assert "trains on 20 of 200 images (--labels 10%, --data-seed 0)" in caplog.text
    with pytest.raises(InputError, match="--labels is '300'; allowed: .* from 1 to 200"):
        labelled.kept(every, "300", 0, False)


def test_label_images_are_read_for_their_classes(tmp_path):
    dicts = []
    for number in range(20):
        file = tmp_path / f"{number}.png"
        values = np.full((4, 4), 255, np.uint8)
        values[0] = 7 if number == 13 else 1
        Image.fromarray(values).save(file)
        dicts.append({"file_name": f"{number}.jpg", "sem_seg_file_name": str(file)})
    for seed in range(3):  # the rarest class comes first
        assert "13.jpg" in names(labelled.kept(dicts, "2", seed, False))
    Image.new("RGB", (4, 4)).save(tmp_path / "3.png")
    with pytest.raises(InputError, match="3.png is a picture in colour"):
        labelled.kept(dicts, "2", 0, False)


@pytest.mark.parametrize("protocol", ["voc_det_c4", "coco_mask_fpn_1x", "cityscapes_semseg"])
def test_they_are_part_of_the_config(protocol):
    every = resolve(protocol, cuda=False, gpus=1)
    ten = resolve(protocol, cuda=False, gpus=1, labels="10%", data_seed=2)
    assert (ten.DATASETS.LABELS, ten.DATASETS.LABELS_SEED) == ("10%", 2)
    assert ten.SOLVER == every.SOLVER
    hashes = [results.config_fingerprint(results.as_dict(each)) for each in (every, ten)]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--protocol", "voc_det_c4", "--labels", "many"], "--labels is 'many'; allowed: a share"),
        (["--protocol", "voc_det_c4", "--labels", "0%"], "--labels is '0%'; allowed: a share"),
        (["--protocol", "knn", "--labels", "10%"], "--labels is '10%', but knn reads its own"),
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
