"""Images whose channels lie in files of their own, as DATA.CHANNEL_FILES names them."""

import hashlib
import logging
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from densessl.core.errors import InputError
from densessl.core.names import one_line
from densessl.core.progress import track
from densessl.core.units import many
from densessl.decoding.channel_files import ChannelFiles, names_of

from .sources import ImageSource

NAMED = 5  # missing files that a message names

logger = logging.getLogger("densessl")


class ChannelFilesSource(ImageSource):
    """Images of several files of ``whole`` each; ``members [n, C]``: their numbers there, in the
    order of ``words``. An image is called what its first file is."""

    def __init__(self, whole: ImageSource, words: Sequence[str], members: np.ndarray):
        self.whole, self.words, self.members = whole, tuple(words), members
        self.root, self.where, self.left_out = whole.root, whole.where, whole.left_out

    def __len__(self) -> int:
        return len(self.members)

    def name(self, index: int) -> str:
        return self.whole.name(int(self.members[index, 0]))

    def path(self, index: int) -> str:
        return self.whole.path(int(self.members[index, 0]))

    def open(self, index: int) -> str | BinaryIO:
        """The first of its files."""
        return self.whole.open(int(self.members[index, 0]))

    def sample(self, index: int) -> ChannelFiles:
        return ChannelFiles(tuple(map(self.whole.open, self.members[index].tolist())))

    def fingerprint(self) -> str:
        """A SHA-256 of the files' own and of the words."""
        return hashlib.sha256(f"{self.whole.fingerprint()} {self.words}".encode()).hexdigest()


def with_channel_files(whole: ImageSource, words: Sequence[str]) -> ChannelFilesSource:
    """The images that the files of ``whole`` make up; files without any of the words are left out.

    Raises InputError where there is no image, and for one that lacks a file.
    """
    count = len(whole)
    numbers = {whole.name(index): index for index in range(count)}
    members: list[list[int]] = []
    missing: dict[str, str] = {}
    others = 0
    for name in track(numbers, "files of the images", late=True):
        names = names_of(name, words)
        if names is None:
            others += 1
            continue
        for each in names:
            if each not in numbers:
                missing.setdefault(each, name)
        if name == names[0] and not missing:
            members.append([numbers[each] for each in names])
    option = f"DATA.CHANNEL_FILES is '{','.join(words)}'"
    if missing:
        shown = [f"{one_line(each)} (beside {one_line(of)})" for each, of in missing.items()]
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise InputError(
            f"{option}, and these files are not in {whole.where}: {', '.join(shown[:NAMED])}{more}"
        )
    if not members:
        raise InputError(
            f"{option}, and no image in {whole.where} has one of these in its name or in that of "
            f"its folder (the first is {one_line(whole.path(0))})"
        )
    logger.info(
        "%s of %d files each (DATA.CHANNEL_FILES); other images, left out: %d",
        many(len(members), "image"),
        len(words),
        others,
    )
    return ChannelFilesSource(whole, words, np.array(members, dtype=np.int64))
