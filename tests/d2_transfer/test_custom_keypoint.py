"""custom_keypoint: any skeleton, from every format that has keypoints, as Detectron2 has it."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from densessl.core.errors import InputError
from densessl.d2_transfer import compat, own_data
from densessl.d2_transfer.datasets import coco_content, custom, custom_keypoints
from densessl.d2_transfer.protocols import PROTOCOLS
from densessl.d2_transfer.resolve import resolve

compat.setup()  # before any test imports Detectron2
SIZE = 96
POINTS = ("head", "wing_left", "wing_right")
COLOURS = ("white", "red", "blue")


def birds(folder, count: int = 8) -> list[dict]:
    """Images of one grey square with three dots each; of each its name, box and points."""
    rng = np.random.default_rng(5)
    (folder / "images").mkdir(parents=True)
    found = []
    for number in range(count):
        x, y = (int(v) for v in rng.integers(8, SIZE - 48, 2))
        image = Image.new("RGB", (SIZE, SIZE), (20, 60, 20))
        draw = ImageDraw.Draw(image)
        draw.rectangle((x, y, x + 39, y + 39), fill=(120, 120, 120))
        points = [(x + 20, y + 6), (x + 6, y + 30), (x + 34, y + 30)]
        for (px, py), colour in zip(points, COLOURS, strict=True):
            draw.ellipse((px - 4, py - 4, px + 4, py + 4), fill=colour)
        name = f"{chr(97 + number)}.png"
        image.save(folder / "images" / name)
        found.append({"name": name, "box": (x, y, x + 40, y + 40), "points": points})
    return found


def yolo(folder, truth, more: str = "flip_idx: [0, 2, 1]\n"):
    (folder / "labels").mkdir()
    for each in truth:
        x1, y1, x2, y2 = (v / SIZE for v in each["box"])
        words = [0, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        words += [v for x, y in each["points"] for v in (x / SIZE, y / SIZE, 2)]
        text = " ".join(map(str, words))
        (folder / "labels" / each["name"]).with_suffix(".txt").write_text(text)
    names = f"kpt_names:\n  0: {json.dumps(POINTS)}\n" if more else ""
    content = f"names: [bird]\nkpt_shape: [3, 3]\ntrain: images\nval: images\n{names}{more}"
    (folder / "data.yaml").write_text(content)
    return folder / "data.yaml"


def coco(folder, truth):
    images = [{"id": n, "file_name": each["name"]} for n, each in enumerate(truth)]
    objects = [
        {
            "id": n,
            "image_id": n,
            "category_id": 1,
            "bbox": [*each["box"][:2], 40, 40],
            "area": 1600,
            "keypoints": [v for x, y in each["points"] for v in (x, y, 2)],
        }
        for n, each in enumerate(truth)
    ]
    classes = [{"id": 1, "name": "bird", "keypoints": POINTS, "skeleton": [[1, 2], [1, 3]]}]
    text = json.dumps({"images": images, "annotations": objects, "categories": classes})
    (folder / "coco.json").write_text(text)
    return folder / "coco.json"


def labelme(folder, truth):
    for each in truth:
        x1, y1, x2, y2 = each["box"]
        box = {"shape_type": "rectangle", "label": "bird", "points": [[x1, y1], [x2, y2]]}
        points = [
            {"shape_type": "point", "label": label, "points": [point], "group_id": 1}
            for label, point in zip(POINTS, each["points"], strict=True)
        ]
        loose = {"shape_type": "point", "label": "speck", "points": [[1, 1]]}
        shapes = [*points, box | {"group_id": 1}, loose]
        content = {"shapes": shapes, "imagePath": each["name"]}
        (folder / "images" / each["name"]).with_suffix(".json").write_text(json.dumps(content))
    return folder / "images"


def cvat(folder, truth):
    size = f'width="{SIZE}" height="{SIZE}"'
    lines = []
    for n, each in enumerate(truth):
        sides = ("xtl", "ytl", "xbr", "ybr")
        box = " ".join(f'{k}="{v}"' for k, v in zip(sides, each["box"], strict=True))
        points = "".join(
            f'<points label="{label}" points="{x},{y}" group_id="1"/>'
            for label, (x, y) in zip(POINTS, each["points"], strict=True)
        )
        shapes = f'<box label="bird" {box} group_id="1"/>{points}'
        lines.append(f'<image id="{n}" name="{each["name"]}" {size}>{shapes}</image>')
    label = "<meta><label><name>bird</name></label></meta>"
    (folder / "annotations.xml").write_text(f"<annotations>{label}{''.join(lines)}</annotations>")
    return folder / "annotations.xml"


def given(folder, **flags):
    return own_data.of(PROTOCOLS["custom_keypoint"], {"output_dir": folder, **flags})


def plain(own: custom.Custom):
    return resolve("custom_keypoint", mini=True, cuda=False, gpus=1, custom=own, plain=True)


@pytest.mark.parametrize("write", [yolo, coco, labelme, cvat])
def test_every_format_gives_detectron2_the_same_keypoints(write, tmp_path):
    truth = birds(tmp_path)
    path = write(tmp_path, truth)
    own = given(tmp_path / "out", train=path, val=path).written()
    assert own.names == ("bird",) and own.keypoints.names == POINTS
    assert own.keypoints.flip_map == [("wing_left", "wing_right")]
    records = coco_content.records(own.train_json, own.train_images, {own.categories[0][0]: 0})
    for each, record in zip(truth, records, strict=True):
        (found,) = record["annotations"]
        assert np.allclose(found["bbox"], (*each["box"][:2], 40, 40))
        wanted = [v for x, y in each["points"] for v in (x + 0.5, y + 0.5, 2)]
        assert np.allclose(found["keypoints"], wanted)  # Detectron2's are positions, not pixels
    cfg = plain(own)
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 3 and cfg.INPUT.RANDOM_FLIP == "horizontal"
    assert cfg.TEST.KEYPOINT_OKS_SIGMAS == [custom_keypoints.SIGMA] * 3


def test_images_are_not_mirrored_where_nothing_says_which_point_is_which(tmp_path):
    path = yolo(tmp_path, birds(tmp_path), more="")
    own = given(tmp_path, train=path)
    assert own.keypoints.names == ("1", "2", "3") and not own.keypoints.mirrored
    assert plain(own).INPUT.RANDOM_FLIP == "none"
    assert "3 keypoints, which no flip can mirror" in own.describe()


def test_sigmas_may_be_given_one_a_keypoint(tmp_path):
    own = given(tmp_path, train=yolo(tmp_path, birds(tmp_path)))
    words = ["TEST.KEYPOINT_OKS_SIGMAS", "[0.1, 0.2, 0.3]"]
    cfg = resolve("custom_keypoint", cuda=False, gpus=1, custom=own, plain=True, overrides=words)
    assert cfg.TEST.KEYPOINT_OKS_SIGMAS == [0.1, 0.2, 0.3]
    with pytest.raises(InputError, match="SIGMAS has 2 numbers; allowed: 3, one a keypoint"):
        words[1] = "[0.1, 0.2]"
        resolve("custom_keypoint", cuda=False, gpus=1, custom=own, plain=True, overrides=words)


def test_the_metric_knows_the_sigmas_of_a_person():
    person = custom_keypoints.Keypoints(custom_keypoints.COCO_PERSON)
    assert person.sigmas == []
    assert custom_keypoints.mirrored(person.names)[:5] == (0, 2, 1, 4, 3)


@pytest.mark.parametrize(
    "names, expected",
    [
        (("nose", "L eye", "R eye"), (0, 2, 1)),
        (("Left-ear", "Right-ear"), (1, 0)),
        (("left_eye", "tail"), ()),  # there is no other eye
        (("tip", "blade"), ()),
        (("upper", "lower"), ()),  # the l of lower is no side
    ],
)
def test_sides_are_told_by_names(names, expected):
    assert custom_keypoints.mirrored(names) == expected


def fault(folder, **changes) -> str:
    """What is said of a COCO file whose second object has ``changes``."""
    path = coco(folder, birds(folder))
    content = json.loads(path.read_text())
    content["categories"] += changes.pop("categories", [])
    content["annotations"][1] |= changes
    for image in content["images"]:
        image |= {"width": SIZE, "height": SIZE}
    path.write_text(json.dumps(content))
    places = {"train_images": folder / "images", "val_images": folder / "images"}
    with pytest.raises(InputError) as caught:
        given(folder, train_json=path, val_json=path, **places)
    return str(caught.value)


DOG = [{"id": 2, "name": "dog", "keypoints": ["nose", "tail"], "skeleton": []}]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"keypoints": [1, 2, 2]}, "annotation 1 has 3 numbers as keypoints; allowed: 9 numbers"),
        ({"keypoints": None}, "annotation 1 has None as keypoints; allowed: 9 numbers"),
        ({"keypoints": [1, 2, 5] * 3}, "annotation 1 has keypoints of v 5, 5, 5; allowed: 0, 1, 2"),
        ({"category_id": 2, "categories": DOG}, "'bird' has 3 keypoints (head, wing_left, wing_"),
    ],
)
def test_faults_of_keypoints_are_named_before_anything_runs(changes, words, tmp_path):
    assert words in fault(tmp_path, **changes)


def test_annotations_without_any_keypoint_are_refused(tmp_path):
    path = yolo(tmp_path, birds(tmp_path))
    for file in (tmp_path / "labels").iterdir():
        file.write_text(" ".join(file.read_text().split()[:5]))
    path.write_text("names: [bird]\ntrain: images\nval: images\n")
    with pytest.raises(InputError, match="no object has keypoints, which custom_keypoint needs"):
        given(tmp_path, train=path)


@pytest.mark.slow
def test_keypoints_of_ones_own_are_learnt(learns, pretrained, few_scenes, tmp_path):
    data = str(yolo(tmp_path, birds(tmp_path)))
    own = given(tmp_path / "own", train=data, val=data).written()
    overrides = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    overrides += ["SOLVER.MAX_ITER", "60", "MODEL.FPN.OUT_CHANNELS", "32"]
    overrides += ["MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "[32, 32]"]  # of eight the most work
    where = ("custom_keypoint", "", pretrained(18), few_scenes, tmp_path / "run")
    flags = ["--train", data, "--val", data]
    learns(*where, overrides, "keypoints/AP50", 10, flags=flags, own=own)
