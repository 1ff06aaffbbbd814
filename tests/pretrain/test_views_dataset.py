"""Batches: the same whatever loads them; unreadable images; where images come from."""

import json

import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode
from PIL import Image
from torch.utils.data import DataLoader

from densessl.core.errors import InputError
from densessl.pretrain.views import (
    NORMALIZATION,
    RECIPES,
    View,
    ViewDataset,
    apply_photometric,
    build_source,
    collate,
)


def source(path, kind="folder", annotations=""):
    data = {"SOURCE": kind, "PATH": str(path), "ANNOTATIONS": str(annotations)}
    return build_source(CfgNode({"DATA": data}))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "images" / f"class_{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40 + number, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


def batches(folder, workers, keys, seed=0):
    dataset = ViewDataset(source(folder), RECIPES["byol"], 24, seed)
    return list(DataLoader(dataset, batch_sampler=keys, collate_fn=collate, num_workers=workers))


KEYS = [[(0, 1), (0, 5), (0, 7)], [(1, 5), (1, 0), (0, 5)]]


def test_loader_processes_change_nothing(folder):
    for ours, theirs in zip(batches(folder, 0, KEYS), batches(folder, 2, KEYS), strict=True):
        for name in ("index", "unreadable", "image", "local", "box", "flip", "size", "colour"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_a_sample_is_a_function_of_seed_epoch_and_image(folder):
    first, second = batches(folder, 0, KEYS)
    assert torch.equal(first.image[1], second.image[2])  # (0, 5) in both
    assert not torch.equal(first.image[1], second.image[0])  # (1, 5): another epoch
    assert not torch.equal(first.image[1, 0], first.image[1, 1])  # the two views differ
    other = batches(folder, 0, KEYS, seed=1)[0]
    assert not torch.equal(first.box, other.box)


def test_views_come_out_normalised_with_their_geometry(folder):
    batch = batches(folder, 0, KEYS)[0]
    batch.colour.zero_()
    batch.colour[:, :, :4] = -1  # no operation at all
    views = apply_photometric(batch, "cpu")
    assert len(views) == 2 and all(isinstance(view, View) for view in views)
    mean, std = (torch.tensor(NORMALIZATION[name]).view(3, 1, 1) for name in ("mean", "std"))
    for number, view in enumerate(views):
        expected = (batch.image[:, number].float() / 255 - mean) / std
        torch.testing.assert_close(view.image, expected)
        assert torch.equal(view.box, batch.box[:, number])
        assert torch.equal(view.flip, batch.flip[:, number])
        assert torch.equal(view.to("cpu").size, batch.size)


def test_unreadable_images_are_replaced_and_named_the_same_way_each_time(folder):
    broken = {
        "class_0/0.jpg": b"",
        "class_1/1.jpg": b"not an image",
        "class_2/2.jpg": (folder / "class_2/2.jpg").read_bytes()[:200],
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    images = source(folder)
    keys = [[(0, index) for index in range(len(images))]]
    first, again = batches(folder, 0, keys)[0], batches(folder, 2, keys)[0]
    assert {images.name(index) for index in first.unreadable.tolist()} == set(broken)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.index, torch.arange(12))


def test_a_folder_without_a_readable_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no")
    with pytest.raises(InputError, match=str(tmp_path)):
        ViewDataset(source(tmp_path), RECIPES["moco_v2"], 24, 0)[(0, 0)]


# -- sources --------------------------------------------------------------------------------------


def test_a_tree_is_read_in_the_order_of_names_and_links_do_not_loop(folder):
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    images = source(folder)
    names = [images.name(index) for index in range(len(images))]
    assert names == sorted(names) and len(names) == 12
    assert images.path(0) == str(folder / names[0])
    with pytest.raises(IndexError):
        images.name(12)


def test_list_files_hold_paths_and_maybe_labels(folder):
    listing = folder / "list.txt"
    Image.new("RGB", (8, 8)).save(folder / "with space.png")
    listing.write_text("# three\nclass_0/0.jpg 3\n\nclass_1/1.jpg\nwith space.png\n")
    images = source(listing, "list")
    names = [images.name(index) for index in range(3)]
    assert names == ["class_0/0.jpg", "class_1/1.jpg", "with space.png"]
    absolute = folder / "absolute.txt"
    absolute.write_text(f"{folder}/class_0/0.jpg\n")
    assert source(absolute, "list").path(0) == f"{folder}/class_0/0.jpg"


def test_coco_takes_the_images_that_its_json_names(folder):
    annotations = folder / "instances.json"
    annotations.write_text(json.dumps({"images": [{"file_name": "class_1/4.jpg"}]}))
    images = source(folder, "coco", annotations)
    assert [images.name(0), len(images)] == ["class_1/4.jpg", 1]


def test_the_fingerprint_is_of_the_names(folder, tmp_path):
    before = source(folder).fingerprint()
    moved = folder.rename(tmp_path / "moved")
    assert source(moved).fingerprint() == before
    (moved / "class_0" / "0.jpg").rename(moved / "class_0" / "x.jpg")
    assert source(moved).fingerprint() != before


@pytest.mark.parametrize(
    ("path", "kind", "annotations", "message"),
    [
        ("", "folder", "", "DATA.PATH is empty"),
        ("missing", "folder", "", "does not exist"),
        ("empty", "folder", "", "has no images"),
        ("list.txt", "folder", "", "DATA.SOURCE list"),
        ("empty", "list", "", "takes a text file"),
        ("list.txt", "list", "", "the first image of .* is 'missing.jpg'"),
        ("none.txt", "list", "", "has no images"),
        ("empty", "coco", "", "DATA.ANNOTATIONS is empty"),
        ("empty", "coco", "missing.json", "does not exist"),
        ("empty", "coco", "list.txt", "is not a COCO JSON"),
        ("empty", "coco", "coco.json", "there is no .*missing.jpg"),
        ("empty", "floder", "", "Did you mean 'folder'"),
    ],
)
def test_wrong_sources_are_named(path, kind, annotations, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("missing.jpg\n")
    (tmp_path / "none.txt").write_text("# nothing\n")
    (tmp_path / "coco.json").write_text('{"images": [{"file_name": "missing.jpg"}]}')
    with pytest.raises(InputError, match=message):
        source(path and tmp_path / path, kind, annotations and tmp_path / annotations)
