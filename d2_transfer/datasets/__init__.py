"""Data sets of the protocols: where they must lie, whether they do, and Detectron2's catalog."""

from typing import TYPE_CHECKING

from densessl.core.lazy import lazily

if TYPE_CHECKING:
    from .checks import check, root_folder
    from .layouts import LAYOUTS
    from .registration import class_names, register

_NAMES = {  # a name, and the module that has it
    "LAYOUTS": "layouts",
    "check": "checks",
    "class_names": "registration",
    "register": "registration",
    "root_folder": "checks",
}

__all__ = ["LAYOUTS", "check", "class_names", "register", "root_folder"]
__getattr__ = lazily(__name__, _NAMES)
