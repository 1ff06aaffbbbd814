"""Argument parsing with one clear message and exit code 2, naming the nearest known flag."""

import argparse
import re
from typing import NoReturn

from .errors import InputError, nearest


class Parser(argparse.ArgumentParser):
    """``argparse.ArgumentParser`` that raises InputError instead of printing its usage."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        hint = ""
        if found := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            flags = [flag for action in self._actions for flag in action.option_strings]
            if near := nearest(found[1], flags):
                hint = f". Did you mean '{near}'?"
        raise InputError(f"{message}{hint} (see '{self.prog} --help')")
