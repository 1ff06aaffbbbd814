"""The dense probes on data of one's own, eight drawn pictures, and on CamVid's two layouts."""

import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import datasets, dense_probes, results, trials
from densessl.d2_transfer.dense_probes.data import read
from densessl.d2_transfer.dense_probes.own import read_own

FOLDERS = ("train_images", "train_masks", "val_images", "val_masks")
SMALL = ["MODEL.BACKBONE", "resnet18", "INPUT.SIZE", "(48, 64)", "FEATURES.LEVELS", "('res2',)"]


def draw(number: int) -> tuple[Image.Image, Image.Image]:
    """A red and a blue disc on green noise, and their classes 1 and 2 on 0."""
    rng = np.random.default_rng(number)
    noise = rng.integers(0, 60, (36, 48, 3)) + np.array([20, 120, 20])
    image, mask = Image.fromarray(noise.astype(np.uint8)), Image.new("L", (48, 36), 0)
    for label, colour in ((1, (220, 40, 40)), (2, (40, 60, 230))):
        x, y = rng.integers(0, 30), rng.integers(0, 18)
        disc = [x, y, x + 16, y + 16]
        ImageDraw.Draw(image).ellipse(disc, fill=colour)
        ImageDraw.Draw(mask).ellipse(disc, fill=label)
    return image, mask


@pytest.fixture
def own(tmp_path):
    """Five pictures to learn from and three to evaluate; the four folders by their option."""
    places = {name: tmp_path / "own" / name for name in FOLDERS}
    for split, numbers in (("train", range(5)), ("val", range(5, 8))):
        for number in numbers:
            for kind, picture in zip(("images", "masks"), draw(number), strict=True):
                file = places[f"{split}_{kind}"] / "a" / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                picture.save(file)
    return places


def flags(places) -> list[str]:
    words = {"--" + name.replace("_", "-"): str(place) for name, place in places.items()}
    return [word for pair in words.items() for word in pair]


def test_own_pictures_go_the_whole_way(tmp_path, own, capsys):
    names = tmp_path / "classes.txt"
    names.write_text("grass\nred\nblue\n")
    words = ["transfer", "random", "--protocol", "custom_semseg", "--trials", "1", "--mini"]
    place = ["-o", str(tmp_path / "out"), *flags(own), "--classes", str(names)]
    assert densessl.main([*words, *place, *SMALL]) == 0
    assert "sem_seg/mIoU" in capsys.readouterr().out
    record = results.load(tmp_path / "out" / "trial_1")
    assert (record.protocol, record.variant) == ("custom_semseg", "linear")
    found = {name: record.metrics[f"sem_seg/IoU-{name}"] for name in ("grass", "red", "blue")}
    assert record.metrics["sem_seg/mIoU"] == pytest.approx(np.mean([*found.values()]))
    assert min(found.values()) > 60  # colours tell the discs apart
    draw(99)[1].save(own["train_masks"] / "a" / "0.png")
    assert densessl.main([*words, *place, *SMALL]) == 2
    assert "holds another run (DATASETS.CUSTOM" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["knn", "overcluster"])
def test_the_other_probes_take_own_pictures(tmp_path, own, variant):
    data = read_own(**own)
    options = [*SMALL, "CLUSTERS.COUNTS", "(8,)"]
    how = {"mini": True, "overrides": options, "cuda": False, "custom": data}
    cfg = dense_probes.resolve("custom_semseg", variant, **how)
    assert " ".join(data.sha256) == cfg.DATASETS.CUSTOM
    start = dense_probes.prepare("random", tmp_path, cfg)
    run = trials.Run(tmp_path, "custom_semseg", variant, True, start, data)
    records, failed = trials.run_trials(run, cfg, 1, 1, dense_probes.run_trial)
    assert not failed and records[0].metrics["sem_seg/mIoU"] > 25


@pytest.mark.parametrize(
    "change, says",
    [
        ({"val_masks": None}, "--val-masks is missing (or --train): custom_semseg"),
        ({"train_json": "x.json"}, "--train-json is 'x.json', but custom_semseg"),
        ({"ignore": "300"}, "--ignore is 300; allowed: 0 to 255"),
        ({"train_masks": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_places_are_said_before_any_work(tmp_path, own, capsys, change, says):
    given = {name: place for name, place in (own | change).items() if place is not None}
    words = ["transfer", "random", "--protocol", "custom_semseg", "-o", str(tmp_path / "out")]
    assert densessl.main([*words, *flags(given)]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_ignored_value_and_the_hash_follow_the_files(own):
    data = read_own(**own, ignore=2)
    assert len(data.classes) == 2
    cfg = dense_probes.resolve("custom_semseg", "linear", mini=True, cuda=False, custom=data)
    labels = read(cfg, data)[1].labels_of(0).numpy()
    whole = np.array(draw(5)[1])
    assert (labels == np.where(whole == 2, 255, whole)).all()
    before = data.sha256
    draw(99)[1].save(own["val_masks"] / "a" / "5.png")
    after = read_own(**own, ignore=2).sha256
    assert after[0] == before[0] and after[1] != before[1]


def test_the_config_is_printed_without_the_data(capsys):
    words = ["transfer", "--protocol", "custom_semseg", "--variant", "knn", "--print-config"]
    assert densessl.main(words) == 0
    assert "TASK: knn_semseg" in capsys.readouterr().out


# ---- CamVid ----


def camvid(root, segnet: bool) -> None:
    for split, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3,))):
        names = (split, f"{split}annot") if segnet else (f"{split}/images", f"{split}/labels")
        for number in numbers:
            image, mask = draw(number)
            labels = np.array(mask) + 5
            labels[0] = 11
            folders = [root / name for name in names]
            for folder, picture in zip(folders, (image, Image.fromarray(labels)), strict=True):
                folder.mkdir(parents=True, exist_ok=True)
                picture.save(folder / f"{number}.png")


@pytest.mark.parametrize("name, segnet", [("CamVid", True), ("camvid", False)])
def test_camvid_is_read_in_both_layouts(tmp_path, name, segnet):
    camvid(tmp_path / name, segnet)
    cfg = dense_probes.resolve("linear_semseg", "camvid", cuda=False)
    train, test = read(cfg, dense_probes.check_data(cfg, tmp_path))
    assert (len(train), len(test)) == (2, 1) and len(train.classes) == 11
    labels = test.labels_of(0).numpy()
    assert set(np.unique(labels)) == {5, 6, 7, 255} and (labels[0] == 255).all()
    datasets.register(tmp_path)
    from detectron2.data import MetadataCatalog

    facts = MetadataCatalog.get("camvid_sem_seg_val")
    assert facts.ignore_label == 11 and facts.stuff_classes[8] == "car"


def test_wrong_labels_of_camvid_are_named(tmp_path):
    camvid(tmp_path / "CamVid", True)
    wrong = tmp_path / "CamVid" / "testannot" / "3.png"
    Image.fromarray(np.full((36, 48), 12, np.uint8)).save(wrong)
    cfg = dense_probes.resolve("linear_semseg", "camvid", cuda=False)
    with pytest.raises(InputError, match=f"{wrong} has pixels of value 12"):
        dense_probes.check_data(cfg, tmp_path)
    shutil.rmtree(tmp_path / "CamVid" / "testannot")
    with pytest.raises(InputError, match="testannot is not there"):
        dense_probes.check_data(cfg, tmp_path)
