"""Config files of protocols with their ``_BASE_``, and of each value its file and line."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from densessl import configs
from densessl.core import options
from densessl.core.errors import InputError, unknown
from densessl.core.files import read_text
from densessl.core.text import BAD_YAML, MAPPING_KEYS, OUR_LOADER, read_mapping, yaml_fault

from . import compat, projects

BASE = "_BASE_"
COMMAND_LINE = "the command line"
KEY = re.compile(  # a quoted one is a suggestion
    r"(?<![\w.'])[A-Z]\w*(?:\.[A-Z]\w*)+(?=[ ;:,]|\.?(?:\s|$))"
)


@dataclass
class Layers:
    """``values``: nested, as the files have them. ``places``: of each dotted key where it was set
    last, as messages name it: ``mine.yaml, line 3``."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    @property
    def projects(self) -> tuple[str, ...]:
        """Those of Detectron2's projects whose options the files have."""
        return projects.among(self.places)


def read(file: Path, above: tuple[Path, ...] = ()) -> Layers:
    """A config file laid over its bases, which are named relative to it.

    ``above``: the files that have it as their base. Raises InputError for a file that is not there,
    is no YAML, or holds anything but keys, and for bases in a circle.
    """
    shown = _shown(file)
    try:
        parser = (OUR_LOADER if configs.is_ours(file) else yaml.SafeLoader)(read_text(file))
        root = parser.get_single_node()
        values = {} if root is None else parser.construct_document(root)
        nodes = dict(_lines(root))
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {error.strerror}") from None
    except BAD_YAML as error:
        raise InputError(f"{shown} is not YAML that can be read: {yaml_fault(error)}") from None
    if not isinstance(values, dict):
        raise InputError(f"{shown} holds a {type(values).__name__}; a config is keys with values")
    bases = values.pop(BASE, [])
    found = Layers()
    for base in bases if isinstance(bases, list) else [bases]:
        _lay(found, _base(file, base, f"{shown}, line {nodes.get(BASE, '?')}", above))
    places = {key: f"{shown}, line {line}" for key, line in nodes.items() if key != BASE}
    _lay(found, Layers(values, places))
    return found


def of_trial(file: Path):
    """The config that a trial wrote, not frozen, with the models that it names registered."""
    held = options.flat(read_mapping(file, "the config of a trial"))
    cfg = compat.get_cfg(projects.among(held))
    cfg.merge_from_file(str(file), allow_unsafe=False)
    return cfg


def _shown(file: Path) -> str:
    """One of ours by its name; below the working folder without that."""
    if configs.is_ours(file):
        return file.name
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _base(file: Path, base: object, where: str, above: tuple[Path, ...]) -> Layers:
    if not isinstance(base, str) or "://" in base:
        raise InputError(f"{where}: {BASE} is {base!r}; allowed: a file, or a list of files")
    path = file.parent / Path(base).expanduser()
    if not path.is_file():
        raise InputError(f"{where}: {BASE} is '{base}', but there is no file {path}")
    line = (*above, file)
    if any(path.samefile(each) for each in line):
        names = " -> ".join(each.name for each in (*line, path))
        raise InputError(f"{where}: the bases go in a circle: {names}")
    return read(path, line)


def _lay(below: Layers, above: Layers) -> None:
    """Lay ``above`` over ``below``, which is changed."""
    _merge(below.values, above.values)
    below.places |= above.places


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value


def _lines(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Each dotted key, of groups too, and its line."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.tag == MAPPING_KEYS:
            each = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for inner in each:
                yield from _lines(inner, prefix)
            continue
        name = f"{prefix}{key.value}"
        yield name, key.start_mark.line + 1
        yield from _lines(value, f"{name}.")


def merge(cfg, layers: Layers) -> None:
    """Merge what files hold into a config of Detectron2's or of a family of protocols.

    Detectron2's configs of an older VERSION are upgraded, as Detectron2 does it. Raises InputError,
    with the file and line, for keys that there are not (with the nearest) and values of another
    type.
    """
    version = _version(cfg, layers)
    held = cfg
    if version != cfg.get("VERSION"):
        compat.setup()
        from detectron2.config.compat import downgrade_config

        held = downgrade_config(cfg, version)
    allowed = options.flat(held)
    for key, value in options.flat(layers.values).items():
        where = layers.places.get(key, "the config")
        if any(each.startswith(f"{key}.") for each in allowed):
            raise InputError(f"{where}: {key} is {value!r}; allowed: a group of keys")
        if key not in allowed:
            raise _unknown(key, allowed, where, cfg, version)
        if value is None and allowed[key] is not None:
            raise InputError(f"{where}: {key} is empty; leave it out, or give it a value")
    try:
        held.merge_from_other_cfg(type(held)(layers.values))
    except (ValueError, AssertionError) as error:  # of another type
        key = str(error).rpartition(": ")[2]
        where = layers.places.get(key, "the config")
        value = options.flat(layers.values).get(key, "a group")
        raise InputError(
            f"{where}: {key} is {value!r}; allowed: {_kind(allowed.get(key))}"
        ) from None
    if held is not cfg:
        from detectron2.config.compat import upgrade_config

        upgraded = upgrade_config(held)
        cfg.clear()
        cfg.update(upgraded)
    if version is not None:
        projects.upgrade(cfg)


def _kind(default: object) -> str:
    return f"{options.KINDS.get(type(default), 'a group of keys')}, such as {default!r}"


def _version(cfg, layers: Layers) -> int | None:
    """The VERSION of Detectron2's configs that the files are written for; None: they have none."""
    latest = cfg.get("VERSION")
    if latest is None:
        return None
    old = {"MODEL.WEIGHT", "TEST.AUG_ON"} & options.flat(layers.values).keys()
    version = layers.values.get("VERSION", 1 if old else latest)
    if type(version) is not int or not 0 <= version <= latest:
        raise InputError(
            f"{layers.places['VERSION']}: VERSION is {version!r}; allowed: 0 to {latest}"
        )
    return version


def _unknown(key: str, allowed: Mapping[str, Any], where: str, cfg, version) -> InputError:
    if key in options.flat(cfg):
        return InputError(
            f"{where}: config key '{key}' is one of VERSION {cfg.VERSION}, but the config says "
            f"VERSION {version}: write VERSION: {cfg.VERSION}, or the old name"
        )
    return InputError(f"{where}: {unknown_key(key, allowed, 'VERSION' in cfg)}")


def unknown_key(
    key: str, allowed: Mapping[str, Any] | list[str], detectron2: bool = True
) -> InputError:
    """An InputError that names the nearest key, not all the hundreds there are, or Detectron2's
    project that has such a key."""
    project = projects.of(key) if detectron2 else ""
    if project in projects.among(allowed):
        project = ""
    if project in projects.KNOWN:
        return InputError(
            f"config key '{key}' is of Detectron2's project {project}; allowed: with a protocol "
            "that is made of it ('densessl transfer --list'), or a config file of yours"
        )
    if project:
        return InputError(
            f"config key '{key}' is of {project}, a project beside Detectron2, whose models no "
            "protocol has"
        )
    message = str(unknown("config key", key, allowed))
    return InputError(
        f"{message.split(' Allowed:')[0]} 'densessl transfer --print-config' lists all"
    )


@contextlib.contextmanager
def placed(places: Mapping[str, str]) -> Iterator[None]:
    """The block whose InputErrors say of each config key that they name where its value is from.

    Nothing is added where all are from the command line: that lies before one's eyes.
    """
    try:
        yield
    except InputError as error:
        message = str(error)
        named = dict.fromkeys(key for key in KEY.findall(message) if key in places)
        found = [f"{key} is from {places[key]}" for key in named if places[key] not in message]
        if all(places[key] == COMMAND_LINE for key in named) or not found:
            raise
        raise type(error)(f"{message} ({'; '.join(found)})") from None


def annotated(text: str, places: Mapping[str, str]) -> str:
    """A config's YAML with a comment on each line that begins a value, where it is from."""
    lines = text.splitlines()
    root = yaml.compose(text, Loader=OUR_LOADER)
    assert isinstance(root, yaml.MappingNode), "a config is one"
    for key, (line, one) in _ends(root).items():
        if one and key in places:
            lines[line] += f"  # {places[key]}"
    return "\n".join(lines) + "\n"


def _ends(node: yaml.MappingNode, prefix: str = "") -> dict[str, tuple[int, bool]]:
    """Of each dotted key the line that a comment can stand on, and whether it can at all."""
    found: dict[str, tuple[int, bool]] = {}
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value:
            found |= _ends(value, f"{name}.")
            continue
        block = isinstance(value, yaml.SequenceNode) and not value.flow_style
        one = block or value.start_mark.line == value.end_mark.line
        found[name] = (key.start_mark.line, one)
    return found
