"""What the docstrings' few marks of reStructuredText are in the site's Markdown."""

import re

import griffe

ROLE = re.compile(r":\w+:`~?([^`]+)`")  # :func:`densessl.load_backbone`
CODE_FOLLOWS = re.compile(r"^( *)(.*)::$", re.MULTILINE)  # Example::


class Docstrings(griffe.Extension):
    """Rewrites the docstring of each object before the site reads it."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """``text`` with roles as code, and ``Example::`` as a bold line before its block."""
    return CODE_FOLLOWS.sub(r"\1**\2**", ROLE.sub(r"`\1`", text))
