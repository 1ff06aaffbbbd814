"""Images beyond a disk: fetched when they are read, and kept in a folder."""

import os
from collections.abc import Collection, Mapping
from typing import BinaryIO

import numpy as np

from densessl.core.remote import Address, cache_folder, fetched, is_remote

from ..config import Location
from .sources import ImageSource


class RemoteSource(ImageSource):
    """Images of which the names, or the ``root`` that they lie below, are addresses.

    ``names`` may be a mapping to numbers of their contents: the copy of an image that has another
    number is of no use.
    """

    def __init__(
        self,
        root: Location,
        names: Collection[str],
        where: str,
        left_out: Mapping[str, int] | None = None,
        cache: str = "",
    ):
        super().__init__(root, names, where, left_out)
        self.cache = cache_folder(cache, "DATA.CACHE")
        stamps = list(names.values()) if isinstance(names, Mapping) else [0] * len(names)
        self._stamps = np.array(stamps, dtype=np.int64)

    def path(self, index: int) -> str:
        """The file, or the address, of an image."""
        name = self.name(index)
        return name if is_remote(name) else os.path.join(self.root, name)

    def open(self, index: int) -> str | BinaryIO:
        path = self.path(index)
        if not is_remote(path):
            return super().open(index)
        return fetched(Address(path), self.cache, int(self._stamps[index]))
