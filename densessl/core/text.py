"""What people write, as they wrote it: a name stays a name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError
from .files import read_text

STRING = "tag:yaml.org,2002:str"
MAPPING_KEYS = "tag:yaml.org,2002:merge"  # YAML's '<<'
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
# What PyYAML raises for text that is none: also of dates that are none, numbers of 5,000 digits
BAD_YAML = (yaml.YAMLError, ValueError, RecursionError)
OF_YAML = ("int", "float", "bool", "timestamp")  # what YAML takes plain words for
# libyaml's, for files that come with DenseSSL alone: faster, but its messages on what is no YAML
# are others, and text that is nested too deeply crashes it
OUR_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(file: Path, parse: Callable[[str], Any] = yaml.safe_load) -> Any:
    """What ``parse`` makes of a YAML file; InputError where it is none."""
    try:
        return _parsed(file, parse)
    except BAD_YAML as error:
        raise InputError(f"{file} is not YAML: {yaml_fault(error)}") from None


def read_own_yaml(file: Path) -> Any:
    """What a YAML file that comes with DenseSSL holds."""
    return yaml.load(read_text(file), OUR_LOADER)


def _parsed(file: Path, parse: Callable[[str], Any]) -> Any:
    values = parse(read_text(file))
    json.dumps(values, default=str, skipkeys=True)  # ValueError for a list that holds itself
    return values


def yaml_fault(error: Exception) -> str:
    """What is wrong with YAML that raised one of BAD_YAML, in a line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or holds itself"
    return " ".join(str(error).split())


def read_mapping(file: Path, what: str) -> dict[str, Any]:
    """The keys that a YAML file of ours holds.

    Raises InputError that names the file where it is not there, or not ``what`` it should be.
    """
    try:
        values = _parsed(file, yaml.safe_load)
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file") from None
    except (*BAD_YAML, OSError) as error:
        raise InputError(f"{file} is not {what}: {yaml_fault(error)}") from None
    if not isinstance(values, dict):
        raise InputError(f"{file} is not {what}: it holds a {type(values).__name__}")
    return values


def as_written(
    text: str, is_text: Callable[[tuple[str, ...], str], bool], loader: type = yaml.SafeLoader
) -> str:
    """YAML in which the values that are to be text are quoted, so that none becomes a number.

    ``is_text`` is asked with the keys that lead to a value and with the value as it is written.
    YAML itself makes 20261128 of ``2026_11_28``, 1.1 of ``1.10`` and True of ``on``. Raises
    ``yaml.YAMLError``.
    """
    root = yaml.compose(text, Loader=loader)
    if root is None:
        return text
    _quote(root, (), is_text)
    return yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True)


def _quote(node: yaml.Node, keys: tuple[str, ...], is_text: Callable) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            merged = key.tag == MAPPING_KEYS
            _quote(value, keys if merged else (*keys, str(key.value)), is_text)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _quote(each, keys, is_text)
    elif (
        isinstance(node, yaml.ScalarNode)
        and node.tag.rpartition(":")[2] in OF_YAML
        and is_text(keys, node.value)
    ):
        node.tag, node.style = STRING, "'"
