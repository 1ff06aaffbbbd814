"""Argument parsing with one clear message and exit code 2, naming the nearest known flag."""

import argparse
import inspect
import re
import textwrap
from typing import NoReturn

from .errors import InputError, nearest

WIDTH = 79  # of a line of help


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description's lines, and names a default where there is one to name."""

    def _get_help_string(self, action):
        if action.default is False or action.default is None:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """``argparse.ArgumentParser`` that raises InputError instead of printing its usage."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", Formatter)
        if description := kwargs.get("description"):  # often a docstring
            description = inspect.cleandoc(description).replace("``", "'")
            kwargs["description"] = (
                description if "\n" in description else textwrap.fill(description, WIDTH)
            )
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        hint = ""
        if found := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            flags = [flag for action in self._actions for flag in action.option_strings]
            if near := nearest(found[1], flags):
                hint = f". Did you mean '{near}'?"
        raise InputError(f"{message}{hint} (see '{self.prog} --help')")
