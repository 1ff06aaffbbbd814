"""Small videos as PyAV writes them, with what each frame shows."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 96, 64
RATE = 30


def scene(count: int, width: int = WIDTH, height: int = HEIGHT) -> Iterator[np.ndarray]:
    """A texture that moves, so that no two frames are equal and each is coded by those before."""
    coarse = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(coarse).resize((width * 4, height * 4)))
    for n in range(count):
        yield np.ascontiguousarray(whole[n % height :][:height, 2 * n % width :][:, :width])


def film(
    file: Path,
    codec: str = "libx264",
    count: int = 40,
    gop: int = 12,
    times: Sequence[int] | None = None,
    rotation: int | None = None,
    pixels: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    muxer: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A video of ``count`` frames, a key frame every ``gop``. ``times``: of each, in 1/90 s;
    without them they come at an even rate."""
    with av.open(str(file), "w", options=muxer or {}) as out:
        stream = out.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height = size
        stream.pix_fmt, stream.codec_context.gop_size = pixels, gop
        if times:
            stream.codec_context.time_base = Fraction(1, 90)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, image in enumerate(scene(count, *size)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 90)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file


def whole(file: Path) -> list[np.ndarray]:
    """Every frame, by a decode from the first to the last."""
    with av.open(str(file)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
