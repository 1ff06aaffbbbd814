"""What a frozen backbone makes of all images, on disk: computed once, by all processes, in pieces.

A piece is a file an array, so a stopped run resumes with the next one, and any number of processes
may have computed them. Its folder's name is a hash of everything that decides the values.
"""

import hashlib
import json
import logging
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densessl.core import files, waiting
from densessl.core.distributed import any_rank, barrier, rank, world_size
from densessl.core.errors import EnvironmentLacks, InputError, StoppedEarly
from densessl.core.progress import Bar

GRACE = 60.0  # seconds that a piece may still take once a stop was asked for
SPARE = 200e6  # bytes that stay free

logger = logging.getLogger("densessl")


class Pieces:
    """Arrays of ``count`` images, ``size`` images a file, below ``cache``.

    ``facts`` is everything that decides the values, ``arrays`` their names; ``where`` names the
    images in messages, ``option`` the one that moves ``cache``. A subclass computes a piece.
    """

    def __init__(
        self,
        facts: dict[str, Any],
        arrays: tuple[str, ...],
        count: int,
        size: int,
        cache: Path,
        device: torch.device,
        where: str,
        option: str,
    ):
        self.facts, self.names, self.count, self.size = facts, arrays, count, size
        self.device, self.where, self.option = device, where, option
        text = json.dumps(self.facts, sort_keys=True)
        self.folder = cache / hashlib.sha256(text.encode()).hexdigest()[:24]

    def arrays_of(self, numbers: range) -> dict[str, Tensor]:
        """The arrays of these images, by name."""
        raise NotImplementedError

    def bytes_of(self, images: int) -> float:
        """What the files of so many images take."""
        raise NotImplementedError

    def compute(self, title: str) -> None:
        """Write the pieces that are missing, each process its share.

        Raises StoppedEarly between two pieces once any process was asked to stop, InputError for
        features that are not finite, EnvironmentLacks where the disk has no room for them.
        """
        if rank() == 0:
            files.write_json(self.folder / "facts.json", self.facts)
        barrier()
        pieces = self.firsts
        todo = [first for first in pieces if not all(map(Path.is_file, self._files(first)))]
        barrier()  # nobody writes before all have looked
        if rank() == 0:
            self._check_disk(len(todo))
            if held := len(pieces) - len(todo):
                logger.info("%s: %d of %d pieces are in %s", title, held, len(pieces), self.folder)
        rounds = -(-len(todo) // world_size())
        with Bar(title, rounds) as bar, waiting.wait(grace=GRACE):
            for number in range(rounds):
                share = todo[number * world_size() : (number + 1) * world_size()]
                if rank() < len(share):
                    self._compute_piece(share[rank()])
                bar.advance()
                if any_rank(waiting.asked()) and number + 1 < rounds:
                    raise StoppedEarly(
                        f"stopped after {number + 1} of {rounds} pieces of features, saved; the "
                        "same command resumes"
                    )
        barrier()

    @property
    def firsts(self) -> range:
        """The number of each piece's first image."""
        return range(0, self.count, self.size)

    def images_of(self, first: int) -> range:
        """The numbers of a piece's images."""
        return range(first, min(first + self.size, self.count))

    def read(self, name: str, first: int) -> Tensor:
        """An array of the piece that begins with image ``first``; InputError for damage."""
        file = self._files(first)[self.names.index(name)]
        try:
            with open(file, "rb") as stream:
                found = np.load(stream)
                if stream.read() not in (_checksum(found), b""):  # older files have none
                    raise ValueError
            return torch.from_numpy(found)
        except (ValueError, EOFError, TypeError):  # what numpy and torch say of damaged files
            raise InputError(
                f"{file} is damaged; delete it, and the same command computes its features anew"
            ) from None

    def pieces(self, name: str) -> Iterator[Tensor]:
        """An array's pieces, in order, read as they are needed."""
        for first in self.firsts:
            yield self.read(name, first)

    def _check_disk(self, pieces: int) -> None:
        needed = self.bytes_of(min(pieces * self.size, self.count))
        free = shutil.disk_usage(self.folder).free
        if free < needed + SPARE:
            raise EnvironmentLacks(
                f"{self.folder} is on a disk with {free / 1e9:.1f} GB free; these features take "
                f"{needed / 1e9:.1f} GB: free some, or name a folder elsewhere with {self.option}"
            )

    def _files(self, first: int) -> list[Path]:
        return [self.folder / f"{name}_{first:09d}.npy" for name in self.names]

    def _compute_piece(self, first: int) -> None:
        numbers = self.images_of(first)
        found = self.arrays_of(numbers)
        for name, file in zip(self.names, self._files(first), strict=True):
            if not found[name].isfinite().all():
                at = "" if name == "features" else f" at {name}"
                raise InputError(
                    f"the features{at} of images {first} to {numbers[-1]} of "
                    f"{self.where} are not finite: the weights cannot be right"
                )
            held = found[name].numpy()
            with files.atomic(file) as stream:
                np.save(stream, held)
                stream.write(_checksum(held))


def _checksum(array: np.ndarray) -> bytes:
    """What follows an array in its file: the CRC-32 of its type, shape and values."""
    about = zlib.crc32(f"{array.dtype.str} {array.shape}".encode())
    return zlib.crc32(np.ascontiguousarray(array).data, about).to_bytes(4, "big")
