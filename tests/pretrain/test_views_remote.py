"""Images beyond a disk: fsspec's own ``memory://``, and a real S3 server on this machine."""

import json
import os
import signal
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from fvcore.common.config import CfgNode

from densessl.cli import main
from densessl.core import remote
from densessl.core.errors import InputError
from densessl.core.remote import Address, Unreachable, fetched
from densessl.decoding import UnreadableImage
from densessl.pretrain.views import RECIPES, ViewDataset, build_source

from .test_views_sources import names, picture, write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "densessl" / "remote"


@pytest.fixture
def memory(monkeypatch):
    """fsspec's file system in memory, as one of those that DATA.PATH takes."""
    monkeypatch.setitem(remote.PACKAGES, "memory", "fsspec")
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    return MemoryFileSystem()


def source(path, kind="folder", **options):
    data = {"SOURCE": kind, "PATH": str(path), "ANNOTATIONS": "", "CLASSES": "", "CACHE": ""}
    return build_source(CfgNode({"DATA": data | options}))


@pytest.fixture
def tree(tmp_path):
    """A folder of seven images, hidden files, others; a list of them; two shards of them."""
    train = tmp_path / "data" / "train"
    for number in range(7):
        file = train / f"n{number // 3}" / f"{number} é.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    (train / "beside.png").write_bytes(picture(8, "PNG"))
    (train / "readme.txt").write_text("no image")
    (train / ".hidden").mkdir()
    (train / ".hidden" / "a.jpg").write_bytes(picture(9))
    (train.parent / "train2").mkdir()
    (train.parent / "train2" / "other.jpg").write_bytes(picture(10))
    lines = [f"train/{name}" for name in names(source(train))]
    listed = "".join(f"{line}\t3\n" for line in lines[::-1])
    (train.parent / "list.txt").write_text(listed)
    for number, part in enumerate((lines[:5], lines[5:])):
        members = [(line[6:], (train.parent / line).read_bytes()) for line in part]
        write_tar(train.parent / f"part-{number}.tar", members)
    return train.parent


def upload(fs, tree, bucket="bucket"):
    for file in sorted(tree.rglob("*")):
        if file.is_file():
            fs.pipe_file(f"{bucket}/{file.relative_to(tree)}", file.read_bytes())


def same(images, others):
    """Sources of the same images by number, and of the same bytes."""
    assert len(images) == len(others) and images.fingerprint() == others.fingerprint()
    for index in range(len(others)):
        assert content(images.open(index)) == content(others.open(index)), others.name(index)


def content(file):
    return Path(file).read_bytes() if isinstance(file, str) else file.read()


PLACES = {
    "folder": "train",
    "list": "list.txt",
    "shards": "",
    "pattern": "part-{0..1}.tar",
}


@pytest.mark.parametrize("kind", PLACES)
def test_the_images_are_those_of_the_disk_by_number(kind, memory, tree):
    upload(memory, tree)
    place, how = PLACES[kind], "shards" if kind == "pattern" else kind
    images = source(f"memory://bucket/{place}".rstrip("/"), how)
    on_disk = source(tree / place, how)
    same(images, on_disk)
    assert images.left_out == on_disk.left_out
    assert images.path(0).startswith("memory://bucket/")


def test_views_are_those_of_the_disk(memory, tree):
    upload(memory, tree)
    recipe = RECIPES["moco_v2"]
    ours = ViewDataset(source("memory://bucket/train"), recipe, 32, 0)
    theirs = ViewDataset(source(tree / "train"), recipe, 32, 0)
    for index in (0, 5):
        assert torch.equal(ours[1, index].image, theirs[1, index].image)


def test_classes_and_several_places(memory, tree, tmp_path):
    upload(memory, tree)
    classes = tmp_path / "classes.txt"
    classes.write_text("n0\nn2\n")
    some = source("memory://bucket/train", CLASSES=str(classes))
    assert names(some) == names(source(tree / "train", CLASSES=str(classes)))
    both = source(f"memory://bucket/train2:{tree / 'train'}:memory://bucket/train/n1")
    assert len(both) == 1 + 8 + 3
    assert [both.path(0), both.path(11)] == [
        "memory://bucket/train2/other.jpg",
        "memory://bucket/train/n1/5 é.jpg",
    ]
    with pytest.raises(InputError, match="lies in memory://bucket/train: its images would count"):
        source("memory://bucket/train:memory://bucket/train/n1")


def test_a_list_on_the_disk_may_name_addresses(memory, tree):
    upload(memory, tree)
    lines = ["memory://bucket/train/n0/0 é.jpg", "train/beside.png"]
    lines.append("memory://bucket/train2/other.jpg 5")
    file = tree / "mixed.txt"
    file.write_text("\n".join(lines))
    images = source(file, "list")
    assert images.path(1) == str(tree / "train" / "beside.png")
    paths = ("train/n0/0 é.jpg", "train/beside.png", "train2/other.jpg")
    for index, path in enumerate(paths):
        assert content(images.open(index)) == (tree / path).read_bytes()


def test_what_was_fetched_is_kept(memory, tree, cache):
    upload(memory, tree)
    images = source("memory://bucket/train")
    first = images.open(0)
    assert Path(first).parts[: len(cache.parts)] == cache.parts
    memory.rm("bucket/train", recursive=True)
    assert images.open(0) == first
    dataset = ViewDataset(images, RECIPES["moco_v2"], 32, 0)
    assert dataset.reason(1) == "No such file or directory"  # as on a disk


def test_a_changed_image_is_fetched_anew(memory, tree):
    upload(memory, tree)
    assert content(source("memory://bucket/train").open(0)) != picture(3)
    memory.pipe_file("bucket/train/beside.png", picture(3))
    assert content(source("memory://bucket/train").open(0)) == picture(3)


def test_a_changed_shard_is_an_error_of_the_machine(memory, tree):
    upload(memory, tree)
    images = source("memory://bucket", "shards")
    memory.pipe_file("bucket/part-0.tar", b"0" * 10240)
    with pytest.raises(OSError, match="has changed since the start"):
        images.open(0)


def test_a_disk_without_room_keeps_nothing(memory, tree, cache, monkeypatch):
    upload(memory, tree)
    monkeypatch.setattr(remote, "FREE", 1 << 60)
    monkeypatch.setattr(remote, "SHARE", 1.0)
    images = source("memory://bucket/train")
    assert images.open(0).read() == (tree / "train" / "beside.png").read_bytes()
    assert not cache.exists()


def write_half(address, folder):
    """A process that is stuck in the middle of writing a copy."""
    whole = remote.write_atomic

    def half(stream):
        stream.write(b"wh")
        stream.flush()
        time.sleep(600)

    remote.write_atomic = lambda path, _: whole(path, half)
    fetched(address, folder)


def test_a_killed_process_leaves_no_half_of_a_copy(memory, tmp_path):
    memory.pipe_file("bucket/a.jpg", b"whole")
    address = Address("memory://bucket/a.jpg")
    process = get_context("fork").Process(target=write_half, args=(address, tmp_path))
    process.start()
    while not list(tmp_path.rglob("*.partial")):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    copy = fetched(address, tmp_path)
    assert Path(copy).read_bytes() == b"whole"
    assert [file.name for file in Path(copy).parent.iterdir()] == [Path(copy).name]


def test_audit_and_advise_take_addresses(memory, tree, tmp_path, capsys):
    upload(memory, tree)
    found = {}
    for path in (str(tree / "train"), "memory://bucket/train"):
        file = tmp_path / "audit.json"
        words = [path, "--cache", str(tmp_path / "c"), "--workers", "1", "-o", str(file)]
        assert main(["audit", *words]) == 0
        found[path] = json.loads(file.read_text())
        assert found[path].pop("path") == path
    on_disk, beyond = found.values()
    assert on_disk == beyond
    assert len([copy for copy in (tmp_path / "c").rglob("*") if copy.is_file()]) == 8
    capsys.readouterr()
    words = ["memory://bucket/train", "--cache", str(tmp_path / "c"), "--gpus", "1", "--no-trial"]
    assert main(["advise", *words]) == 0
    said = capsys.readouterr().out
    assert f"DATA.PATH memory://bucket/train DATA.CACHE {tmp_path / 'c'} OUTPUT_DIR" in said


# ---- what cannot be had ----


@pytest.mark.parametrize(
    "path, message",
    [
        (
            "s4://bucket/train",
            r"unknown kind of address 's4://' in DATA.PATH. Did you mean 's3://'",
        ),
        ("s3://AKIA0:to/p+secret@bucket/train", "DATA.PATH has an address with a user or a passw"),
        ("gs://tops3cret@bucket/train", "DATA.PATH has an address with a user or a password"),
        ("memory://bucket/trian", "DATA.PATH: memory://bucket/trian does not exist: there is no"),
        ("memory://bucket/list.txt", "memory://bucket/list.txt is a file; for a list file give"),
        ("memory://nobucket/train", "DATA.PATH: memory://nobucket/train does not exist"),
        ("memory://bucket/empty", "has no images; 1 other file is left out, by suffix: 1 .txt"),
    ],
)
def test_addresses_that_name_no_images_are_refused(path, message, memory, tree):
    upload(memory, tree)
    memory.pipe_file("bucket/empty/a.txt", b"")
    with pytest.raises(InputError, match=message) as raised:
        source(path)
    assert "secret" not in str(raised.value) and "s3cret" not in str(raised.value)


def test_a_missing_package_is_named_before_any_work(monkeypatch, tmp_path, capfd):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    out = tmp_path / "run"
    words = ["pretrain", "--config", "moco_v2", "DATA.PATH", "s3://bucket/train", "OUTPUT_DIR"]
    assert main([*words, str(out)]) == 3
    assert main(["audit", "s3://bucket/train"]) == 3
    said = capfd.readouterr().err
    assert said.count("s3://bucket/train is read by the package s3fs, which cannot be") == 2
    assert said.count("pip install 'densessl[remote]'") == 2
    assert not out.exists()


class Flaky:
    """The first ``failures`` questions fail."""

    def __init__(self, monkeypatch, error, failures):
        self.failures, self.error = failures, error
        for name in ("info", "cat_file", "find"):
            monkeypatch.setattr(MemoryFileSystem, name, self.asked(getattr(MemoryFileSystem, name)))

    def asked(self, question):
        def answer(*words, **more):
            if self.failures:
                self.failures -= 1
                raise self.error
            return question(*words, **more)

        return answer


def test_a_failure_that_passes_is_tried_again(memory, monkeypatch):
    memory.pipe_file("bucket/a.jpg", b"whole")
    Flaky(monkeypatch, ConnectionResetError("reset by peer"), remote.ATTEMPTS - 1)
    assert Address("memory://bucket/a.jpg").read(2, 1) == b"ho"


def test_a_failure_that_stays_is_an_error_of_the_machine(memory, monkeypatch, tree, tmp_path):
    upload(memory, tree)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tops3cret+key")
    images = source("memory://bucket/train")
    error = OSError("no route for tops3cret+key to http://server/a?X-Amz-Signature=abc")
    flaky = Flaky(monkeypatch, error, 10**9)
    dataset = ViewDataset(images, RECIPES["moco_v2"], 32, 0)
    with pytest.raises(Unreachable, match=r"beside.png cannot be reached, in 3 attempts") as raised:
        dataset[0, 0]
    assert raised.value.exit_code == 3
    assert "no route for … to http://server/a?…)" in str(raised.value)
    with pytest.raises(InputError, match="DATA.PATH: memory://bucket/train cannot be reached"):
        source("memory://bucket/train")
    flaky.error = PermissionError("Forbidden")
    with pytest.raises(Unreachable, match=r"access to .*beside.png is refused \(PermissionError"):
        dataset[0, 0]
    assert 10**9 - flaky.failures == 3 + 3 + 1  # a refusal is not tried again


def test_a_wait_that_ends_is_not_tried_again(memory, monkeypatch):
    error = UnreadableImage("it could not be read within 120 s")
    flaky = Flaky(monkeypatch, error, 3)
    with pytest.raises(UnreadableImage):
        Address("memory://bucket/a.jpg").read()
    assert flaky.failures == 2


def test_a_cache_that_cannot_be_written_is_refused(memory, tree, tmp_path):
    upload(memory, tree)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"DATA.CACHE: fetched files cannot be kept in .*/file/c"):
        source("memory://bucket/train", CACHE=str(tmp_path / "file" / "c"))


# ---- a real server ----


@pytest.mark.slow
def test_a_real_s3_server(tree, cache, monkeypatch, tmp_path):
    """Needs moto[server] and s3fs."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "tops3cret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    fs = fsspec.filesystem("s3")
    fs.mkdir("bucket")
    upload(fs, tree)
    for kind, place in PLACES.items():
        how = "shards" if kind == "pattern" else kind
        images = source(f"s3://bucket/{place}".rstrip("/"), how)
        same(images, source(tree / place, how))
    recipe, disk = RECIPES["moco_v2"], source(tree / "train")
    dataset = ViewDataset(source("s3://bucket/train", CACHE=str(tmp_path / "c")), recipe, 32, 0)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, sampler=[(0, n) for n in range(8)], num_workers=2
    )
    on_disk = ViewDataset(disk, recipe, 32, 0)
    for number, sample in enumerate(loader):
        assert torch.equal(sample.image, on_disk[0, number].image)
    assert len([file for file in (tmp_path / "c").rglob("*") if file.is_file()]) == 8
    for path in ("s3://nobucket/train", "s3://bucket/nothing"):
        with pytest.raises(InputError, match=f"DATA.PATH: {path} does not exist"):
            source(path)
    server.stop()
    with pytest.raises(InputError, match="s3://bucket/train2 cannot be reached") as raised:
        source("s3://bucket/train2")
    assert "tops3cret" not in str(raised.value)
