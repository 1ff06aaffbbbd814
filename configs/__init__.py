"""The YAML files that come with DenseSSL: ``pretrain/``, ``transfer/``, ``papers/``."""

from pathlib import Path

FOLDER = Path(__file__).parent
