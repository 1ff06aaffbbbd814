"""Videos as a source of images (DATA.FRAME_RATE): which frames, in which order, a run from them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError
from densessl.decoding import describe_left_out
from densessl.pretrain import audit, config
from densessl.pretrain.advise import look
from densessl.pretrain.main import main
from densessl.pretrain.views import build_source
from densessl.pretrain.views.dataset import build_dataset

PYAV = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import av"], capture_output=True).returncode,
    reason="PyAV is not installed",
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "densessl" / "videos"


@pytest.fixture
def mixed(tmp_path):
    """An image, a video of 40 frames at 30 a second, a damaged one, and one in a folder below."""
    from tests.decoding.films import film

    folder = tmp_path / "mixed"
    (folder / "c").mkdir(parents=True)
    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(folder / "a.jpg")
    film(folder / "b.mp4")
    (folder / "b2.MKV").write_bytes(b"no video")
    film(folder / "c" / "d.webm", "libvpx-vp9", 10, deadline="realtime", **{"cpu-used": "8"})
    (folder / "notes.txt").write_text("no image")
    return folder


def options(path, *words):
    return config.load("moco_v2", ["DATA.PATH", str(path), "VIEWS.SIZE", "32", *words])


TEN = ("DATA.FRAME_RATE", "10")


@PYAV
def test_a_video_counts_as_its_frames_where_it_lies_among_the_images(mixed, caplog):
    caplog.set_level("INFO", "densessl")
    source = build_source(options(mixed, *TEN))
    frames = [f"b.mp4#frame={n}" for n in range(0, 40, 3)]
    others = [f"c/d.webm#frame={n}" for n in range(0, 10, 3)]
    assert [source.name(n) for n in range(len(source))] == ["a.jpg", *frames, "b2.MKV", *others]
    assert source.path(2) == f"{mixed}/b.mp4#frame=3"
    assert source.left_out == {".txt": 1}
    assert "18 frames of 3 videos, at 10 a second (DATA.FRAME_RATE), and 1 image" in caplog.text
    assert f"{mixed}/b2.MKV: no video, or damaged" in caplog.text
    with pytest.raises(IndexError):
        source.name(20)


@PYAV
def test_a_sample_is_its_frame_and_a_damaged_video_one_that_fails(mixed):
    from tests.decoding.films import whole

    cfg = options(mixed, *TEN)
    dataset = build_dataset(cfg, build_source(cfg), None)
    expected = whole(mixed / "b.mp4")
    for n in (14, 1, 8):
        np.testing.assert_array_equal(dataset.values(n), expected[3 * (n - 1)])
    assert dataset.values(0).shape == (50, 70, 3)
    assert dataset[0, 15].unreadable == [15] and "no video" in dataset.reason(15)


@PYAV
def test_videos_by_themselves_in_a_list_and_in_tiles(mixed, tmp_path):
    file = mixed / "b.mp4"
    assert len(build_source(options(file, *TEN))) == 14
    assert len(build_source(options(f"{file}:{mixed}/c", *TEN))) == 18
    listed = tmp_path / "list.txt"
    listed.write_text("mixed/c/d.webm\nmixed/a.jpg 3\nmixed/b.mp4\n")
    source = build_source(options(listed, "DATA.SOURCE", "list", *TEN))
    assert source.name(0) == "mixed/c/d.webm#frame=0" and len(source) == 19
    cfg = options(file, "DATA.TILE", "48", *TEN)
    tiles = build_dataset(cfg, build_source(cfg), None)
    assert len(tiles) == 14 * 4
    from tests.decoding.films import whole

    np.testing.assert_array_equal(tiles.values(7), whole(file)[3][16:64, 48:96])
    with pytest.raises(InputError, match="mixed is named twice|lies in"):
        build_source(options(f"{file}:{mixed}", *TEN))


@PYAV
def test_the_fingerprint_is_of_the_frames_and_the_index_is_kept(mixed, cache):
    from tests.decoding.films import film

    before = build_source(options(mixed, *TEN)).fingerprint()
    kept = {file: file.stat().st_mtime_ns for file in cache.glob("*.npz")}
    assert len(kept) == 2
    assert build_source(options(mixed, *TEN, "DATA.WORKERS", "0")).fingerprint() == before
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert build_source(options(mixed, "DATA.FRAME_RATE", "5")).fingerprint() != before
    for file in kept:
        file.write_bytes(b"damaged")
    assert build_source(options(mixed, *TEN)).fingerprint() == before
    film(mixed / "b.mp4", count=39)
    assert build_source(options(mixed, *TEN)).fingerprint() != before


def test_without_the_option_videos_are_left_out_and_said(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg")
    (tmp_path / "b.mp4").write_bytes(b"a video")
    source = build_source(options(tmp_path))
    assert len(source) == 1 and source.left_out == {".mp4": 1}
    assert "videos: 1; DATA.FRAME_RATE 1 takes a frame a second" in describe_left_out(
        source.left_out
    )


@pytest.mark.parametrize(
    "path, words, message",
    [
        ("a.mp4", [], "a.mp4 is a video; DATA.FRAME_RATE says .* as in DATA.FRAME_RATE 1"),
        ("a.txt", TEN, "a.txt is a file; for a list file give DATA.SOURCE list"),
        (".", [*TEN, "DATA.SOURCE", "shards"], r"DATA.FRAME_RATE is 10; allowed with .*: 0 \("),
    ],
)
def test_what_does_not_go_with_videos(path, words, message, tmp_path):
    for name in ("a.mp4", "a.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=message):
        build_source(options(tmp_path / path, *words))


@pytest.mark.parametrize("words, message", [(["-1"], "0"), (["10", "DATA.CHANNELS", "4"], "0, as")])
def test_rates_that_make_no_sense_are_refused(words, message, tmp_path):
    with pytest.raises(InputError, match=f"DATA.FRAME_RATE is -?10?.*{message}"):
        config.check(options(tmp_path, "DATA.FRAME_RATE", *words))


WITHOUT = """
import sys
sys.modules["av"] = None  # as if it were not installed
from densessl.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_missing_package_is_named_with_the_extra(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a video")
    words = ["audit", str(tmp_path), "--frame-rate", "1"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert "--frame-rate: videos are read by PyAV" in done.stderr
    assert "pip install 'densessl[video]'" in done.stderr


@PYAV
def test_audit_and_advise_count_frames(mixed, tmp_path, capsys):
    file = tmp_path / "audit.json"
    words = [str(mixed), "--frame-rate", "10", "--workers", "1", "-o", str(file)]
    assert audit.main(words) == 0
    found = json.loads(file.read_text())
    assert (found["images"], found["readable"]) == (20, 19)
    assert found["videos"] == {"rate": 10.0, "videos": 3, "frames": 18}
    assert found["formats"] == {"video": 18, "JPEG": 1}
    sizes = [(mixed / name).stat().st_size for name in ("a.jpg", "b.mp4", "c/d.webm")]
    assert found["bytes"] == sum(sizes)
    assert [each["name"] for each in found["unreadable"]["files"]] == ["b2.MKV"]
    assert "18 frames are images (10 a second)" in capsys.readouterr().out
    images = look(build_source(options(mixed, *TEN)))
    assert (images.number, images.side) == (20, 64)


@PYAV
def test_show_draws_frames(mixed, tmp_path):
    from densessl.pretrain.show.main import _stem, images_of

    found = images_of([str(mixed / "b.mp4"), str(mixed / "c")], 2, 10.0)
    assert [each.path.name for each in found] == [
        "b.mp4#frame=0",
        "b.mp4#frame=3",
        "d.webm#frame=0",
        "d.webm#frame=3",
    ]
    assert _stem(found[1].path) == "b_3"
    with pytest.raises(InputError, match="b.mp4 is a video; --frame-rate says"):
        images_of([str(mixed / "b.mp4")], 2)


@PYAV
def test_a_run_from_frames_resumes_bit_for_bit(mixed, tmp_path):
    words = ["--config", "moco_v2_scenes", "DATA.PATH", str(mixed), *TEN]
    words += ["BACKBONE.NAME", "resnet18", "VIEWS.SIZE", "32", "SOLVER.BATCH_SIZE", "4"]
    words += ["DATA.MAX_UNREADABLE", "0.5", "MOCO.QUEUE", "8", "SOLVER.SCHEDULE", "constant"]

    def weights(folder, *more):
        assert main([*words, *more, "OUTPUT_DIR", str(tmp_path / folder)]) == 0
        return torch.load(tmp_path / folder / "backbone_final.pth", weights_only=True)

    two = ("SOLVER.MAX_STEPS", "2")
    whole = weights("whole", *two, "DATA.WORKERS", "2")
    assert whole["pretrain"]["images"] == 20
    weights("parts", "SOLVER.MAX_STEPS", "1", "DATA.WORKERS", "0")
    with pytest.raises(InputError, match="a run cannot change it, it counts its epochs in frames"):
        weights(
            "parts", *two, "DATA.FRAME_RATE", "5", "--change", "DATA.FRAME_RATE", "SOLVER.MAX_STEPS"
        )
    again = weights("parts", *two, "DATA.WORKERS", "0", "--change", "SOLVER.MAX_STEPS")
    for name, value in again["backbone"].items():
        assert torch.equal(value, whole["backbone"][name]), name
