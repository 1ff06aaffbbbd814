"""``densessl inspect CKPT``: what a checkpoint is, where its backbone lies, what it converts to.

Exit code 2 for a file that cannot be read, and, after what could be seen, for one of which no
backbone can be taken.
"""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from densessl.core.errors import DenseSSLError, InputError
from densessl.core.parser import Parser
from densessl.core.units import byte_size, many
from densessl.weight_files import facts, images, reading
from densessl.weight_files.layouts import BY_NAME
from densessl.weight_files.recognise import Source, recognise_in_place
from densessl.weight_files.renaming import unwrapped
from densessl.weight_files.unknown import networks_in
from densessl.weight_files.unpickle import Held
from densessl.weight_files.without_torch import LIBRARY

from .conversion import TARGETS
from .report import pretraining_text

ARGUMENTS = ("arch", "epochs", "batch_size", "lr", "base_lr", "dataset", "data", "data_path")
ENTRIES = 12  # that are shown of a file's top level
DEPTH = 8  # of values within values that are counted
LONG = 40  # characters of a value that are shown
BUFFERS = r"(running_mean|running_var|num_batches_tracked)$"
ENDINGS = r"(\.(pth|pt|tar|ckpt|torch|bin|pkl|safetensors))+$"


def main(argv: list[str]) -> int:
    parser = Parser(prog="densessl inspect", description=__doc__)
    parser.add_argument("checkpoint", help="the checkpoint file")
    parser.add_argument("--from", dest="source", default="auto", help="layout, as for convert")
    parser.add_argument("--branch", help="which of two networks, as for convert")
    arguments = parser.parse_args(argv)
    rows, problem = examine(arguments.checkpoint, arguments.source, arguments.branch)
    _show(rows)
    if problem:
        raise problem
    return 0


def examine(
    path: str | Path, source: str = "auto", branch: str | None = None
) -> tuple[list[tuple[str, str]], InputError | None]:
    """What can be seen in a checkpoint, as label and text, and why no backbone can be taken.

    torch is imported for what it alone can tell: rare types and strides, networks of timm's. Raises
    InputError for a file that cannot be read at all.
    """
    try:
        return _examined(Path(path), source, branch, LIBRARY)
    except DenseSSLError:
        raise
    except Exception:  # whatever stood in for torch's tensors here could not do
        pass
    return _examined(Path(path), source, branch, None)


def _examined(
    path: Path, source: str, branch: str | None, library: Any
) -> tuple[list[tuple[str, str]], InputError | None]:
    checkpoint = reading.read_checkpoint(path, library)
    kind = reading.KINDS[reading.kind_of(path)]
    rows = [("file", f"{path}, {byte_size(path.stat().st_size)}, {kind}")]
    found, problem = None, None
    try:
        found = recognise_in_place(checkpoint, source, str(path), branch)
    except InputError as error:
        problem = error
    if found:
        method = f"{found.method}{pretraining_text(found.pretrain)}"
        rows += [("layout", found.summary), ("method", method)]
    if isinstance(checkpoint, dict):
        rows += _beside(checkpoint)
    return rows + (_backbone(found, path, checkpoint) if found else []), problem


def _beside(checkpoint: dict) -> list[tuple[str, str]]:
    """What lies beside the weights: progress, arguments, entries."""
    rows = []
    if progress := facts.progress(checkpoint):
        rows.append(("progress", ", ".join(f"{name} {value}" for name, value in progress.items())))
    for entry in ("args", "opt", "hyper_parameters", "config"):
        held = checkpoint.get(entry)
        if isinstance(held, dict):
            arguments = [f"{name} {_value(held[name])}" for name in ARGUMENTS if name in held]
            rows += [("arguments", ", ".join(arguments))] if arguments else []
    if any(isinstance(value, dict) for value in checkpoint.values()):
        entries = [f"{name}: {_value(value)}" for name, value in checkpoint.items()]
        more = [f"… and {len(entries) - ENTRIES} more"] if len(entries) > ENTRIES else []
        rows += [
            ("holds" if not n else "", text) for n, text in enumerate(entries[:ENTRIES] + more)
        ]
    else:
        rows.append(("holds", _value(checkpoint)))
    return rows


def _backbone(found: Source, path: Path, checkpoint: dict) -> list[tuple[str, str]]:
    names = f"{found.place}*" if found.place.strip(":") else "the whole file"
    learned = (t for name, t in found.backbone.items() if not re.search(BUFFERS, name))
    count = sum(tensor.numel() for tensor in learned)
    rows = [
        ("backbone", f"{found.title}, {len(found.backbone)} tensors, {count:,} parameters: {names}")
    ]
    if found.fpn:
        rows.append(("FPN", f"{len(found.fpn)} tensors: {', '.join(_levels(found.fpn))}"))
    rows += [("other", text) for text in _others(found, checkpoint)]
    if found.left:
        left = ", ".join(f"{name} ({count})" for name, count in found.left.items())
        rows.append(("left", left))
    rows.append(("images", f"{images.words(found.images)}, {images.source(found.images.by)}"))
    rows += [("note", note) for note in found.notes]
    targets = [name for name in TARGETS if not (found.is_timm and name == "torchvision")]
    rows.append(("converts to", ", ".join(f"{name} ({TARGETS[name][0]})" for name in targets)))
    if found.layout.startswith("detectron2"):
        targets.remove("detectron2")
    out = re.sub(ENDINGS, "", path.name) + TARGETS[targets[0]][0]
    out = out if out != path.name else f"converted_{out}"
    return [*rows, ("next", shlex.join(["densessl", "convert", str(path), "-o", out]))]


def _others(found: Source, checkpoint: dict) -> list[str]:
    """The networks of the file that were not taken, and what takes them."""
    layout = BY_NAME.get(found.layout)
    shown = [found.place, found.other_place]
    if layout and layout.copy:  # the same tensors once more
        shown.append(f"{'/'.join(layout.container)}:{layout.copy}")
    others = [
        f"{title}, {container}:{prefix}*: --from {container}:{prefix}"
        for title, container, prefix in networks_in(unwrapped(checkpoint))
        if f"{container}:{prefix}" not in shown
    ]
    if found.other:
        others.insert(0, f"{found.other} branch, {found.other_place}*: --branch {found.other}")
    return others


def _levels(fpn: dict[str, Any]) -> list[str]:
    return sorted({name.split(".")[1] for name in fpn})


def _value(value: Any) -> str:
    """A value of the file in a few words: how many tensors of what size, or the value itself."""
    tensors = list(_tensors(value))
    if isinstance(value, dict | list | tuple) and tensors:
        size = sum(tensor.nbytes for tensor in tensors)
        return f"{many(len(tensors), 'tensor')}, {byte_size(size)}"
    if tensors:
        return f"a tensor {'x'.join(map(str, value.shape))}"
    if isinstance(value, Held):
        return f"{value.pickled}, {many(len(value), 'field')}"
    if isinstance(value, dict | list | tuple):
        return many(len(value), "value")
    text = str(value).strip()
    if isinstance(value, str) and ("\n" in text or len(text) > LONG):
        return f"text of {len(text)} characters"
    return text[:LONG]


def _tensors(value: Any, depth: int = 0, seen: set[tuple[int, int]] | None = None):
    """Every tensor or array within a value; a file may hold lists within lists without end."""
    seen, place = set() if seen is None else seen, (id(value), depth)
    if hasattr(value, "nbytes") and hasattr(value, "shape"):
        yield value
    elif isinstance(value, dict | list | tuple) and depth < DEPTH and place not in seen:
        seen.add(place)  # once, however often the file names it there
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner, depth + 1, seen)


def _show(rows: list[tuple[str, str]]) -> None:
    """Labels and texts in two columns, wrapped to the terminal where there is one."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for label, text in rows:
            table.add_row(f"[bold]{label}[/bold]", escape(text))
        Console().print(table)
        return
    for label, text in rows:
        print(f"{label:13s}{text}")
