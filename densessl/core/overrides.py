"""``KEY VALUE`` and ``KEY=VALUE`` on the command line, in any mixture."""

import re
from collections.abc import Sequence

from .errors import InputError

KEY = re.compile(r"[A-Za-z]\w*(\.\w+)*")


def is_option(word: str) -> bool:
    """Whether the word is KEY or KEY=VALUE, and no file or name: options are in capitals."""
    key = word.partition("=")[0]
    return bool(KEY.fullmatch(key)) and key == key.upper()


def pairs(words: Sequence[str]) -> list[str]:
    """``words`` as KEY, VALUE, KEY, VALUE, …; InputError for a key without a value.

    Example: ``pairs(["SOLVER.EPOCHS=10", "SEED", "3"]) == ["SOLVER.EPOCHS", "10", "SEED", "3"]``
    """
    found: list[str] = []
    left = [str(word) for word in words]
    while left:
        word = left.pop(0)
        key, equals, value = word.partition("=")
        if equals and KEY.fullmatch(key):
            found += [key, value]
        elif left:
            found += [word, left.pop(0)]
        else:
            raise InputError(
                f"overrides come as KEY VALUE pairs; '{word}' has no value (KEY=VALUE is one, too)"
            )
    return found
