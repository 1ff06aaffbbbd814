"""docs/troubleshooting.md quotes messages that the code has."""

import ast
import re
from pathlib import Path

import densessl

ROOT = Path(densessl.__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")


def texts(node: ast.AST) -> str:
    """The constant parts of every text below ``node``, with … where a value stands."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(texts, node.values))
    return node.value if isinstance(node, ast.Constant) else "…"


def said() -> list[str]:
    """Every text of the product's sources."""
    found = []
    for room in ("densessl", "pretrain", "d2_transfer", "slurm", "configs"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append(texts(node))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def quoted() -> list[str]:
    """The messages in the first column of the page's tables."""
    cells = re.findall(r"^\| (.*?) \| ", PAGE, re.MULTILINE)
    return [text for cell in cells for text in re.findall(r"`([^`]+)`", cell) if " " in text]


def test_every_quoted_message_is_one_of_ours():
    sources, parts = said(), [re.split("…|NAME", text) for text in quoted()]
    lacking = [
        piece.strip(" ;,.")
        for pieces in parts
        for piece in pieces
        if not any(piece.strip(" ;,.") in source for source in sources)
    ]
    assert len(parts) > 40 and lacking == []
