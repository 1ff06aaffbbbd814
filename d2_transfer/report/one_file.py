"""A page in one file: its templates, and pictures that are in it."""

import base64
import logging
import os
from pathlib import Path
from typing import Any

from densessl.core import files

from .. import results
from ..tables.render import html

logger = logging.getLogger("densessl")


def rendered(template: str, **values: Any) -> str:
    """The template of this folder with these values; every text in it is escaped."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(table_style=safe(html.STYLE), **values)


def safe(text: str):
    """What the renderer of tables wrote, and has escaped."""
    from markupsafe import Markup

    return Markup(text)


def inlined(kind: str, content: bytes) -> str:
    """A file of that media type as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def made() -> str:
    """This moment, for a reader."""
    return results.now().replace("T", " ").removesuffix("+00:00") + " UTC"


def write(path: str | os.PathLike, text: str) -> None:
    """Write the page, and log its size."""
    text = text.encode("utf-8", "backslashreplace").decode()  # names may hold other bytes
    files.write_text(path, text)
    logger.info("wrote %s (%s)", path, _size(len(text.encode())))


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
