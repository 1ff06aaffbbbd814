"""Windows that slide over an image: where they lie, as TEST.SLIDING_WINDOW says."""

from collections.abc import Collection

from densessl.core.errors import InputError

KEY = "TEST.SLIDING_WINDOW"
ENABLED = f"{KEY}.ENABLED"


def of(cfg) -> tuple[int, int] | None:
    """Side and stride of the windows, in pixels; None for whole images. Raises InputError where
    pixels would lie in no window."""
    window = cfg.TEST.SLIDING_WINDOW
    if not window.ENABLED:
        return None
    if not 1 <= window.STRIDE <= window.SIZE:
        raise InputError(
            f"{KEY}.STRIDE is {window.STRIDE} and SIZE {window.SIZE}; allowed: a stride of 1 up to "
            "the size, or pixels lie in no window"
        )
    return window.SIZE, window.STRIDE


def check_used(cfg, named: Collection[str]) -> None:
    """InputError for a size or stride among the options that a user ``named``, without windows."""
    node = cfg.TEST.SLIDING_WINDOW
    for name in ("SIZE", "STRIDE"):
        if f"{KEY}.{name}" in named and not node.ENABLED:
            raise InputError(
                f"{KEY}.{name} is set to {node[name]}, but {ENABLED} is False: set it True to "
                f"evaluate by windows, or leave {name} out"
            )


def spans(length: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Start and end of the windows along an edge of ``length`` pixels.

    Windows of ``size`` (or of the edge, where that is shorter) start every ``stride`` pixels; the
    last is moved back to end with the edge (mmsegmentation, EncoderDecoder.slide_inference).
    """
    count = max(length - size + stride - 1, 0) // stride + 1
    ends = [min(i * stride + size, length) for i in range(count)]
    return [(max(end - size, 0), end) for end in ends]
