"""Quantities in words."""


def byte_size(count: int) -> str:
    """A number of bytes: '1.5 GB', '20.0 kB', '12 bytes'."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def many(count: int, of: str) -> str:
    """A number of things: '1 image', '4,000 images', '2 processes'."""
    ending = "es" if of.endswith("s") else "s"
    return f"{count:,} {of}{ending * (count != 1)}"
