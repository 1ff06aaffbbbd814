"""What a user's own file registers with Detectron2: data sets, heads, evaluators (``--import``)."""

from collections.abc import Iterable
from pathlib import Path

from densessl.core.errors import InputError, unknown
from densessl.core.external import load_file

from . import compat
from .datasets import registered
from .datasets.layouts import LAYOUTS

FLAG = "--import"


def run(file: str) -> str:
    """Run the file that the user named, once a process, and return its absolute path.

    Raises InputError for one that is not there, or fails, with its line.
    """
    compat.setup()
    from . import modeling  # noqa: F401  (what is registered twice fails here, not in the file)

    path = Path(file).expanduser().absolute()
    load_file(path, FLAG)
    return str(path)


def is_registered(name: str) -> bool:
    """Whether it is a data set that something in this process has registered with Detectron2."""
    compat.setup()
    from detectron2.data import DatasetCatalog

    return name in DatasetCatalog.list()


def check_names(names: Iterable[str], imported: str | None) -> None:
    """InputError for a data set that DenseSSL does not know, and ``imported`` has not registered.

    Detectron2's own others are none of either: nothing checks them, and no reader is known of them.
    """
    for name in registered.among(names):
        if not (imported and is_registered(name)):
            other = (
                "" if imported else f"; what registers one of your own is named with {FLAG} FILE"
            )
            raise InputError(f"{unknown('data set', name, LAYOUTS, 'DATASETS')}{other}")
