"""The YAML files that come with DenseSSL: ``pretrain/``, ``transfer/``, ``papers/``."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent


def is_ours(file: str | os.PathLike) -> bool:
    """Whether a file comes with DenseSSL: it is in this folder."""
    return Path(file).is_relative_to(FOLDER)
