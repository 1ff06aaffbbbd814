"""What is wrong is said with its file, its place there, the value and what is allowed."""

import base64
import json
from pathlib import Path

import pytest
from PIL import Image

from densessl import annotations
from densessl.annotations import reading
from densessl.annotations.reading import BadFile, xml_of
from densessl.core.errors import InputError

WIDTH, HEIGHT = 40, 20


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    return tmp_path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        annotations.read(path).require_sound()
    return str(caught.value)


def voc(folder: Path, **changed: str) -> Path:
    said = {"name": "cell", "xmin": "2", "ymin": "3", "xmax": "9", "ymax": "8", "width": str(WIDTH)}
    said |= {"filename": "a.png", "more": ""} | changed
    (folder / "a.xml").write_text(
        "{more}<annotation><filename>{filename}</filename><size><width>{width}</width>"
        "<height>20</height></size><object><name>{name}</name><bndbox><xmin>{xmin}</xmin>"
        "<ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
        "</annotation>".format(**said)
    )
    return folder / "a.xml"


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"xmax": "wide"}, "a.xml: object 1: xmax is 'wide'; allowed: a number"),
        ({"xmax": "nan"}, "xmax is 'nan'"),
        ({"xmax": "1"}, "the box is 1, 2 to 1, 8, which has no area"),
        ({"xmin": "41", "xmax": "44"}, "outside its image of 40×20 pixels"),
        ({"name": " "}, "object 1: it has no <name>"),
        ({"width": "50"}, "the image is said to have 50×20 pixels, but"),
        ({"more": "<oops>"}, "it is not XML"),
    ],
)
def test_voc(changed, words, folder):
    assert words in refused(voc(folder, **changed))


def test_voc_finds_the_image_by_its_own_name_and_names_one_that_is_not_there(folder):
    voc(folder, filename="C:\\somewhere\\else.jpg")
    (each,) = annotations.read(folder).require_sound().objects()
    assert each.box == (1, 2, 9, 8)
    (folder / "a.png").rename(folder / "b.png")
    assert "the image 'C:\\somewhere\\else.jpg' is not below" in refused(folder)


def test_an_xml_file_with_entities_is_not_read(folder):
    """Ten levels of ten would be a text of ten billion letters."""
    lines = ['<!ENTITY a "aaaaaaaaaa">'] + [
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    ]
    said = f"<!DOCTYPE x [{''.join(lines)}]>"
    voc(folder, more=said, name="&j;")
    assert "it defines entities" in refused(folder)
    (folder / "b.xml").write_text(f'<!DOCTYPE x SYSTEM "file://{__file__}"><annotation/>')
    assert xml_of(folder / "b.xml").text is None  # nothing outside is read
    (folder / "c.xml").write_bytes("<annotation>ü</annotation>".encode("utf-16"))
    assert xml_of(folder / "c.xml").text == "ü"


def test_a_file_that_is_too_large_or_no_file_is_not_read(folder, monkeypatch):
    monkeypatch.setitem(reading.LARGEST, ".xml", 10)
    with pytest.raises(BadFile, match="bytes; allowed: 10"):
        xml_of(voc(folder))


def yolo(folder: Path, line: str, more: str = "") -> Path:
    (folder / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1{' 0.5 0.5 2' if more else ''}\n\n{line}\n")
    (folder / "data.yaml").write_text(f"names: [cell, spot]\n{more}")
    return folder


@pytest.mark.parametrize(
    "line, words",
    [
        ("2 0.5 0.5 0.1 0.1", "a.txt: line 3: the class is 2; allowed: 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", "the class is 0.5"),
        ("0 20 10 5 5", "line 3: a coordinate is 20; allowed: 0 to 1"),
        ("0 0.5 0.5 0.1", "it has 4 numbers; allowed: 5"),
        ("0 0.5 0.5 0.1 0.1 0.9", "it has 6 numbers"),
        ("0 0.5 0.5 0 0.1", "which has no area"),
        ("0 0.5 0.5 0.1 x", "a coordinate is 'x'"),
    ],
)
def test_yolo(line, words, folder):
    assert words in refused(yolo(folder, line))


def test_yolo_pose_has_as_many_numbers_as_its_shape_says(folder):
    said = refused(yolo(folder, "0 0.5 0.5 0.1 0.1", "kpt_shape: [1, 3]\n"))
    assert "it has 5 numbers; allowed with kpt_shape [1, 3]: 8" in said
    assert "allowed: 0, 1, 2" in refused(yolo(folder, "0 .5 .5 .1 .1 .5 .5 7", "kpt_shape: [1, 3]"))
    assert "kpt_shape is [1]" in refused(yolo(folder, "", "kpt_shape: [1]"))


def test_yolo_names_a_split_that_is_not_there(folder):
    (folder / "data.yaml").write_text("names: [a]\ntrain: imgs/train\n")
    assert "it names 'imgs/train', which is not there" in refused(folder)
    (folder / "data.yaml").write_text("names: {0: a, 2: b}\ntrain: .\n")
    assert "names have the keys 0, 2; allowed: 0 to N-1" in refused(folder / "data.yaml")


@pytest.mark.parametrize(
    "shape, words",
    [
        ({"shape_type": "cube"}, "shape_type is 'cube'; allowed: polygon, rectangle"),
        ({"points": [[1, 1], [5, 5]]}, "a polygon has 2 points"),
        ({"points": [[1, 1], [5, "x"], [1, 2]]}, "a coordinate is 'x'"),
        ({"points": 3}, "points are no list of x, y"),
        ({"label": None}, "shape 0: it has no label"),
        ({"shape_type": "mask", "points": [[1, 1], [3, 3]], "mask": "*"}, "no PNG in base64"),
        (
            {
                "shape_type": "mask",
                "points": [[1, 1], [3, 3]],
                "mask": base64.b64encode(b"GIF").decode(),
            },
            "no PNG in base64",
        ),
    ],
)
def test_labelme(shape, words, folder):
    right = {"label": "a", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    content = {"imagePath": "a.png", "imageHeight": 20, "imageWidth": 40, "shapes": [right | shape]}
    (folder / "a.json").write_text(json.dumps(content))
    assert words in refused(folder)


@pytest.mark.parametrize(
    "shape, words",
    [
        ('<box label="a" xtl="1" ytl="1" xbr="0" ybr="4"/>', "image 0 'a.png', box 0: the box is"),
        ('<box label="a" xtl="1" ytl="1" xbr="4"/>', "ybr is None; allowed: a number"),
        (
            '<box label="a" xtl="1" ytl="1" xbr="4" ybr="5" rotation="30"/>',
            "rotated; allowed: rotation 0",
        ),
        ('<polygon label="a" points="1,1;2,2"/>', "a polygon has 2 points"),
        ('<polygon label="a" points="1,1;2"/>', "its points are '1,1;2'"),
        ('<mask label="a" rle="1,2" left="0" top="0" width="2" height="2"/>', "rle sums to 3"),
        ('<mask label="a" rle="0,4" left="39" top="0" width="2" height="2"/>', "reaches beyond"),
        ('<blob label="a"/>', "it is a <blob>; allowed: box, polygon, mask, skeleton"),
    ],
)
def test_cvat(shape, words, folder):
    (folder / "annotations.xml").write_text(
        f'<annotations><image id="0" name="a.png" width="40" height="20">{shape}</image>'
        "</annotations>"
    )
    assert words in refused(folder)


def coco(folder: Path, **changed) -> Path:
    each = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]} | changed
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [each],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"image_id": 9}, "annotations 1, id 5: image_id is 9, which the file does not list"),
        ({"category_id": "1"}, "category_id is '1'"),
        ({"bbox": [1, 1, 4]}, "bbox is [1, 1, 4]; allowed: x, y, width, height"),
        ({"segmentation": [[1, 1, 5, 1, 5]]}, "it has a polygon of 5 numbers"),
        ({"segmentation": {"size": [40, 20], "counts": "a"}}, "RLE has size [40, 20]"),
        (
            {"segmentation": {"size": [20, 40], "counts": [1, 2]}},
            "an RLE whose counts sum to 3, but its image has 800",
        ),
        ({"segmentation": {"size": [20, 40], "counts": "b'00'"}}, "Python's print of bytes"),
        ({"segmentation": {"size": [20, 40], "counts": "000"}}, "whose counts sum to 0"),
        ({"keypoints": [1, 2]}, "keypoints are no list of x, y, v"),
    ],
)
def test_coco(changed, words, folder):
    assert words in refused(coco(folder, **changed))


def test_coco_names_images_that_are_not_there_or_there_twice(folder):
    coco(folder)
    for name in ("x", "y"):
        (folder / name).mkdir()
        (folder / "a.png").rename(folder / name / "a.png") if name == "x" else Image.new(
            "RGB", (WIDTH, HEIGHT)
        ).save(folder / name / "a.png")
    assert "the image 'a.png' is there 2 times" in refused(folder)
    (folder / "x" / "a.png").unlink()
    assert annotations.read(folder).require_sound().pictures[0].path == folder / "y" / "a.png"
    (folder / "y" / "a.png").write_bytes(b"no image")
    assert "cannot be read as an image" in refused(folder)


def test_coco_of_a_split_reads_the_images_of_it(folder):
    coco(folder)
    (folder / "a.json").rename(folder / "instances_train2017.json")
    for name in ("images_train", "images_val"):
        (folder / name).mkdir()
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name / "a.png")
    (folder / "a.png").unlink()
    (picture,) = annotations.read(folder).require_sound().pictures
    assert picture.path == folder / "images_train" / "a.png"


def test_label_images(folder):
    for name in ("images", "masks"):
        (folder / name).mkdir()
    (folder / "a.png").rename(folder / "images" / "a.png")
    mask = folder / "masks" / "a.png"
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(mask)
    assert "it is a picture in colour; allowed: one channel" in refused(folder)
    (folder / "labelmap.txt").write_text("background:0,0,0::\ncell:9,9,9::\n")
    assert "masks/a.png: it has pixels of the colour (1, 2, 3), which" in refused(folder)
    Image.new("L", (WIDTH, HEIGHT), 3).save(mask)
    assert "it has pixels of value 3" in refused(folder)
    Image.new("L", (WIDTH, 10), 1).save(mask)
    assert "it has 40×10 pixels; its image" in refused(folder)


def test_what_is_not_known_is_told_with_what_is(folder):
    said = refused(folder)
    assert "holds no annotations that are known; it has files .png" in said and "data.yaml" in said
    assert "is not there" in refused(folder / "absent")


def test_every_fault_is_found_not_the_first_alone(folder):
    (folder / "a.txt").write_text("7 0 0 1 1\n0 5 5 5 5\n0 0.5 0.5 0.5 0.5\n")
    (folder / "data.yaml").write_text("names: [cell]\n")
    data = annotations.read(folder)
    assert [each.place for each in data.faults] == ["line 1", "line 2"]
    assert len([*data.objects()]) == 1
