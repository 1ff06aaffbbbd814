"""COCO-Stuff in coarse classes: the table, the layout, what is refused, lists of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import datasets, dense_probes, results
from densessl.d2_transfer.datasets.coco_stuff import STUFF, THINGS
from densessl.d2_transfer.dense_probes.data import read
from densessl.pretrain.scenes.coco import CATEGORIES

GOLDEN = Path(__file__).parents[1] / "golden" / "coco_stuff" / "iic_fine_to_coarse.txt"
VARIANTS = {"cocostuff27": THINGS | STUFF, "cocostuff15": STUFF, "cocothings12": THINGS}
HALVES = ("stuff27", "stuff15", "things12")
# Of COCO's own list of stuff categories, whose numbers are one more than the values.
SUPERCATEGORIES = {
    "textile": (92, 93, 104, 105, 109, 131, 137, 141, 152, 167, 168),
    "water": (120, 148, 155, 178, 179),
    "solid": (127, 135, 150, 160, 162, 182),
    "furniture": (98, 107, 108, 110, 112, 123, 130, 133, 156, 161, 165),
}


def test_the_table_is_the_published_one():
    numbers = np.loadtxt(GOLDEN, int).ravel()
    table = datasets.LAYOUTS["coco_stuff27_train"].table
    assert len(table) == 182 and table == tuple(numbers)
    names = datasets.class_names("coco_stuff27_val")
    for group, entries in CATEGORIES.items():  # COCO's 80 categories with their supercategories
        for entry in entries.split(", "):
            assert names[table[int(entry.split()[0]) - 1]] == f"{group}-things"
    for group, members in SUPERCATEGORIES.items():
        found = tuple(n + 1 for n, c in enumerate(table) if names[c] == f"{group}-stuff")
        assert found == members


def test_stuff_and_things_are_the_two_halves():
    whole, stuff, things = (datasets.LAYOUTS[f"coco_{name}_val"] for name in HALVES)
    assert (whole.classes, stuff.classes, things.classes) == (27, 15, 12)
    of_stuff, of_things = np.array(stuff.table), np.array(things.table)
    assert ((of_stuff == 255) == (np.arange(182) < 91)).all()
    assert ((of_things == 255) == (np.arange(182) >= 91)).all()
    both = np.where(of_things < 255, of_things, of_stuff + 12)
    assert (both == whole.table).all() and whole.names == things.names + stuff.names


@pytest.fixture
def coco(tmp_path):
    """Three training images and one to validate, in COCO-Stuff's layout; their label images."""
    maps = {}
    for split, numbers in (("train2017", (1, 2, 3)), ("val2017", (9,))):
        for number in numbers:
            rng = np.random.default_rng(number)
            image = tmp_path / "coco" / split / f"{number:012d}.jpg"
            labels = tmp_path / "coco" / "stuffthingmaps" / split / f"{number:012d}.png"
            for file in (image, labels):
                file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(image)
            values = rng.choice([*range(182), 255], (24, 32)).astype(np.uint8)
            Image.fromarray(values).save(labels)
            maps[number] = values
    return tmp_path, maps


def config(variant, *overrides, protocol="linear_semseg"):
    return dense_probes.resolve(protocol, variant, mini=True, cuda=False, overrides=overrides)


@pytest.mark.parametrize("variant", VARIANTS)
def test_label_images_are_read_as_classes(coco, variant):
    root, maps = coco
    cfg = config(variant)
    train, test = read(cfg, dense_probes.check_data(cfg, root, stand_in=True))
    assert (len(train), len(test)) == (3, 1) and train.classes == tuple(VARIANTS[variant])
    for number, (name, values) in enumerate(VARIANTS[variant].items()):
        assert (np.isin(maps[9], values) == (test.labels_of(0).numpy() == number)).all(), name
    left = ~np.isin(maps[9], [v for values in VARIANTS[variant].values() for v in values])
    assert left.any() and (test.labels_of(0).numpy()[left] == 255).all()


def wrong(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        dense_probes.check_data(config("cocostuff15"), root, stand_in=True)
    return str(caught.value)


def test_what_is_wrong_is_named(coco):
    root, maps = coco
    labels = root / "coco" / "stuffthingmaps" / "val2017" / "000000000009.png"
    Image.fromarray(np.where(maps[9] == 255, 183, maps[9])).save(labels)  # as COCO's own stuff
    said = wrong(root)
    assert f"{labels} has pixels of value 183; allowed: 0 to 181 and 255" in said
    assert "COCO's own label images of stuff" in said and "densessl scenes DIR" in said
    Image.fromarray(maps[9][:20]).save(labels)
    assert "32×20 pixels" in wrong(root)
    (root / "coco" / "val2017" / "000000000009.jpg").unlink()
    assert "lists 000000000009, not in" in wrong(root)
    labels.rename(root / "elsewhere.png")
    assert f"{labels.parent} holds no label images" in wrong(root)
    labels.parent.rmdir()
    assert f"{labels.parent} is not there" in wrong(root)


def test_a_list_names_the_images(coco, tmp_path):
    root, _ = coco
    (root / "coco" / "few.txt").write_text("000000000003\n000000000001 12\n")
    cfg = config("cocostuff27", "DATASETS.TRAIN_LIST", "coco/few.txt")
    train, test = read(cfg, dense_probes.check_data(cfg, root, stand_in=True))
    assert [Path(train.path(n)).stem[-1] for n in (0, 1)] == ["1", "3"] and len(test) == 1
    assert train.fingerprint() != read(config("cocostuff27"), root)[0].fingerprint()
    elsewhere = tmp_path / "own.txt"
    elsewhere.write_text("train2017/000000000002.jpg\n")
    cfg = config("cocostuff27", "DATASETS.TRAIN_LIST", str(elsewhere))
    assert len(read(cfg, root)[0]) == 1


@pytest.mark.parametrize(
    "text, says",
    [
        ("000000000007\n000000000001\n", "1 of its 2 images are not in coco_stuff27_train: 0000"),
        ("000000000001\n000000000001.jpg\n", "has 2 names for 1 images"),
        ("\n", "is empty"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(coco, text, says):
    root, _ = coco
    (root / "few.txt").write_text(text)
    cfg = config("cocostuff27", "DATASETS.TRAIN_LIST", "few.txt")
    with pytest.raises(InputError, match=f"DATASETS.TRAIN_LIST: .*{says}"):
        dense_probes.check_data(cfg, root)


def test_the_whole_way_on_scenes(scenes, tmp_path, capsys):
    words = ["transfer", "random", "--protocol", "linear_semseg", "--variant", "cocostuff27"]
    words += ["--mini", "--trials", "1", "--data", str(scenes), "-o", str(tmp_path / "out")]
    words += ["MODEL.BACKBONE", "resnet18", "INPUT.SIZE", "(64, 64)", "LINEAR.STEPS", "10"]
    assert densessl.main(words) == 0
    assert "sem_seg/mIoU" in capsys.readouterr().out
    record = results.load(tmp_path / "out" / "trial_1")
    assert {"sem_seg/IoU-sky-stuff", "sem_seg/IoU-person-things"} <= set(record.metrics)
    assert densessl.main([*words, "DATASETS.TEST_LIST", "nowhere.txt"]) == 2


def test_records_without_lists_keep_their_fingerprint():
    options = results.flat({"DATASETS": {"TRAIN": "a", "TRAIN_LIST": "", "TEST_LIST": ""}})
    assert options == {"DATASETS.TRAIN": "a"}
