"""Class lists, several folders, and shards: the same images by number as from one folder."""

import gzip
import io
import json
import os
import pickle
import re
import subprocess
import tarfile
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode
from PIL import Image

from densessl.core.errors import InputError
from densessl.pretrain.views import RECIPES, ViewDataset, build_source
from densessl.pretrain.views.shard_index import index_paths, scan
from densessl.pretrain.views.shards import OPEN_SHARDS, expand
from densessl.pretrain.views.sources import class_folders


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def source(path, kind="folder", annotations="", classes=""):
    data = {"SOURCE": kind, "PATH": str(path), "ANNOTATIONS": str(annotations)}
    return build_source(CfgNode({"DATA": data | {"CLASSES": str(classes)}}))


def names(images):
    return [images.name(index) for index in range(len(images))]


def picture(seed, kind="JPEG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (40 + seed, 50, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def tree(tmp_path):
    """Nine images in three class folders."""
    for number in range(9):
        file = tmp_path / "train" / f"n0000000{number // 3}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    return tmp_path / "train"


def write_tar(file, members, **options):
    """A tar of (name, bytes) pairs."""
    with tarfile.open(file, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


@pytest.fixture
def shards(tree):
    """The images of ``tree`` in its order in two shards, each beside a label and its facts."""
    folder = tree.parent / "shards"
    folder.mkdir()
    images = names(source(tree))
    for number, part in enumerate((images[:5], images[5:])):
        members = []
        for name in part:
            members.append((name[:-4] + ".cls", b"7"))
            members.append((name, (tree / name).read_bytes()))
            members.append((name[:-4] + ".json", b"{}"))
        write_tar(folder / f"train-{number:06d}.tar", members)
    return folder


# ---- class lists ----


def test_imagenet100_is_a_hundred_wordnet_ids():
    ids = class_folders("imagenet100")
    assert len(ids) == len(set(ids)) == 100
    assert all(re.fullmatch(r"n\d{8}", each) for each in ids)
    assert ids[0] == "n02869837" and ids[-1] == "n02090622"  # bonnet … borzoi, as CMC has them


def test_only_the_named_class_folders_are_read(tree, tmp_path):
    (tree / "beside.jpg").write_bytes(picture(0))
    (tree / "n00000000" / "n00000001").mkdir()  # the first folder decides
    (tree / "n00000000" / "n00000001" / "a.jpg").write_bytes(picture(1))
    file = tmp_path / "classes.txt"
    file.write_text("# two of three\nn00000002\n\n  n00000000/\nn00000002\n")
    assert names(source(tree, classes=file)) == [
        *(f"n00000000/{number}.jpg" for number in range(3)),
        "n00000000/n00000001/a.jpg",
        *(f"n00000002/{number}.jpg" for number in range(6, 9)),
    ]


def test_finding_many_images_is_shown(tree, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("densessl.core.progress.PLAIN_INTERVAL", 0)
    caplog.set_level("INFO", logger="densessl")
    found = names(source(tree))
    said = [record.message for record in caplog.records]
    assert said == ["images found 0", "images found 3", "images found 6", "images found 9"]
    caplog.clear()
    (tree / "list.txt").write_text("".join(f"{name} 7\n" for name in found))
    assert names(source(tree / "list.txt", "list")) == found
    assert [record.message.split(",")[0] for record in caplog.records] == [
        f"images of the list {number}/9" for number in range(1, 10)
    ]


def test_missing_class_folders_are_counted_and_the_first_named(tree, tmp_path):
    (tree / "empty").mkdir()
    file = tmp_path / "classes.txt"
    file.write_text("n00000000\nempty\n" + "".join(f"m{number}\n" for number in range(8)))
    with pytest.raises(InputError, match=r"9 of its 10 .*: empty, m0, m1, m2, m3, …$"):
        source(tree, classes=file)


def test_class_folders_one_level_below_are_pointed_at(tree, tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("n00000001\n")
    with pytest.raises(InputError, match=rf"They are in {tree}: give that as DATA.PATH"):
        source(tree.parent, classes=file)


def test_an_unknown_class_list_names_the_shipped_one(tree):
    with pytest.raises(InputError, match=r"'imagenet10'.*Did you mean 'imagenet100'\?"):
        source(tree, classes="imagenet10")


def test_an_empty_class_list_is_refused(tree, tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("# nothing\n")
    with pytest.raises(InputError, match="names no folder"):
        source(tree, classes=file)


def test_classes_are_for_folders_only(shards):
    with pytest.raises(InputError, match="DATA.SOURCE is shards"):
        source(shards, "shards", classes="imagenet100")


# ---- several folders ----


def test_several_folders_follow_each_other(tree):
    a, b = tree / "n00000001", tree / "n00000000"
    images = source(f"{a}:{b}")
    assert [images.path(index) for index in range(6)] == [
        *(str(a / f"{number}.jpg") for number in (3, 4, 5)),
        *(str(b / f"{number}.jpg") for number in (0, 1, 2)),
    ]
    assert len(images) == 6 and images.open(5) == images.name(5) == str(b / "2.jpg")
    with pytest.raises(IndexError):
        images.path(6)
    assert images.fingerprint() != source(f"{b}:{a}").fingerprint()
    moved = tree.rename(tree.with_name("moved"))
    again = source(f"{moved / 'n00000001'}:{moved / 'n00000000'}")
    assert images.fingerprint() == again.fingerprint()


def test_a_folder_whose_name_has_a_colon_is_one_folder(tree, tmp_path):
    folder = tree.rename(tmp_path / "a:b")
    assert len(source(folder)) == 9 and source(folder).name(0) == "n00000000/0.jpg"


def test_classes_may_be_spread_over_several_folders(tree, tmp_path):
    other = tmp_path / "other" / "n00000009"
    other.mkdir(parents=True)
    (other / "x.jpg").write_bytes(picture(0))
    file = tmp_path / "classes.txt"
    file.write_text("n00000009\nn00000001\n")
    images = source(f"{tree}:{other.parent}", classes=file)
    assert len(images) == 4 and images.path(3) == str(other / "x.jpg")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{0}:{0}", "is named twice"),
        ("{0}/n00000000:{0}", "n00000000 lies in"),
        ("{0}:{0}/none", "none, one of the 2 of .* does not exist"),
    ],
)
def test_folders_that_overlap_or_are_missing_are_refused(path, message, tree):
    with pytest.raises(InputError, match=message):
        source(path.format(tree))


def test_coco_of_two_folders_and_two_jsons(tree):
    files = []
    for folder, keep in (("n00000000", ("2.jpg", "0.jpg")), ("n00000001", ("4.jpg",))):
        files.append(tree.parent / f"{folder}.json")
        files[-1].write_text(json.dumps({"images": [{"file_name": name} for name in keep]}))
    images = source(f"{tree}/n00000000:{tree}/n00000001", "coco", f"{files[0]}:{files[1]}")
    assert [images.path(index) for index in range(3)] == [
        str(tree / name) for name in ("n00000000/0.jpg", "n00000000/2.jpg", "n00000001/4.jpg")
    ]
    with pytest.raises(InputError, match="names 1 JSON files, but DATA.PATH 2 folders"):
        source(f"{tree}/n00000000:{tree}/n00000001", "coco", files[0])


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_lists_classes_and_jsons_may_be_in_any_form_of_unicode(tree, form):
    expected = [name for name in names(source(tree)) if name.startswith("n00000000")]
    assert names(source(tree, classes=write(tree.parent / "c", "n00000000\r\n", form))) == expected
    listed = write(tree / "list", "".join(f"{name} 0\r\n" for name in expected), form)
    assert names(source(listed, "list")) == expected
    content = {  # ids as people have them: none is read
        "images": [
            {"id": id, "file_name": name}
            for id, name in zip((2**60, "2", None), expected, strict=True)
        ]
    }
    written = write(tree.parent / "coco.json", json.dumps(content), form)
    assert names(source(tree, "coco", written)) == expected


def write(file, text, form):
    file.write_bytes(text.encode(form))
    return file


def test_the_fingerprint_of_a_folder_stays_what_it_was(tmp_path):
    for name in ("b.jpg", "a/c.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    golden = "a3ae5487cb8e0176e5bc00e0c2beb99179aa81115fef7544fe42c73d7c63c384"
    assert source(tmp_path).fingerprint() == golden


# ---- shards ----


def test_shards_are_the_folder_by_number(tree, shards):
    folder, tars = source(tree), source(shards, "shards")
    assert names(tars) == names(folder) and tars.fingerprint() == folder.fingerprint()
    for index in (8, 0, 5, 4, 0):
        with open(folder.open(index), "rb") as stream:
            assert tars.open(index).read() == stream.read()
    views = [ViewDataset(each, RECIPES["moco_v2"], 16, 0)[(3, 7)] for each in (folder, tars)]
    assert torch.equal(views[0].image, views[1].image)
    assert tars.path(8) == str(shards / "train-000001.tar" / "n00000002" / "8.jpg")
    with pytest.raises(IndexError):
        tars.open(9)


def test_loader_processes_read_the_same_from_shards(shards):
    dataset = ViewDataset(source(shards, "shards"), RECIPES["moco_v2"], 16, 0)
    dataset[(0, 0)]  # opens a shard before the fork
    keys = [(0, index) for index in range(9)]
    loader = torch.utils.data.DataLoader(
        dataset, sampler=keys, batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    for key, sample in zip(keys, loader, strict=True):
        assert torch.equal(sample.image, dataset[key].image)


def test_a_pickled_source_reads_on(shards):
    tars = source(shards, "shards")
    before = tars.open(3).read()
    assert pickle.loads(pickle.dumps(tars)).open(3).read() == before


def read_all(queue, tars):
    """Say how many descriptors reading every image leaves open, and what was read."""
    before = len(os.listdir("/proc/self/fd"))
    read = [tars.open(index).read() for index in range(len(tars))]
    queue.put((len(os.listdir("/proc/self/fd")) - before, read))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_a_process_keeps_a_bounded_number_of_shards_open(tmp_path):
    for number in range(OPEN_SHARDS + 20):
        write_tar(tmp_path / f"{number:03d}.tar", [("a.jpg", b"%d" % number)])
    context = get_context("fork")
    queue = context.Queue()
    tars = source(tmp_path, "shards")
    process = context.Process(target=read_all, args=(queue, tars))
    process.start()
    assert queue.get(timeout=60) == (OPEN_SHARDS, [b"%d" % n for n in range(OPEN_SHARDS + 20)])
    process.join()


def test_names_as_tar_and_webdataset_write_them(tmp_path):
    jpeg, png = picture(1), picture(2, "PNG")
    members = [
        ("./cls/000.jpg", jpeg),
        ("cls/000.cls", b"3"),
        ("cls/000.json", b"{}"),
        ("cls/001.PNG", png),
        ("cls/._001.PNG", b"Finder's"),
        (".hidden/2.png", png),
        ("x" * 150 + "/ünï.jpeg", jpeg),  # longer than a plain header holds
    ]
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        tars = source(write_tar(tmp_path / f"{form}.tar", members, format=form), "shards")
        assert names(tars) == ["cls/000.jpg", "cls/001.PNG", "x" * 150 + "/ünï.jpeg"]
        assert [tars.open(index).read() for index in range(3)] == [jpeg, png, jpeg]
    (tmp_path / "._1.tar").write_bytes(b"Finder's")
    assert len(names(source(tmp_path, "shards"))) == 3 * 3


def test_shards_by_the_documented_tar_command(tree):
    out = tree.parent / "out"
    out.mkdir()
    command = """cd {0} && find . -name '*.jpg' | LC_ALL=C sort | split -a 6 -d -l 4 - {1}/part-
        for part in {1}/part-*; do tar -cf "{1}/train-${{part##*-}}.tar" -T "$part"; done"""
    subprocess.run(["bash", "-ec", command.format(tree, out)], check=True)
    tars = source(out / "train-{000000..000002}.tar", "shards")
    assert tars.fingerprint() == source(tree).fingerprint() and len(tars) == 9


def test_a_hard_link_has_the_bytes_of_its_target(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(1))
    os.link(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.jpg", "b.jpg"):
            tar.add(tmp_path / name, name)
    tars = source(tmp_path / "x.tar", "shards")
    assert tars.open(1).read() == picture(1) and tars.name(1) == "b.jpg"


def test_a_symbolic_link_is_refused(tmp_path):
    (tmp_path / "a.jpg").symlink_to("elsewhere.jpg")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "a.jpg", "a.jpg")
    with pytest.raises(InputError, match=r"does not hold the bytes of a\.jpg.*tar -h"):
        source(tmp_path / "x.tar", "shards")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a-{008..011}.tar", ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]),
        ("a-{8..10}.tar", ["a-8.tar", "a-9.tar", "a-10.tar"]),
        ("{0..1}/{1..2}.tar", ["0/1.tar", "0/2.tar", "1/1.tar", "1/2.tar"]),
        ("plain.tar", ["plain.tar"]),
    ],
)
def test_patterns_are_as_in_a_shell(pattern, expected):
    assert expand(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train-{000000..000009}.tar", r"8 of the 10 shards .*train-000002\.tar.*, …"),
        ("train-{3..1}.tar", r"the range \{3\.\.1\} .* is empty"),
        ("train-{0..99999999}.tar", "more than 100000 shards"),
        ("none.tar", r"does not exist .*a folder of \.tar files"),
    ],
)
def test_patterns_that_name_no_shards_are_refused(pattern, message, shards):
    with pytest.raises(InputError, match=message):
        source(shards / pattern, "shards")


def cut_in_data(whole):
    return whole[: whole.rindex(b".jpg") + 1000]


def cut_at_a_member(whole):
    return whole[:512] + whole[512 : whole.rindex(b"ustar") - 257]


def cut_in_a_header(whole):
    return whole[: whole.rindex(b"ustar") + 20]


def damaged_header(whole):
    at = whole.rindex(b"ustar")
    return whole[: at - 100] + b"\xff" * 40 + whole[at - 60 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_in_data, "cut off or damaged: unexpected end of data"),
        (cut_at_a_member, "is cut off: it ends at byte"),
        (cut_in_a_header, "is cut off: it ends at byte"),
        (damaged_header, "is damaged: there is no header at byte"),
        (lambda whole: whole + whole, "goes on after its end marker"),
        (lambda whole: b"", r"is empty \(0 bytes\)"),
        (lambda whole: b"\0" * 10240, "has no images"),
        (lambda whole: b"not a tar " * 100, "is no tar file"),
        (gzip.compress, r"is compressed \(gzip\).*Unpack it"),
    ],
)
def test_shards_that_cannot_be_whole_are_named(damage, message, shards):
    shard = shards / "train-000001.tar"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(InputError, match=rf"train-000001\.tar.*{message}"):
        source(shards, "shards")


def test_a_shard_without_images_is_named(shards):
    write_tar(shards / "train-000002.tar", [("a.json", b"{}")])
    with pytest.raises(InputError, match=r"train-000002\.tar has no images"):
        source(shards, "shards")


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no \.tar file in"):
        source(tmp_path, "shards")
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.tar\.gz: shards must not be compressed"):
        source(tmp_path, "shards")


# ---- the kept index ----


def poison(place):
    """Turn the second name of a kept index: who reads it shows that by the name."""
    with np.load(place) as saved:
        kept = dict(saved)
    kept["names"] = kept["names"].copy()
    kept["names"][0] = ord("Z")
    np.savez(place, **kept)


def test_the_index_is_kept_and_made_again_for_another_shard(shards):
    shard = shards / "train-000000.tar"
    source(shards, "shards")
    beside = index_paths(shard)[0]
    assert beside == shards / "train-000000.tar.index.npz" and beside.exists()
    poison(beside)
    assert source(shards, "shards").name(0).startswith("Z")
    stat = shard.stat()
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert source(shards, "shards").name(0).startswith("n")
    write_tar(shard, [("new.jpg", picture(1))])
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))  # only its size tells
    assert source(shards, "shards").name(0) == "new.jpg"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 rubbish", pickle.dumps([1])])
def test_a_damaged_index_is_made_again(content, shards):
    expected = names(source(shards, "shards"))
    index_paths(shards / "train-000000.tar")[0].write_bytes(content)
    assert names(source(shards, "shards")) == expected


def test_an_index_that_reaches_beyond_its_shard_is_made_again(shards):
    expected = names(source(shards, "shards"))
    place = index_paths(shards / "train-000000.tar")[0]
    with np.load(place) as saved:
        kept = dict(saved)
    np.savez(place, **(kept | {"sizes": kept["sizes"] + 10**9}))
    tars = source(shards, "shards")
    assert names(tars) == expected and len(tars.open(0).read()) < 10**6


def test_an_index_goes_to_the_cache_folder_where_it_cannot_lie_beside(shards):
    beside, cached = index_paths(shards / "train-000000.tar")
    beside.mkdir()  # in the way
    expected = names(source(shards, "shards"))
    assert cached.is_file()
    poison(cached)
    assert names(source(shards, "shards"))[0].startswith("Z")
    cached.unlink()
    cached.mkdir()
    assert names(source(shards, "shards")) == expected  # kept nowhere


def test_a_shard_that_changes_under_a_run_is_an_error_of_the_machine(shards):
    dataset = ViewDataset(source(shards, "shards"), RECIPES["moco_v2"], 16, 0)
    write_tar(shards / "train-000000.tar", [("a.jpg", picture(1))])
    with pytest.raises(OSError, match="the shard has changed since the start"):
        dataset[(0, 0)]
    dataset[(0, 8)]  # of the other shard


def test_a_shard_that_is_cut_off_under_a_run_is_an_error_of_the_machine(shards):
    dataset = ViewDataset(source(shards, "shards"), RECIPES["moco_v2"], 16, 0)
    dataset[(0, 0)]  # it is open
    os.truncate(shards / "train-000000.tar", 600)
    with pytest.raises(OSError, match="the shard has become shorter"):
        dataset[(0, 4)]


def test_scan_tells_how_far_it_is(tmp_path):
    members = [(f"{number}.jpg", bytes(9 << 20)) for number in range(5)]
    told = []
    scan(write_tar(tmp_path / "a.tar", members), told.append)
    assert len(told) == 2 and told == sorted(told)
    assert 16 << 20 <= told[0] < told[1] <= (tmp_path / "a.tar").stat().st_size
