"""Frames of videos: each is that of a whole decode, wherever one begins; damage; the index."""

import gc
import os
from fractions import Fraction
from multiprocessing import get_context

import numpy as np
import pytest

av = pytest.importorskip("av")

from densessl.decoding import Region, UnreadableImage, decode, size_of, videos  # noqa: E402
from densessl.decoding.frames import FrameFile, VideoFrame, starting  # noqa: E402

from .films import HEIGHT, WIDTH, film, whole  # noqa: E402


def frames_of(file):
    """The index of a video, and its frames."""
    index = videos.read_index(str(file))
    version = videos.version_of(str(file))
    numbers = np.arange(len(index.packets))
    return index, [
        VideoFrame(
            str(file),
            version,
            n,
            int(packet),
            starting(index.keys, int(row)),
            index.size,
            index.turn,
        )
        for n, packet, row in zip(numbers, index.packets, index.starts(numbers), strict=True)
    ]


FILMS = {
    "one_gop.mp4": {"gop": 100},
    "b_frames.mp4": {"bf": "3", "b-pyramid": "normal"},
    "open_gop.mkv": {"gop": 10, "x264-params": "open-gop=1:bframes=3:scenecut=0"},
    "no_times.avi": {"bf": "2"},
    "divx.avi": {"codec": "mpeg4", "bf": "2"},
    "motion.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "ten_bits.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "hidden.webm": {"codec": "libvpx", "gop": 30, "lag-in-frames": "16", "auto-alt-ref": "1"},
    "vp9.webm": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"},
    "uneven.m4v": {"times": np.cumsum([1 + 7 * n % 5 for n in range(40)]).tolist()},
    "parts.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "renewed.mp4": {"x264-params": "intra-refresh=1:bframes=0"},
}


@pytest.mark.parametrize("name", FILMS)
def test_every_frame_is_that_of_a_whole_decode(name, tmp_path):
    file = film(tmp_path / name, **FILMS[name])
    expected = whole(file)
    index, frames = frames_of(file)
    assert len(frames) == len(expected) == 40 and index.size == (WIDTH, HEIGHT)
    assert not index.damage
    anywhere = np.random.default_rng(0).permutation(len(frames))
    for n in (*anywhere, *range(len(frames)), *range(0, len(frames), 7)):
        np.testing.assert_array_equal(videos.pixels(frames[n]), expected[n], str(n))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_video_is_upright(rotation, tmp_path):
    file = film(tmp_path / "phone.mp4", count=3, rotation=rotation)
    index, frames = frames_of(file)
    assert index.size == ((WIDTH, HEIGHT) if rotation == 180 else (HEIGHT, WIDTH))
    stored = whole(file)[2]
    np.testing.assert_array_equal(videos.pixels(frames[2]), np.rot90(stored, rotation // 90))


def test_a_rate_takes_the_first_frame_of_each_part_of_a_second(tmp_path):
    index = videos.read_index(str(film(tmp_path / "even.mp4")))
    assert index.at_rate(Fraction(10)).tolist() == list(range(0, 40, 3))
    assert index.at_rate(Fraction(1)).tolist() == [0, 30]
    assert index.at_rate(Fraction(1, 100)).tolist() == [0]
    assert index.at_rate(Fraction(1000)).tolist() == list(range(40))
    times = [0, 10, 20, 80, 90, 100, 400, 401]  # in 1/90 s: a second is 90
    index = videos.read_index(str(film(tmp_path / "uneven.mp4", count=8, times=times)))
    assert index.at_rate(Fraction(1)).tolist() == [0, 4, 6]


def test_a_frame_as_a_file_is_decoded_when_its_pixels_are_read(tmp_path, monkeypatch):
    file = film(tmp_path / "a.mp4")
    expected = whole(file)[17]
    frame = frames_of(file)[1][17]
    with monkeypatch.context() as patch:
        patch.setattr(videos, "pixels", None)  # which would be called
        assert size_of(FrameFile(frame)) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(np.asarray(decode(FrameFile(frame)).image), expected)
    part = decode(Region(FrameFile(frame), (10, 20, 40, 50))).image
    np.testing.assert_array_equal(np.asarray(part), expected[20:50, 10:40])
    stream = FrameFile(frame)
    assert stream.read().endswith(expected.tobytes()) and stream.read() == b""


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_of_a_video_that_was_cut_off_the_frames_that_are_there_are_read(name, tmp_path):
    muxer = {"movflags": "faststart"} if name.endswith("mp4") else {}
    file = film(tmp_path / name, muxer=muxer)
    expected = whole(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    index, frames = frames_of(file)
    assert 12 < len(frames) < 40
    assert index.damage or name == "a.mkv"  # which does not say how many there should be
    read = 0
    for frame in frames:
        try:
            found = videos.pixels(frame)
        except UnreadableImage:
            continue
        assert any(np.array_equal(found, each) for each in expected)
        read += 1
    assert read >= len(frames) - 4


def test_damage_costs_the_frames_up_to_the_next_key_frame(tmp_path):
    file = film(tmp_path / "a.mp4", gop=10, bf="2")
    expected = whole(file)
    with av.open(str(file)) as video:
        packets = list(video.demux(video=0))
    data = bytearray(file.read_bytes())
    place, size = packets[10].pos, packets[10].size  # a key frame
    data[place + 8 : place + size] = bytes(size - 8)
    file.write_bytes(data)
    unreadable = []
    for n, frame in enumerate(frames_of(file)[1]):
        try:
            np.testing.assert_array_equal(videos.pixels(frame), expected[n])
        except UnreadableImage as error:
            assert "damaged" in str(error)
            unreadable.append(n)
    assert unreadable == list(range(10, 20))


@pytest.mark.parametrize(
    "content, reason", [(b"", "empty|Invalid data"), (b"no video " * 99, "Invalid data")]
)
def test_what_is_no_video_is_unreadable(content, reason, tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        videos.read_index(str(file))


def test_sound_alone_is_unreadable(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    with pytest.raises(UnreadableImage, match="without a video"):
        videos.read_index(str(tmp_path / "a.mp4"))


def test_a_video_that_is_replaced_is_an_error_of_the_machine(tmp_path):
    file = film(tmp_path / "a.mp4", count=4)
    frames = frames_of(file)[1]
    videos.pixels(frames[0])
    videos._videos.clear()
    os.utime(file, ns=(1, 1))
    with pytest.raises(OSError, match="changed since the start"):
        videos.pixels(frames[1])


def test_processes_that_are_forked_read_by_themselves(tmp_path):
    """A file that was open before has one position for all of them."""
    file = film(tmp_path / "a.mp4")
    expected = whole(file)
    frames = frames_of(file)[1]
    videos.pixels(frames[3])
    with get_context("fork").Pool(3) as pool:
        for _ in range(3):
            found = pool.map(videos.pixels, frames, chunksize=1)
            for frame, own in zip(found, expected, strict=True):
                np.testing.assert_array_equal(frame, own)


def test_few_videos_are_open_at_a_time_and_no_frame_stays(tmp_path):
    frames = [frames_of(film(tmp_path / f"{n}.mp4", count=2))[1][1] for n in range(5)]
    gc.collect()
    gc.disable()  # what only it would free grows meanwhile
    try:
        for frame in frames * 2:
            videos.pixels(frame)
        alive = [each for each in gc.get_objects() if isinstance(each, av.VideoFrame)]
        assert len(alive) <= videos.OPEN  # an empty one in each decoder
    finally:
        gc.enable()
    here = f"{tmp_path}/"
    descriptors = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
    opened = [os.readlink(each) for each in descriptors if os.path.exists(each)]
    assert len([path for path in opened if path.startswith(here)]) <= videos.OPEN
