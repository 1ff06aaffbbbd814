"""Data sets of the protocols: where they must lie, whether they do, and Detectron2's catalog."""

from .checks import check, root_folder
from .layouts import LAYOUTS
from .registration import class_names, register

__all__ = ["LAYOUTS", "check", "class_names", "register", "root_folder"]
