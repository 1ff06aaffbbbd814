"""Which files are images, by their names."""

from collections import Counter
from collections.abc import Mapping

from PIL import features

NAMED = 5  # suffixes in a message

EIGHT_BITS = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif")  # Pillow gives no more
OTHERS = (".png", ".ppm", ".pgm", ".tif", ".tiff")


def _where_pillow_has(feature: str, *suffixes: str) -> tuple[str, ...]:
    return suffixes if features.check(feature) else ()


AVIF = _where_pillow_has("avif", ".avif")  # brought down to 8 bits while it is read
JPEG_2000 = _where_pillow_has("jpg_2000", ".jp2", ".j2k")
SUFFIXES = (*EIGHT_BITS[:2], ".png", *EIGHT_BITS[2:], *OTHERS[1:], *AVIF, *JPEG_2000)


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's that can be read here; hidden files are none."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def may_be_deep(name: str) -> bool:
    """Whether a file of this name can hold more than 8 bits a channel."""
    return not name.lower().endswith((*EIGHT_BITS, *AVIF))


def told_left_out(left_out: Mapping[str, int]) -> str:
    """'5 other files are left out: 4 .txt, 1 .mp4'; the most frequent suffixes by name."""
    total = sum(left_out.values())
    counted = Counter(left_out).most_common()
    shown = ", ".join(
        f"{count:,} {suffix or 'without suffix'}" for suffix, count in counted[:NAMED]
    )
    more = ", …" if len(counted) > NAMED else ""
    what = "other file is" if total == 1 else "other files are"
    return f"{total:,} {what} left out, by suffix: {shown}{more}"
