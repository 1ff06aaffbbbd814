"""Imports go one way through the house, and the pictures of CONTRIBUTING.md show how they go.

Read with ``ast``: nothing is imported. A module stands for itself, a folder for all that is in it.
"""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import densessl
from densessl.cli import VERBS
from densessl.pretrain.options import METHODS

ROOT = Path(densessl.__file__).parents[1]
BESIDE = ("pretrain", "d2_transfer", "slurm", "configs")  # these are densessl.NAME, too
OUTSIDE = "benchmarks"  # imported as it is called
FLOOR = {"core", "decoding", "annotations", "probes", "weight_files"}
MAY_IMPORT = {
    "core": set(),
    "configs": {"core"},
    "decoding": {"core"},
    "annotations": {"core", "decoding"},
    "probes": {"core", "decoding"},
    "weight_files": {"core"},
    "pretrain": FLOOR | {"configs"},
    "d2_transfer": FLOOR | {"configs"},
    "slurm": FLOOR | {"configs", "pretrain", "d2_transfer"},
    OUTSIDE: FLOOR | {"configs", "pretrain", "d2_transfer", "slurm"},
}
METHODS_AND_ABOVE = {"methods", "engine", "show"}
MAY_NOT_IMPORT = {  # within pretrain/
    "correspondence": METHODS_AND_ABOVE,
    "losses": METHODS_AND_ABOVE,
    "views": METHODS_AND_ABOVE,
    "backbones": METHODS_AND_ABOVE,
    "methods": {"engine", "show"},
    "engine": {"show"},
}


def files() -> dict[str, Path]:
    """The product's modules by the name that they are imported by."""
    found = {}
    for folder in ("densessl", *BESIDE, OUTSIDE):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((("densessl",) if folder in BESIDE else ()) + parts)] = path
    return found


FILES = files()


@dataclass
class Import:
    """One imported name: ``target`` is the module that it is, or that it lies in."""

    source: str
    target: str
    line: int
    relative: bool
    late: bool  # within a function, or for type checkers alone: not when the module is imported

    def __str__(self) -> str:
        return f"{FILES[self.source].relative_to(ROOT)}:{self.line} imports {self.target}"


def imports() -> list[Import]:
    """What each module of ours imports of the others, and top-level names that only look ours."""
    return [each for name in FILES for each in _imports(name)]


def _imports(source: str) -> Iterable[Import]:
    path = FILES[source]
    package = source if path.name == "__init__.py" else source.rpartition(".")[0]

    def read(node: ast.AST, late: bool) -> Iterable[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for target in targets(child):
                    if target.split(".")[0] in ("densessl", *BESIDE, *FLOOR, OUTSIDE):
                        relative = isinstance(child, ast.ImportFrom) and child.level > 0
                        yield Import(source, target, child.lineno, relative, late)
            else:
                later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from read(child, late or later or typing)

    def targets(node: ast.Import | ast.ImportFrom) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])])
        full = [f"{base}.{alias.name}" for alias in node.names]
        return [name if name in FILES else base for name in full]

    return list(read(ast.parse(path.read_text()), False))


IMPORTS = imports()


def room(module: str) -> str:
    """``core`` of ``densessl.core.files``; the front door and its modules are ``densessl``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else parts[0]


def within_pretrain(module: str) -> str | None:
    """``methods`` of ``densessl.pretrain.methods.moco``; None for what lies in no folder of it."""
    parts = module.split(".")
    folder = (ROOT / "pretrain" / parts[2]).is_dir() if len(parts) > 2 else False
    return parts[2] if parts[1:2] == ["pretrain"] and folder else None


def test_imports_name_modules_that_there_are():
    assert [str(each) for each in IMPORTS if each.target not in FILES] == []


def test_a_room_imports_only_what_lies_below_it():
    wrong = [
        str(each)
        for each in IMPORTS
        if (source := room(each.source)) in MAY_IMPORT
        and room(each.target) not in MAY_IMPORT[source] | {source, "densessl"}
    ]
    assert wrong == []


def test_the_floor_does_not_ask_the_front_door():
    rooms = FLOOR | {"pretrain", "d2_transfer", "configs"}
    door = [each for each in IMPORTS if room(each.target) == "densessl"]
    assert [str(each) for each in door if room(each.source) in rooms] == []


def test_inside_a_folder_imports_are_relative_and_between_folders_absolute():
    for each in IMPORTS:
        source, target = room(each.source), room(each.target)
        if "densessl" not in (source, target) and source != OUTSIDE:
            assert each.relative == (source == target), str(each)


def test_in_pretrain_nothing_points_up_to_the_methods():
    wrong = [
        str(each)
        for each in IMPORTS
        if within_pretrain(each.target) in MAY_NOT_IMPORT.get(within_pretrain(each.source), ())
    ]
    assert wrong == []


def test_no_room_imports_one_method():
    """Methods are found by their names; what they have in common is ``base``."""
    room, base = "densessl.pretrain.methods", "densessl.pretrain.methods.base"
    wrong = [
        str(each)
        for each in IMPORTS
        if each.target.startswith(f"{room}.")
        and each.target != base
        and not each.source.startswith((room, OUTSIDE))
    ]
    assert wrong == []


def test_no_import_circle():
    """None when modules are imported; what is imported later, in a function, does not count."""
    after = {name: set() for name in FILES}
    for each in IMPORTS:
        if not each.late:
            after[each.source].add(each.target)
    while free := [name for name, needs in after.items() if not needs & after.keys() - {name}]:
        for name in free:
            del after[name]
    while above := after.keys() - set().union(*after.values()):
        for name in above:
            del after[name]
    assert sorted(after) == [], "these import each other"


def arrows(of, keep) -> dict[str, set[str]]:
    """{part of the house: the parts that it imports}, parts as ``of`` names them."""
    found = {}
    for each in IMPORTS:
        source, target = of(each.source), of(each.target)
        if keep(source) and keep(target) and source != target:
            found.setdefault(source, set()).add(target)
    return found


def picture(number: int) -> dict[str, set[str]]:
    """The arrows of a Mermaid graph of CONTRIBUTING.md, the dotted ones, too."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    graph = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)[number]
    lines = re.findall(r"^ +(\w+) (?:-->|-\..+?\.->) (.+)$", graph, re.MULTILINE)
    found = {}
    for source, targets in lines:
        found.setdefault(source, set()).update(targets.split(" & "))
    return found


def test_the_picture_of_the_house_is_true():
    found = arrows(room, lambda name: name in {"densessl", *MAY_IMPORT})
    found["slurm"].discard("densessl")  # only to say where it lies
    found["densessl"] |= {module.split(".")[0] for module, _ in VERBS.values()}  # by name
    assert picture(0) == found


def test_the_picture_of_pretraining_is_true():
    assert picture(1) == arrows(within_pretrain, lambda name: name is not None)


def test_the_engine_names_no_method():
    named = METHODS.keys() - {"dense"}  # a word of its own, as in "loss/dense"
    for module, path in FILES.items():
        if within_pretrain(module) == "engine":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert node.value not in named, f"{path}:{node.lineno}"


def test_a_class_name_is_one_thing():
    found: dict[str, list[str]] = {}
    for module, path in FILES.items():
        if room(module) == OUTSIDE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(module)
    assert len(found) > 300
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}
