"""A user's own method, backbone, protocol …: an object out of a Python file, found by its path."""

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import InputError, unknown

MARK = ".py:"  # in a name that is none of ours
FORM = "path/to/file.py:Name"
LOADED: dict[str, str] = {}  # name of each file that was read -> digest of its path and content


def loaded(text: str) -> dict[str, str]:
    """The files that ``text`` (of options) names and that were read: name, and a digest of each."""
    return {name: digest for name, digest in LOADED.items() if name in text}


def load_object(text: str, what: str, where: str) -> Any:
    """The object ``Name`` of ``text``, which is ``path/to/file.py:Name``.

    ``what`` (a method, a backbone) and ``where`` (the option) are for messages. The path is
    relative to the working folder; ``~`` is the home folder. The file becomes a module under a
    private name, once for each content: it cannot be imported by others. What lies beside it can be
    imported by it, unless something installed or a part of DenseSSL has that name. Raises
    InputError for a text that is not of this form, a file that is not there, one that fails to
    import (with its line and message), and a name that it lacks.
    """
    file, separator, name = text.rpartition(":")
    if not (separator and file.endswith(".py") and name.isidentifier()):
        raise InputError(f"{where}: '{text}' is no {what}; it must be {FORM}")
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(
            f"{where}: there is no file '{file}' for the {what} '{text}' (looked from {Path.cwd()})"
        )
    module = _module(path.resolve(), f"{where}: '{text}'")
    if not hasattr(module, name):
        raise unknown(what, name, _public(module), where=f"{file} ({where})")
    return getattr(module, name)


def load_file(path: Path, where: str) -> ModuleType:
    """The file itself as a module, as :func:`load_object` has it; ``where``: the option."""
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"{where} is '{path}'; it must be a Python file that is there")
    return _module(path.resolve(), f"{where} {path.name}")


def _module(path: Path, where: str) -> ModuleType:
    """The file as a module; ``where`` begins a message."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: {path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(bytes(path) + b"\0" + source).hexdigest()[:16]
    name = f"_{path.stem}_{digest}"
    LOADED[path.name] = digest
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last: its neighbours stand in for nothing
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a .py file has one"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up here
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        line, message = failure(error, path)
        raise InputError(f"{where}: {path}, line {line}: {message}") from error
    return module


def failure(error: Exception, path: Path | str) -> tuple[int | str, str]:
    """The line of the file at which something failed, and the message."""
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or "?", f"{type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return (lines and lines[-1]) or "?", message


def _public(module: ModuleType) -> list[str]:
    """Names that a file defines itself, or, when it defines none, all that it has."""
    names = [name for name in vars(module) if not name.startswith("_")]
    own = [n for n in names if getattr(getattr(module, n), "__module__", "") == module.__name__]
    return own or names
