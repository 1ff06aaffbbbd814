"""A split by groups and subsets of labels: by the seed alone, nested, with every class."""

import shutil
from pathlib import Path

import pytest

from densessl.annotations import AnnotatedImage, Category, Dataset, Object, read, split
from densessl.core.errors import InputError

FORMATS = Path(__file__).parent / "formats"


def data_of(names: list[str], classes: int = 3) -> Dataset:
    """One object an image, of the classes in turn."""
    pictures = [
        AnnotatedImage(Path("/data") / name, (10, 10), [Object(n % classes, (0.0, 0.0, 5.0, 5.0))])
        for n, name in enumerate(names)
    ]
    categories = [Category(f"c{n}") for n in range(classes)]
    return Dataset("YOLO", Path("/data"), categories=categories, pictures=pictures)


def names_of(data: Dataset) -> list[str]:
    return [picture.path.name for picture in data.pictures]


VIDEOS = [f"video{v}_frame{n:04d}.jpg" for v in range(10) for n in range(30)]


@pytest.mark.parametrize(
    "name, group",
    [
        ("video3_frame0012.jpg", "video3"),
        ("slide7_x3_y12.png", "slide7"),
        ("DJI 0001 tile 4.png", "DJI"),
        ("cat_jpg.rf.3f2a9b.jpg", "cat"),
        ("clip_0003_png.rf.77aa.jpg", "clip"),
        ("12.jpg", "12"),
        ("dog.jpg", "dog"),
    ],
)
def test_a_group_is_the_name_without_its_last_numbers(name, group):
    assert split.prefix(Path("/a") / name) == f"/a/{group}"
    assert split.prefix(Path("/b") / name) != f"/a/{group}"


def test_frames_of_one_video_are_never_on_both_sides():
    train, val, how = split.split(data_of(VIDEOS), 20, seed=1)
    assert len(val.pictures) == 60 and len(train.pictures) == 240
    assert not {n.split("_")[0] for n in names_of(train)} & {n.split("_")[0] for n in names_of(val)}
    assert how == "60 of 300 images by seed 1, 10 groups of names that begin alike"


def test_the_seed_decides_and_nothing_else():
    drawn = [names_of(split.split(data_of(VIDEOS), 20, seed)[1]) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_names_that_all_begin_alike_make_no_group():
    train, val, how = split.split(data_of([f"IMG_{n:04d}.jpg" for n in range(50)]), 20, seed=0)
    assert len(val.pictures) == 10 and how.endswith("each image by itself")
    assert {each.category for each in val.objects()} == {0, 1, 2}
    assert not {*names_of(train)} & {*names_of(val)}


@pytest.mark.parametrize("name", ["video_{}_frame_{}.jpg", "scan-{}-tile-x{}.png"])
def test_names_that_begin_alike_are_told_apart_by_the_number_before_the_last(name):
    train, val, how = split.split(
        data_of([name.format(v, n) for v in range(5) for n in range(8)]), 20, 0
    )
    assert len(val.pictures) == 8 and "5 groups" in how
    sides = [{split.PARTS.split(each)[1] for each in names_of(data)} for data in (train, val)]
    assert not sides[0] & sides[1]


def test_a_list_says_what_belongs_together(tmp_path):
    data = data_of([f"IMG_{n:04d}.jpg" for n in range(50)])
    file = tmp_path / "groups.csv"
    file.write_text("".join(f"{name},patient{n // 10}\n" for n, name in enumerate(names_of(data))))
    _, val, how = split.split(data, 20, 0, file)
    assert len(val.pictures) == 10 and f"groups of {file}" in how
    assert len({int(name[4:8]) // 10 for name in names_of(val)}) == 1
    file.write_text("IMG_0000.jpg,a\nIMG_0001.jpg\n")
    with pytest.raises(InputError, match=r"line 2 is 'IMG_0001.jpg'; allowed: NAME,GROUP"):
        split.split(data, 20, 0, file)
    file.write_text("IMG_0000.jpg,a\n")
    with pytest.raises(InputError, match=r"does not list the image 'IMG_0001.jpg'"):
        split.split(data, 20, 0, file)


def test_what_cannot_be_parted_is_said():
    names = [f"a_{n}.jpg" for n in range(9)] + ["b_0.jpg"]
    _, val, _ = split.split(data_of(names, 1), 20, 0)
    assert names_of(val) == ["b_0.jpg"]
    with pytest.raises(InputError, match="name --val, or --groups FILE"):
        split.split(data_of(["a_0.jpg"]), 20, 0)


def test_labels_are_nested_and_hold_every_class():
    data = data_of([f"IMG_{n:04d}.jpg" for n in range(300)])
    sizes = {
        text: {*names_of(split.labelled(data, text, 3))} for text in ("1%", "10%", "60", "299")
    }
    assert [len(found) for found in sizes.values()] == [3, 30, 60, 299]
    assert sizes["1%"] < sizes["10%"] < sizes["60"] < sizes["299"]
    assert {each.category for each in split.labelled(data, "1%", 3).objects()} == {0, 1, 2}
    assert {*names_of(split.labelled(data, "10%", 4))} != sizes["10%"]


@pytest.mark.parametrize("text", ["0%", "0", "301", "101%", "-1", "few", "1.5", "%"])
def test_an_amount_that_is_none_is_refused(text):
    with pytest.raises(InputError, match=r"--labels is '.*'; allowed: .* from 1 to 300"):
        split.amount(text, 300)


def test_classes_of_two_sets_agree_by_their_names():
    train, val = data_of(["a.jpg", "b.jpg", "c.jpg"]), data_of(["d.jpg", "e.jpg"], 2)
    val.categories = [Category("c2"), Category("new")]
    split.agree(train, val)
    assert [each.name for each in train.categories] == ["c0", "c1", "c2", "new"]
    assert val.categories is train.categories
    assert [each.category for each in val.objects()] == [2, 3]


def test_a_split_of_a_data_set_that_was_read(tmp_path):
    shutil.copytree(FORMATS / "yolo", tmp_path / "yolo")
    shutil.copytree(FORMATS / "images", tmp_path / "yolo" / "images")
    train, val, how = split.split(read(tmp_path / "yolo"), 20, 0)
    assert len({name.split("_")[0] for name in names_of(val)}) == 1 and len(val.pictures) == 4
    assert how.endswith("2 groups of names that begin alike") and len(train.pictures) == 4
