"""docs/troubleshooting.md: it quotes messages that the code has, and leaves no kind out."""

import ast
import functools
import re
from pathlib import Path

import densessl

ROOT = Path(densessl.__file__).parents[1]
PAGE_FILE = ROOT / "docs" / "troubleshooting.md"
PAGE = PAGE_FILE.read_text("utf-8")
ROOMS = ("densessl", "pretrain", "d2_transfer", "slurm", "configs")
BASE = "DenseSSLError"
FORM = 11  # characters: "there is no" is a form that many messages have


@functools.cache
def sources() -> dict[Path, ast.Module]:
    """The product's files."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return {path.relative_to(ROOT): ast.parse(path.read_text("utf-8")) for path in paths}


def texts(node: ast.AST) -> str:
    """The constant parts of every text below ``node``, with … where a value stands."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(texts, node.values))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def words(node: ast.AST) -> str:
    """All texts within ``node``, one a line."""
    inner = (each for each in ast.walk(node) if isinstance(each, ast.JoinedStr | ast.Constant))
    return "\n".join(map(texts, inner))


def name_of(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def quoted() -> list[list[str]]:
    """The messages in the first column of the page's tables, each in the pieces between values."""
    cells = re.findall(r"^\| (.*?) \| ", PAGE, re.MULTILINE)
    messages = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell) if " " in text]
    return [[piece.strip(" ;,.") for piece in re.split("…|NAME", text)] for text in messages]


def explained(text: str, quotes: list[list[str]]) -> bool:
    return any(all(piece in text for piece in pieces) for pieces in quotes)


@functools.cache
def error_classes() -> dict[str, int]:
    """The error classes of the product, and the exit code of each."""
    nodes = [node for tree in sources().values() for node in ast.walk(tree)]
    defined = [node for node in nodes if isinstance(node, ast.ClassDef)]
    found, before = {BASE: 1}, 0
    while before < len(found):  # until no class of a class of ours is new
        before = len(found)
        for node in defined:
            for base in map(name_of, node.bases):
                if base in found:
                    own = re.search(r"^ +exit_code = (\d+)$", ast.unparse(node), re.MULTILINE)
                    found[node.name] = int(own[1]) if own else found[base]
    return found


@functools.cache
def errors() -> list[tuple[Path, str, str]]:
    """Where an error of ours is made: the file, the class, the texts of its message."""
    calls = [
        (path, name_of(node.func), words(node))
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and name_of(node.func) in error_classes()
    ]
    return [each for each in calls if re.search("[a-z]{2} [a-z]", each[2])]  # not another's text


def test_every_quoted_message_is_one_of_ours():
    ours, quotes = "\n".join(map(words, sources().values())), quoted()
    lacking = [piece for pieces in quotes for piece in pieces if piece not in ours]
    assert len(quotes) > 400 and lacking == []


def test_a_message_names_a_page_by_its_title():
    """A wheel has no folder docs/."""
    titles = {path.read_text("utf-8").splitlines()[0][2:] for path in PAGE_FILE.parent.glob("*.md")}
    said = [" ".join(text.split()) for _, _, text in errors()]
    said += map(words, sources().values())
    named = {each for text in said for each in re.findall(r"page '([^']+)'", text)}
    assert len(named) > 3 and named <= titles
    assert [text for _, _, text in errors() if re.search(r"docs/|\.md\b", text)] == []


def test_every_error_class_stands_beside_its_exit_code():
    rows = dict(re.findall(r"^\| (\d+) \| .* \| (.*) \|$", PAGE, re.MULTILINE))
    classes = error_classes()
    assert {"InputError", "EnvironmentLacks", "StoppedEarly", "Diverged"} <= classes.keys()
    lacking = {name: code for name, code in classes.items() if f"`{name}`" not in rows[str(code)]}
    assert lacking == {}


def test_every_failure_that_is_not_the_inputs_is_explained():
    quotes = [pieces for pieces in quoted() if len("".join(pieces)) > FORM]
    lacking = [
        (str(path), text)
        for path, name, text in errors()
        if error_classes()[name] != 2 and not explained(text, quotes)
    ]
    assert lacking == []


def test_nearly_all_messages_of_every_folder_have_a_row():
    quotes, made = quoted(), dict[Path, list[bool]]()
    for path, _, text in errors():
        made.setdefault(path.parent, []).append(explained(text, quotes))
    assert len(made) > 20
    # not all: English may improve, one message at a time
    assert {folder for folder, each in made.items() if sum(each) < 3 / 4 * len(each)} == set()
