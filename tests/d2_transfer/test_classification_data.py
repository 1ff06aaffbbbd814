"""Labelled images: class folders, lists, small sets in torchvision's layouts, VOC's objects."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import classification
from densessl.d2_transfer.classification.data import check_data, hold_out, read, training_images
from densessl.d2_transfer.classification.images import draw_of_each_class


def picture(file, color=0, size=(20, 16)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (color % 256, 100, 50)).save(file)


NO_SEARCH = ["SEARCH.BASE_LR", "()", "SEARCH.HEAD_LR_FACTOR", "()"]


@pytest.fixture
def root(tmp_path):
    """imagenet/ with classes a, b, c: 5, 10 and 15 training images, 2 of each to validate."""
    for split, counts in (("train", (5, 10, 15)), ("val", (2, 2, 2))):
        for name, count in zip("abc", counts, strict=True):
            for n in range(count):
                picture(tmp_path / "imagenet" / split / name / f"{name}_{n}.JPEG", n)
    return tmp_path


def config(protocol="knn", variant=None, *overrides):
    return classification.resolve(protocol, variant, overrides=overrides, cuda=False)


def test_class_folders_are_read_sorted(root):
    (root / "imagenet/train/a/.hidden.jpg").touch()
    (root / "imagenet/train/a/notes.txt").touch()
    picture(root / "imagenet/train/b/below/deeper.png")
    train, val = read(config(), root)
    assert train.classes == val.classes == ("a", "b", "c")
    assert np.bincount(train.labels).tolist() == [5, 11, 15] and len(val) == 6
    assert train.name(0) == "a/a_0.JPEG" and "b/below/deeper.png" in map(train.name, range(31))
    assert train.open(3).size == (20, 16)


def test_a_folder_that_a_link_leads_back_to_counts_once(root):
    (root / "imagenet/train/b/again").symlink_to(root / "imagenet/train/b")
    (root / "imagenet/train/c/linked").symlink_to(root / "imagenet/train/a")
    picture(root / "imagenet/train/a/.cache/copy.png")
    train, _ = read(config(), root)
    assert np.bincount(train.labels).tolist() == [5, 10, 20]


def test_a_complete_set_passes_the_check_and_its_size_is_remarked(root, caplog):
    assert check_data(config(), root) == root
    assert "30 training and 6 test images, not 1281167 and 50000" in caplog.text


def test_classes_can_be_chosen_by_a_list(root):
    (root / "mine.txt").write_text("# two of them\nc/\na\n")
    train, val = read(config("knn", None, "DATASETS.CLASSES", str(root / "mine.txt")), root)
    assert train.classes == val.classes == ("a", "c")
    assert np.bincount(train.labels).tolist() == [5, 15]


def test_imagenet100_is_shipped(tmp_path):
    from densessl.d2_transfer.classification.folders import class_list

    names = class_list("imagenet100")
    for form in ("utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "classes.txt").write_text("\r\n".join(names), encoding=form)
        assert class_list(str(tmp_path / "classes.txt")) == names
    assert len(names) == 100 and all(name[0] == "n" and len(name) == 9 for name in names)


@pytest.mark.parametrize(
    "change, overrides, says",
    [
        (lambda r: None, ["DATASETS.FOLDER", "places"], "places/train is not there"),
        (lambda r: (r / "imagenet/val/d").mkdir(), [], "val/d has no images"),
        (lambda r: picture(r / "imagenet/val/d/x.jpg"), [], "the same .in one alone: d"),
        (
            lambda r: (r / "imagenet/train/a/a_0.JPEG").write_bytes(b"none"),
            [],
            "a_0.JPEG cannot be read",
        ),
        (lambda r: None, ["DATASETS.CLASSES", "imagenet10"], "mean 'imagenet100'"),
        (lambda r: None, ["DATASETS.CLASSES", "imagenet100"], "100 of its 100 classes have no"),
    ],
)
def test_what_is_missing_is_named_with_its_place(root, change, overrides, says):
    change(root)
    with pytest.raises(InputError, match=says) as caught:
        check_data(config("knn", None, *overrides), root)
    assert "expected:" in str(caught.value) and "--data" in str(caught.value)


def test_a_val_folder_without_class_folders_is_named(root):
    for file in (root / "imagenet/val").rglob("*.JPEG"):
        file.rename(root / "imagenet/val" / file.name)
    for name in "abc":
        (root / "imagenet/val" / name).rmdir()
    with pytest.raises(InputError, match="must hold a folder of images a class; 6 images lie in"):
        check_data(config(), root)


def labelled(root, *overrides, seed=0):
    cfg = config("semisup_10pct", None, *overrides).clone()
    cfg.defrost()
    cfg.SEED = seed
    return training_images(cfg, read(cfg, root)[0], root)


def test_a_list_of_labelled_images_in_either_form(root, caplog):
    (root / "imagenet/10percent.txt").write_text("b_3.JPEG\na/a_1.JPEG 0\nb_3.JPEG\nc_14.JPEG\n")
    found = labelled(root)
    assert [found.name(n) for n in range(3)] == ["a/a_1.JPEG", "b/b_3.JPEG", "c/c_14.JPEG"]
    assert found.labels.tolist() == [0, 1, 2]
    check_data(config("semisup_10pct", None, *NO_SEARCH), root)
    assert "10percent.txt" not in caplog.text
    (root / "imagenet/10percent.txt").write_text("c_0.JPEG\nc_1.JPEG\n")
    check_data(config("semisup_10pct"), root)
    assert "lists 2 of 30 training images, which is not the 10 %" in caplog.text
    assert "no image of 2 classes" in caplog.text


def test_the_check_looks_at_the_list_and_at_what_can_be_held_out(root):
    with pytest.raises(InputError, match="^DATASETS.LIST: there is no .*10percent.txt"):
        check_data(config("semisup_10pct"), root)
    (root / "imagenet/10percent.txt").write_text("a_0.JPEG\nb_1.JPEG\nc_2.JPEG\n")
    with pytest.raises(InputError, match="no class has labelled images to hold out"):
        check_data(config("semisup_10pct"), root)


def test_a_missing_or_wrong_list_is_refused(root):
    with pytest.raises(InputError, match="no .*10percent.txt.*google-research/simclr.*seeded"):
        labelled(root)
    (root / "imagenet/10percent.txt").write_text("a_1.JPEG\na_99.JPEG\n")
    with pytest.raises(InputError, match="1 of its 2 images are not in .*: a_99.JPEG"):
        labelled(root)
    picture(root / "imagenet/train/b/a_1.JPEG")
    (root / "imagenet/10percent.txt").write_text("a_1.JPEG\n")
    with pytest.raises(InputError, match="several images have the names a_1.JPEG"):
        labelled(root)


def test_seeded_labels_are_a_share_of_each_class(root):
    options = ["DATASETS.LIST", "seeded", "DATASETS.SHARE", "0.4"]
    found = labelled(root, *options)
    assert np.bincount(found.labels).tolist() == [2, 4, 6]
    names = [found.name(n) for n in range(12)]
    assert names == [labelled(root, *options).name(n) for n in range(12)] and len(set(names)) == 12
    other = labelled(root, *options, seed=1)
    assert names != [other.name(n) for n in range(12)]
    assert len(labelled(root, "DATASETS.LIST", "seeded", "DATASETS.SHARE", "0.001")) == 3


def test_held_out_images_are_apart_and_of_every_class(root):
    train, _ = read(config(), root)
    rest, held = hold_out(train, 0.2, seed=3)
    assert np.bincount(held.labels).tolist() == [1, 2, 3] and len(rest) == 24
    names = [{images.name(n) for n in range(len(images))} for images in (rest, held)]
    assert not names[0] & names[1]
    with pytest.raises(InputError, match="no class has labelled images to hold out"):
        hold_out(train.subset(draw_of_each_class(train, 0.01, (0,))), 0.2, seed=3)


def test_the_fingerprint_knows_names_labels_and_sizes_but_not_the_place(root):
    train, _ = read(config(), root)
    before, of_some = train.fingerprint(), train.subset(range(9)).fingerprint()
    moved = root.parent / f"{root.name}_moved"
    root.rename(moved)
    assert read(config(), moved)[0].fingerprint() == before != of_some
    picture(moved / "imagenet/train/a/a_0.JPEG", 0, size=(90, 90))
    assert read(config(), moved)[0].fingerprint() != before


# ---- small data sets, in the folders of torchvision's own classes ----


def lines(file, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{row}\n" for row in rows))


def same_as_torchvisions(ours, theirs):
    assert len(ours) == len(theirs)
    for n in range(len(ours)):
        image, label = theirs[n]
        assert label == ours.labels[n]
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(ours.open(n)))


def test_aircraft_is_read_as_torchvision_does(tmp_path):
    from torchvision.datasets import FGVCAircraft

    data = tmp_path / "fgvc-aircraft-2013b/data"
    lines(data / "variants.txt", "707-320", "A330/A340 X", "DC-3")
    lines(data / "images_variant_trainval.txt", "0000002 DC-3", "0000001 A330/A340 X")
    lines(data / "images_variant_test.txt", "0000003 707-320")
    for n in (1, 2, 3):
        picture(data / f"images/000000{n}.jpg", 40 * n)
    train, test = read(config("finetune_cls", "aircraft"), tmp_path)
    assert train.classes == ("707-320", "A330/A340 X", "DC-3")
    same_as_torchvisions(train, FGVCAircraft(tmp_path, "trainval"))
    same_as_torchvisions(test, FGVCAircraft(tmp_path, "test"))


def test_pets_are_read_as_torchvision_does(tmp_path):
    from torchvision.datasets import OxfordIIITPet

    folder = tmp_path / "oxford-iiit-pet"
    lines(folder / "annotations/trainval.txt", "Abyssinian_2 1 1 1", "great_dane_3 2 2 1")
    lines(folder / "annotations/test.txt", "great_dane_9 2 2 1")
    for n, name in enumerate(("Abyssinian_2", "great_dane_3", "great_dane_9")):
        picture(folder / f"images/{name}.jpg", 60 * n)
    train, test = read(config("finetune_cls", "pets"), tmp_path)
    assert train.classes == ("Abyssinian", "great_dane")
    same_as_torchvisions(train, OxfordIIITPet(tmp_path, "trainval"))
    same_as_torchvisions(test, OxfordIIITPet(tmp_path, "test"))


def test_cars_are_read_as_torchvision_does(tmp_path):
    from scipy.io import savemat
    from torchvision.datasets import StanfordCars

    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(["Acura TL", "Audi A5"], dtype=object)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": names})
    kind = [("fname", object), ("class", object)]
    rows = np.array([("00001.jpg", 2), ("00002.jpg", 1)], dtype=kind)
    savemat(folder / "devkit/cars_train_annos.mat", {"annotations": rows})
    savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": rows[:1]})
    for n, place in enumerate(("cars_train/00001", "cars_train/00002", "cars_test/00001")):
        picture(folder / f"{place}.jpg", 70 * n)
    train, test = read(config("finetune_cls", "cars"), tmp_path)
    assert train.classes == ("Acura TL", "Audi A5")
    same_as_torchvisions(train, StanfordCars(tmp_path, "train"))
    assert test.name(0) == "cars_test/00001.jpg" and test.labels.tolist() == [1]


def test_cub_has_the_official_split(tmp_path):
    folder = tmp_path / "CUB_200_2011"
    lines(folder / "classes.txt", "1 001.Albatross", "2 002.Auklet")
    lines(
        folder / "images.txt", "1 001.Albatross/x.jpg", "2 002.Auklet/y.jpg", "3 002.Auklet/z.jpg"
    )
    lines(folder / "image_class_labels.txt", "1 1", "2 2", "3 2")
    lines(folder / "train_test_split.txt", "1 1", "2 0", "3 1")
    for name in ("001.Albatross/x", "002.Auklet/y", "002.Auklet/z"):
        picture(folder / f"images/{name}.jpg")
    train, test = read(config("finetune_cls", "cub200"), tmp_path)
    assert [train.name(n) for n in (0, 1)] == ["001.Albatross/x.jpg", "002.Auklet/z.jpg"]
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [1])
    assert train.open(0).mode == "RGB"
    lines(folder / "image_class_labels.txt", "1 1", "2 2", "3 9")
    with pytest.raises(InputError, match="do not fit together.*label 9 of 2 classes"):
        read(config("finetune_cls", "cub200"), tmp_path)


def test_cifar_comes_through_torchvision_which_compares_md5_sums(tmp_path, monkeypatch):
    import hashlib
    import pickle

    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 3072), dtype=np.uint8)
    held = {
        "data_batch_1": {"data": pixels[:4], "labels": [0, 1, 1, 0]},
        "test_batch": {"data": pixels[4:], "labels": [1, 0]},
        "batches.meta": {"label_names": ["cat", "dog"]},
    }
    sums = {}
    for name, content in held.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    cfg = config("finetune_cls", "cifar10")
    train, test = read(cfg, tmp_path)
    assert train.classes == ("cat", "dog") and test.labels.tolist() == [1, 0]
    assert np.array_equal(
        np.asarray(train.open(2)), pixels[2].reshape(3, 32, 32).transpose(1, 2, 0)
    )
    assert train.subset([2, 0]).open(0).size == (32, 32)
    (folder / "test_batch").write_bytes(pickle.dumps("something else"))
    with pytest.raises(InputError, match="the Python version of CIFAR10 is not in"):
        read(cfg, tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cub200", "cars", "aircraft", "pets"])
def test_a_missing_small_set_names_its_folder(name, tmp_path):
    from densessl.d2_transfer.classification.small_sets import SETS

    with pytest.raises(InputError, match=f"{SETS[name].folder} is not there") as caught:
        check_data(config("finetune_cls", name), tmp_path)
    assert "as torchvision has them" in str(caught.value)


# ---- VOC's objects ----


def test_objects_are_cut_out_of_vocs_images(scenes):
    train, test = read(config("finetune_cls", "voc_objects"), scenes)
    listed = (scenes / "VOC2007/ImageSets/Main/test.txt").read_text().split()
    boxes, names = [], []
    for image in listed:
        for each in ElementTree.parse(scenes / f"VOC2007/Annotations/{image}.xml").iter("object"):
            x1, y1, x2, y2 = (int(value.text) for value in each.find("bndbox"))
            if each.find("difficult").text == "0" and max(x2 - x1, y2 - y1) + 1 >= 8:
                boxes.append((x1 - 1, y1 - 1, x2, y2))
                names.append(each.find("name").text)
    assert [test.classes[label] for label in test.labels] == names
    assert len(train) > len(test) > 6
    for n, (x1, y1, x2, y2) in enumerate(boxes):
        side, image = max(x2 - x1, y2 - y1), test.open(n)
        assert max(image.size) <= round(1.2 * side) + 1
        assert image.width >= min(x2, 64) - x1 - 1 and image.height >= min(y2, 64) - y1 - 1
    assert test.subset([3]).open(0).size == test.open(3).size


@pytest.mark.parametrize("text", [None, '<!DOCTYPE a [<!ENTITY b "9">]><a>&b;</a>'])
def test_damaged_annotations_are_named(tmp_path, text):
    lines(tmp_path / "VOC2007/ImageSets/Main/trainval.txt", "000001")
    if text:
        lines(tmp_path / "VOC2007/Annotations/000001.xml", text)
    with pytest.raises(InputError, match="000001.xml is not VOC's annotation"):
        check_data(config("finetune_cls", "voc_objects"), tmp_path)
