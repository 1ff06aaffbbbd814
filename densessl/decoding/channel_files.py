"""Images whose channels lie in files of their own: ``tile_B02.tif``, ``tile_B03.tif``, …

A list of words, one a channel, says which files are one image: where the name of one, or that of
its folder, has ``_B02`` in it, those of the others have ``_B03`` and so on in its place.
"""

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from .files import File
from .orientation import Box
from .regions import Region


class ChannelFiles(NamedTuple):
    """The files of one image, one a channel."""

    files: tuple[File | Region, ...]

    def region(self, box: Box) -> "ChannelFiles":
        """The pixels ``box`` of each."""
        return ChannelFiles(
            tuple(each if isinstance(each, Region) else Region(each, box) for each in self.files)
        )


def names_of(name: str, words: Sequence[str]) -> tuple[str, ...] | None:
    """The files of the image that the file ``name`` is of, in the order of ``words``; None where it
    has none of them.

    A word counts in the file's own name, else in that of its folder, and is replaced in both. It is
    no part of a longer word or number: ``_B1`` is not in ``tile_B11``, nor ``red`` in ``reduced``.
    """
    above, file = os.path.split(name)
    above, folder = os.path.split(above)
    for place in (file, folder):
        for word in words:
            pattern = _pattern(word)
            if pattern.search(place):
                return tuple(
                    os.path.join(
                        above, *(_replaced(pattern, part, each) for part in (folder, file))
                    )
                    for each in words
                )
    return None


def image_of(path: str | os.PathLike, words: Sequence[str]) -> str | os.PathLike | ChannelFiles:
    """What to decode: the files of the image that ``path`` is of, or ``path`` itself where it has
    none of the ``words``."""
    names = names_of(os.fspath(path), words) if words else None
    return ChannelFiles(names) if names else path


def _replaced(pattern: re.Pattern[str], name: str, word: str) -> str:
    return pattern.sub(lambda found: word, name)


@lru_cache(maxsize=256)
def _pattern(word: str) -> re.Pattern[str]:
    """The word where what is before and after it does not continue its letters or its number."""
    before, after = (_kind(word[place]) for place in (0, -1))
    return re.compile(
        (f"(?<!{before})" if before else "") + re.escape(word) + (f"(?!{after})" if after else "")
    )


def _kind(letter: str) -> str:
    if letter.isdigit():
        return r"\d"
    return "[A-Za-z]" if letter.isalpha() else ""
