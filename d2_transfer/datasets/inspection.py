"""What the checks of all layouts share: folders, lists, samples, and how problems are said."""

import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from densessl.core.files import read_text

Item = TypeVar("Item")
SAMPLE = 64  # files that a check opens, spread evenly over the list
NAMED = 3  # names that a message gives of many


@dataclass
class Inspection:
    """What a check found: ``problems``, a sentence each, and how many ``images`` there are."""

    problems: list[str] = field(default_factory=list)
    images: int = 0

    def folder(self, path: Path) -> set[str] | None:
        """The names in a folder, in one listing; None, and a problem, where it cannot be listed."""
        try:
            return set(os.listdir(path))
        except FileNotFoundError:
            self.problems.append(f"{path} is not there")
        except OSError as error:
            self.problems.append(f"{path} cannot be listed: {error.strerror}")
        return None

    def names(self, path: Path) -> list[str]:
        """The names that a text file lists; empty, and a problem, where there are none."""
        try:
            listed = read_text(path).split()
        except FileNotFoundError:
            self.problems.append(f"{path} is not there")
            return []
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{path} cannot be read: {error}")
            return []
        if not listed:
            self.problems.append(f"{path} lists no image")
        return listed

    def need(
        self, listed: Path, names: Sequence[str], there: Collection[str], folder: Path, ending: str
    ) -> None:
        """A problem unless ``folder``, which holds ``there``, has ``name + ending`` for all."""
        if absent := [name for name in names if name + ending not in there]:
            self.problems.append(f"{listed} lists {some(absent)}, not in {folder} as NAME{ending}")

    def look(self, items: Sequence[Item], problem: Callable[[Item], str | None]) -> None:
        """Ask ``problem`` about a sample of ``items``; the first problems, and how many there are.

        A problem of the machine (a disk that does not answer) is raised as it is.
        """
        sample = spread(items)
        found = [message for message in map(problem, sample) if message]
        self.problems += found[:NAMED]
        if len(found) > NAMED:
            rest = len(found) - NAMED
            self.problems.append(f"and the like in {rest} more of {len(sample)} files looked at")


class DatasetLayout(ABC):
    """Where a data set lies below the root, and whether it does.

    ``official``: the number of images of the real data set; another one is worth a remark, as
    subsets and the scenes are legitimate. ``drawn``: whether ``densessl scenes`` writes a stand-in.
    """

    official: int
    drawn = True

    @property
    @abstractmethod
    def expected(self) -> str:
        """What must lie below the root, in one line."""

    @abstractmethod
    def inspect(self, root: Path) -> Inspection:
        """Look at all names and at a sample of the labels; writes nothing."""

    def problems(self, root: Path) -> list[str]:
        """What is wrong with the data set below ``root``; empty when all is well."""
        return self.inspect(root).problems


def spread(items: Sequence[Item], count: int = SAMPLE) -> list[Item]:
    """At most ``count`` of ``items``, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]


def stems(names: Iterable[str], ending: str) -> list[str]:
    """Of the files with this ending their names without it, sorted; hidden ones left out."""
    found = (name for name in names if name.endswith(ending) and not name.startswith("."))
    return sorted(name.removesuffix(ending) for name in found)


def some(names: Sequence[object]) -> str:
    """``a, b, c and 9 more``."""
    rest = len(names) - NAMED
    shown = ", ".join(map(str, names[:NAMED]))
    return f"{shown} and {rest} more" if rest > 0 else shown


def prepare_command(name: str, root: Path) -> str:
    """What writes the files that a data set lacks."""
    return f"densessl prepare {name} --data {shlex.quote(str(root))}"
