"""Argument parsing with one clear message and exit code 2, naming the nearest known flag."""

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import NoReturn

from .errors import InputError, nearest
from .form import LARGEST
from .home import expand
from .names import brief

PAIRS = "KEY VALUE"  # how a verb's options of the config are called in its help
WIDTH = 79  # of a line of help


def whole_number(text: str) -> int:
    """``int``, for all that takes 64 bits: what counts, or is a seed, fits into them."""
    number = int(text)
    if abs(number) > LARGEST:
        raise argparse.ArgumentTypeError(f"{brief(text)} is beyond {LARGEST}")
    return number


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description's lines, and names a default where there is one to name."""

    def _get_help_string(self, action):
        if action.default is False or action.default is None:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """``argparse.ArgumentParser`` that raises InputError instead of printing its usage.

    ``keys`` gives the names that ``KEY VALUE`` may have, for a person who writes ``--KEY``.
    ``~`` in any word is the home folder where a shell would say so: also in ``--data=~/sets``.
    """

    def __init__(self, *args, keys: Callable[[], Iterable[str]] | None = None, **kwargs):
        self.keys = keys
        kwargs.setdefault("formatter_class", Formatter)
        if description := kwargs.get("description"):  # often a docstring
            description = inspect.cleandoc(description).replace("``", "'")
            kwargs["description"] = (
                description if "\n" in description else textwrap.fill(description, WIDTH)
            )
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self.register("type", int, whole_number)
        self.words: list[str] = []  # that are parsed

    def parse_known_args(self, args=None, namespace=None):
        words = [expand(word) for word in (sys.argv[1:] if args is None else args)]
        self.words = words
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        hint = self._hyphen() if re.search("expected|unrecognized|required", message) else ""
        if found := re.search(r"unrecognized arguments: (--[\w.-]+)", message):
            hint = self._hint(found[1])
        raise InputError(f"{message}{hint} (see '{self.prog} --help')")

    def _hyphen(self) -> str:
        """What to do about a name that was taken for a flag."""
        for word in self.words:
            if re.match(r"-[^-\d]", word) and word[:2] not in self._option_string_actions:
                return (
                    f". A name that begins with '-' is written as ./{word}, a value as KEY={word}"
                )
        return ""

    def _hint(self, flag: str) -> str:
        """What the unknown flag may have been meant for."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        near = nearest(flag, flags)
        if not any(action.metavar == PAIRS for action in self._actions):
            return f". Did you mean '{near}'?" if near else ""
        key = nearest(flag, self.keys()) if self.keys else None
        name = flag.lstrip("-")
        if key is None and name == name.upper():
            key = name
        if key and (near is None or key.lower().endswith(name.lower().replace("-", "_"))):
            return f". Did you mean '{key} VALUE'? Options of the config have no dashes"
        return f". Did you mean '{near}'?" if near else ""
