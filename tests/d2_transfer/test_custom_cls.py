"""custom_cls: class folders and tables of images, read, parted, trained on."""

import json

import numpy as np
import pytest
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import main, own_data, results
from densessl.d2_transfer.protocols import PROTOCOLS
from densessl.d2_transfer.resolve import resolve

COLOURS = {"cat": (200, 60, 60), "dog": (60, 60, 200)}


def save(file, colour, seed: int):
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-40, 40, (40, 40, 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(file)


@pytest.fixture
def tree(tmp_path):
    """Ten images a class, of which the files are numbered: cat/cat_03.png."""
    for kind, colour in COLOURS.items():
        for n in range(10):
            save(tmp_path / "data" / kind / f"{kind}_{n:02d}.png", colour, n)
    return tmp_path / "data"


def given(**flags):
    return own_data.of(PROTOCOLS["custom_cls"], flags)


def images(split) -> dict[str, str]:
    return {split.name(n): split.classes[split.labels[n]] for n in range(len(split))}


def test_class_folders_are_parted_within_their_classes(tree):
    own = given(train=tree)
    assert own.train.classes == ("cat", "dog") and (len(own.train), len(own.val)) == (16, 4)
    assert set(images(own.val).values()) == {"cat", "dog"}  # numbered images are no group
    assert all(name.split("/")[0] == label for name, label in images(own.train).items())
    assert own.facts["validation"] == "4 of 20 images by seed 0, each image by itself"
    assert given(train=tree).sha256 == own.sha256 != given(train=tree, data_seed=1).sha256
    few = given(train=tree, labels="25%")
    assert len(few.train) == 4 and images(few.val) == images(own.val)
    cfg = resolve("custom_cls", cuda=False, custom=few, mini=True)
    assert ("own", " ".join(few.sha256)) == (cfg.DATASETS.NAME, cfg.DATASETS.FOLDER)


def test_frames_of_one_video_stay_together(tmp_path):
    for kind, colour in COLOURS.items():
        for n in range(12):
            save(tmp_path / kind / f"video{n // 3}_frame{n % 3}.png", colour, n)
    own = given(train=tmp_path, val_share=25)
    sides = [{name.split("_")[0] for name in images(split)} for split in (own.train, own.val)]
    assert not sides[0] & sides[1] and len(own.val) == 6


def test_folders_of_splits_are_recognised(tree, tmp_path):
    tree.rename(tmp_path / "both_train")
    (tmp_path / "both").mkdir()
    (tmp_path / "both_train").rename(tmp_path / "both" / "train")
    save(tmp_path / "both" / "valid" / "dog" / "x.png", (0, 0, 200), 1)
    save(tmp_path / "both" / "valid" / "cat" / "y.png", (200, 0, 0), 1)
    own = given(train=tmp_path / "both")
    assert len(own.train) == 20 and sorted(images(own.val).values()) == ["cat", "dog"]


@pytest.mark.parametrize(
    "head, line",
    [
        ("filename,label", "{0},{1}"),
        ("", "{0},{1}"),
        ("id;class;path", "7;{1};{0}"),
        ("image\tcategory", "{0}\t{1}"),
    ],
)
def test_a_table_gives_the_same_as_the_folders(head, line, tree):
    rows = [line.format(f"{k}/{k}_{n:02d}.png", k) for n in range(10) for k in COLOURS]
    (tree / "labels.csv").write_text("\n".join([*filter(None, [head]), *rows]))
    table, folders = given(train=tree / "labels.csv", data_seed=3), given(train=tree, data_seed=3)
    assert images(table.train) | images(table.val) == images(folders.train) | images(folders.val)
    assert table.train.classes == ("cat", "dog")


@pytest.mark.parametrize("name", ["{0}/{1}.npy", "./{0}/{1}.png", "{0}/{1}"])
def test_the_first_line_of_a_table_without_a_head_is_an_image(name, tmp_path):
    """An array, a path that begins with a dot, a name without a suffix."""
    rows = [(name.format(kind, n), kind) for n in range(3) for kind in COLOURS]
    for file, kind in rows:
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "labels.csv").write_text("\n".join(map(",".join, rows)))
    own = given(train=tmp_path / "labels.csv")
    assert len(own.train) + len(own.val) == len(rows)


def test_arrays_are_the_images_of_folders_that_have_no_others(tree, tmp_path):
    pictures = images(given(train=tree, data_seed=1).train)
    for n, kind in enumerate(COLOURS):
        (tmp_path / "arrays" / kind).mkdir(parents=True)
        for k in range(4):
            np.save(tmp_path / "arrays" / kind / f"{n}{k}.npy", np.zeros((8, 8, 5), np.uint8))
        np.save(tree / kind / "features.npy", np.zeros(9))  # beside pictures: something else
    own = given(train=tmp_path / "arrays")
    assert len(own.train) + len(own.val) == 8 and own.train.classes == ("cat", "dog")
    assert images(given(train=tree, data_seed=1).train) == pictures


def test_a_column_of_splits_parts_the_images(tree):
    rows = [
        f"{k}/{k}_{n:02d}.png,{k},{'valid' if n > 7 else 'train'}"
        for n in range(10)
        for k in COLOURS
    ]
    (tree / "labels.csv").write_text("\n".join(["file,class,split", *rows]))
    own = given(train=tree / "labels.csv")
    assert (len(own.train), len(own.val)) == (16, 4) and "validation" not in own.facts


@pytest.mark.parametrize(
    "text, words",
    [
        ("cat/cat_00.png,cat\ncat/absent.png,cat", "line 2: the image 'cat/absent.png' is not"),
        (
            "cat/cat_00.png,cat\ncat/cat_00.png,dog",
            "line 2: the image 'cat/cat_00.png' is in line 1",
        ),
        ("cat/cat_00.png,\ncat/cat_01.png,dog", "line 1: it has no class"),
        ("a,b,c\n1,2,3", "its first line is 'a,b,c'; allowed: two columns"),
        ("file,label\ncat/cat_00.png", "line 2 has 1 columns; allowed: 2"),
        ("", "it is empty"),
    ],
)
def test_faults_of_a_table_are_named(text, words, tree):
    (tree / "labels.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        given(train=tree / "labels.csv")
    assert words in str(caught.value)


def test_what_is_no_data_set_is_told(tmp_path, tree):
    for path, words in (
        (tmp_path / "absent", "absent is not there; allowed: a folder with"),
        (tree / "cat", "has no folder with images in it"),
    ):
        with pytest.raises(InputError, match=words):
            given(train=path)
    with pytest.raises(InputError, match="--classes is 'x', but custom_cls takes none"):
        given(train=tree, classes="x")


@pytest.mark.slow
def test_a_classifier_learns_from_class_folders(tree, tmp_path):
    """Red and blue, through the verb, from a random start."""
    words = ["random", "--protocol", "custom_cls", "--mini", "--trials", "1", "--train", str(tree)]
    words += ["-o", str(tmp_path / "out"), "MODEL.BACKBONE", "resnet18", "SEARCH.BASE_LR", "()"]
    assert main.main([*words, "SOLVER.MAX_ITER", "10", "SOLVER.IMS_PER_BATCH", "16"]) == 0
    record = results.load(tmp_path / "out" / "trial_1")
    assert record.metrics["cls/top1"] == 100
    facts = json.loads((tmp_path / "out" / "run.json").read_text())["data"]
    assert facts["train"] == {
        "path": str(tree),
        "format": "class folders",
        "split": "",
        "images": 16,
        "objects": 16,
    }
