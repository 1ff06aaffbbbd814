"""Time of a crop from a frame of a video, at a random place, and from a JPEG of the same frame.

    python -m benchmarks.videos

Needs the extra ``video``. One process and one thread; what is counted is processor time. Each frame
is read by itself: decoding begins at the key frame before it. A region of a JPEG is read as
``DATA.TILE`` does.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

from densessl.decoding import Region, decode, videos
from densessl.decoding.frames import FrameFile, VideoFrame, starting

WIDTH, HEIGHT, RATE = 1920, 1080, 25
CROP = 224
GROUPS = (12, 250)  # frames from one key frame to the next


def scene(count: int) -> Iterator[Image.Image]:
    """A camera that moves over a picture with the grain of a sensor."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (100, 160, 3), dtype=np.uint8)
    whole = Image.fromarray(coarse).resize((2560, 1600), Image.Resampling.BICUBIC)
    pixels = np.asarray(whole).astype(np.int16) + rng.integers(-4, 5, (1600, 2560, 1))
    still = pixels.clip(0, 255).astype(np.uint8)
    for n in range(count):
        x, y = 2 * n % 640, n % 520
        yield Image.fromarray(np.ascontiguousarray(still[y : y + HEIGHT, x : x + WIDTH]))


def write(file: Path, count: int, group: int) -> None:
    """H.264 by x264's preset veryfast, with B-frames, at its default quality."""
    keys = f"keyint={group}:min-keyint={group}:scenecut=0"
    options = {"preset": "veryfast", "x264-params": keys}
    with av.open(str(file), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for image in scene(count):
            out.mux(stream.encode(av.VideoFrame.from_image(image)))
        out.mux(stream.encode(None))


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def row(name: str, size: float, found: list[float]) -> str:
    each = [1e3 * value for value in found]
    spread = f"{statistics.median(each):.0f} ({min(each):.0f}-{max(each):.0f})"
    return f"| {name} | {size:.1f} | {spread} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300, help="of each video")
    parser.add_argument("--samples", type=int, default=30, help="crops of each kind")
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, args.frames, args.samples).tolist()
    corners = rng.integers(0, (WIDTH - CROP, HEIGHT - CROP), (args.samples, 2)).tolist()
    boxes = [(x, y, x + CROP, y + CROP) for x, y in corners]
    print("| source | MB | crop, ms |\n|---|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for group in GROUPS:
            file = Path(folder, f"{group}.mp4")
            write(file, args.frames, group)
            index = videos.read_index(str(file))
            starts = index.starts(np.array(numbers))
            version, found = videos.version_of(str(file)), []
            for number, start, box in zip(numbers, starts, boxes, strict=True):
                keys = starting(index.keys, int(start))
                packet = int(index.packets[number])
                frame = VideoFrame(str(file), version, number, packet, keys, index.size, index.turn)
                region = Region(FrameFile(frame), box)
                found.append(seconds(lambda region=region: decode(region)))
            name = f"H.264, a key frame every {group} frames"
            print(row(name, file.stat().st_size / 1e6, found), flush=True)
        pictures = {n: Path(folder, f"{n}.jpg") for n in set(numbers)}
        for number, image in enumerate(scene(args.frames)):
            if number in pictures:
                image.save(pictures[number], quality=90)
        total = sum(file.stat().st_size for file in pictures.values())
        size = total / len(pictures) * args.frames / 1e6
        whole, parts = [], []
        for number, box in zip(numbers, boxes, strict=True):
            file = str(pictures[number])
            whole.append(seconds(lambda file=file, box=box: decode(file).image.crop(box)))
            parts.append(seconds(lambda file=file, box=box: decode(Region(file, box))))
        print(row("JPEG of each frame, decoded whole", size, whole))
        print(row("JPEG of each frame, the region alone", size, parts))


if __name__ == "__main__":
    main()
