"""densessl data inspect and convert: what they print, write and refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import densessl
from densessl import annotations
from tests.decoding.images import tiff_of_channels

FORMATS = Path(__file__).parent / "formats"


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """Eight scenes with YOLO's labels; the working folder is empty."""
    shutil.copytree(FORMATS / "yolo", tmp_path / "yolo")
    shutil.copytree(FORMATS / "images", tmp_path / "yolo" / "images")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "yolo"


def test_inspect_counts_and_draws(scenes, capsys):
    assert densessl.main(["data", "inspect", str(scenes)]) == 0
    said = capsys.readouterr().out
    assert "format      YOLO: " in said and "images      8\n" in said
    assert "objects     24: 24 boxes alone" in said and "0 person: 3" in said
    assert "--protocol custom_det --train" in said
    sheet = np.asarray(Image.open("contact_sheet.png"))
    assert sheet.shape == (2 * 326 + 6, 4 * 326 + 6, 3)
    data = annotations.read(scenes)
    first = data.pictures[0].objects[0]
    scale = 320 / 96
    x, y = round(first.box[0] * scale) + 6, round(first.box[3] * scale) + 6 - 1
    assert (sheet[y, x + 20] == annotations.drawing.COLOURS[first.category]).all()


@pytest.mark.parametrize("channels, colours", [(2, (1, 1, 1)), (4, (1, 0, 0)), (5, (1, 0, 0))])
def test_inspect_draws_images_of_other_channels(channels, colours, scenes):
    for picture in (scenes / "images").iterdir():
        values = np.zeros((96, 96, channels), np.uint16)
        values[:, :, 0] = np.arange(96) * 10
        tiff_of_channels(picture.with_suffix(".tif"), values)
        picture.unlink()
    assert densessl.main(["data", "inspect", str(scenes)]) == 0
    right = np.asarray(Image.open("contact_sheet.png"))[6:326, 316:326].reshape(-1, 3)
    np.testing.assert_array_equal(np.median(right, axis=0) > 200, np.array(colours) == 1)


def test_inspect_names_every_fault_and_ends_with_2(scenes, capsys):
    with open(scenes / "labels" / "field_0000.txt", "a") as file:
        file.write("9 0.5 0.5 0.1 0.1\n0 0.5 0.5 0 0.1\n")
    assert densessl.main(["data", "inspect", str(scenes), "-o", "sheet.png"]) == 2
    said = capsys.readouterr().out
    assert "faults      2" in said and Path("sheet.png").is_file()
    assert "labels/field_0000.txt: line 2: the class is 9; allowed: 0 to 7" in said
    assert "labels/field_0000.txt: line 3: the box" in said


def test_convert_writes_what_is_read_again(scenes, capsys):
    command = ["data", "convert", str(scenes), "-o", "coco.json"]
    assert densessl.main(command) == 0
    assert "8 images" in capsys.readouterr().out
    content = json.loads(Path("coco.json").read_text())
    assert content["info"]["image_root"] == "../yolo/images"
    again, first = annotations.read("coco.json").require_sound(), annotations.read(scenes)
    assert [each.path.resolve() for each in again.pictures] == [
        each.path for each in first.pictures
    ]
    boxes = [[each.box for each in data.objects()] for data in (again, first)]
    np.testing.assert_allclose(*boxes)
    assert densessl.main(command) == 0  # the same once more
    Path("coco.json").write_text("mine")
    assert densessl.main(command) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert Path("coco.json").read_text() == "mine"


def test_convert_writes_a_file_a_split_or_the_one_that_is_named(scenes):
    config = scenes / "data.yaml"
    config.write_text(config.read_text() + "train: images\nval: images\n")
    assert densessl.main(["data", "convert", str(scenes), "-o", "a.json"]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["a_train.json", "a_val.json"]
    assert densessl.main(["data", "convert", str(config), "--split", "val", "-o", "b.json"]) == 0
    assert Path("b.json").read_text() == Path("a_val.json").read_text()


@pytest.mark.parametrize(
    "words, said",
    [
        (["inspct", "x"], "Did you mean 'inspect'?"),
        (["convert", "."], "-o is missing"),
        (
            ["convert", ".", "-o", "a.txt"],
            "-o is 'a.txt'; allowed: a file whose name ends in .json",
        ),
        (["inspect", "."], "holds no annotations that are known"),
        (["inspect", "absent"], "absent is not there"),
    ],
)
def test_what_is_asked_wrongly_is_one_message(words, said, scenes, capsys):
    assert densessl.main(["data", *words]) == 2
    assert said in capsys.readouterr().err
    assert not any(Path().iterdir())


def test_convert_of_annotations_with_faults_writes_nothing(scenes, capsys):
    (scenes / "labels" / "field_0001.txt").write_text("0 2 2 2 2\n")
    assert densessl.main(["data", "convert", str(scenes), "-o", "coco.json"]) == 2
    assert "field_0001.txt: line 1: a coordinate is 2" in capsys.readouterr().err
    assert not Path("coco.json").exists()
