"""Verbs as functions, with the same options, checks and errors (:mod:`densessl.core.errors`).

``pretrain`` is found here alone, for ``densessl.pretrain`` is the package.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core import trackers
from .core.errors import DenseSSLError, EnvironmentLacks, unknown
from .core.options import as_keyword
from .d2_transfer import flags
from .d2_transfer.convert.conversion import convert
from .d2_transfer.results import Record, found_in

if TYPE_CHECKING:
    import pandas

__all__ = ["convert", "pretrain", "results", "transfer"]


def pretrain(config: str | os.PathLike = "", *, change: Sequence[str] = (), **options: Any) -> Path:
    """``densessl pretrain``: train a backbone, or resume; the path of the final weights.

    Args:
        config: a YAML file, or a built-in config's name; the defaults are MoCo-v2's.
        change: names of options that a run which is resumed takes at new values.
        options: by their names in small letters, with ``_`` for the dot: ``data_path="images"`` is
            ``DATA.PATH images``.

    Raises:
        InputError: for what is wrong with them or with the data, before any work.
        StoppedEarly: after a signal, with everything saved; the same call resumes.

    Example::

        densessl.run.pretrain("moco_v2", data_path="images", output_dir="output", solver_epochs=100)
    """
    from .pretrain import config as configs
    from .pretrain.engine.train import train
    from .pretrain.options import DECLARED

    names = {as_keyword(name): name for name in DECLARED}
    words: list[str] = []
    for keyword, value in options.items():
        if keyword not in names:
            raise unknown("option", keyword, names, "pretrain()")
        words += [names[keyword], str(value)]
    cfg = configs.load(config, words)
    configs.check(cfg, int(os.environ.get("WORLD_SIZE", 1)))
    configs.data_paths(cfg.DATA)
    trackers.require(configs.flat(cfg))
    return train(cfg, change=change)


def transfer(
    weights: str | os.PathLike,
    protocol: str,
    output_dir: str | os.PathLike,
    *,
    overrides: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Record]:
    """``densessl transfer``: fine-tune under a protocol and evaluate; the trials' records.

    Args:
        weights: any checkpoint that converts, ``random``, ``supervised:FILE``, ….
        protocol: its name, or ``path/to/file.py:Name``.
        output_dir: where everything is written; what is finished there is not done again.
        overrides: options of Detectron2's config, ``{"SOLVER.BASE_LR": 0.01}``.
        options: the verb's flags, with ``_`` for the dash: ``trials=3``, ``train_json="a.json"``.

    Raises:
        InputError: for what is wrong with them, before any work.
        DenseSSLError: where a trial failed; the others are done.
        StoppedEarly: after a signal, with everything saved; the same call resumes.
    """
    from .d2_transfer.main import main

    given = {"protocol": protocol, "output_dir": os.fspath(output_dir), **options}
    for name in given:
        if name not in flags.BY_NAME:
            raise unknown("option", name, flags.BY_NAME, "transfer()")
    words = [str(word) for pair in (overrides or {}).items() for word in pair]
    if code := main([os.fspath(weights), *words, *flags.given_words(given)]):
        raise DenseSSLError(f"transfer ended with exit code {code}; {output_dir}/log.txt says why")
    return found_in([output_dir])


def results(*dirs: str | os.PathLike) -> "pandas.DataFrame":
    """The records of all trials in and below folders, a row each.

    Columns: ``method``, ``protocol``, ``variant``, ``seed``, ``mini``, ``folder``, the metrics by
    their names (``bbox/AP``, per cent; NaN where a record lacks one), and what is known of the
    pretraining and the weights (``pretrain/epochs``, ``weights/sha256``).

    Raises:
        InputError: where there are none.
        EnvironmentLacks: where pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise EnvironmentLacks(
            "pandas is not installed; fix it with: pip install 'pandas>=2'"
        ) from None
    return pandas.DataFrame([_row(record) for record in found_in(dirs)])


def _row(record: Record) -> dict[str, Any]:
    names = ("method", "protocol", "variant", "seed", "mini", "folder")
    row = {name: getattr(record, name) for name in names} | record.metrics
    for group, held in (("pretrain", record.pretrain), ("weights", record.weights)):
        row |= {f"{group}/{key}": value for key, value in held.items()}
    return row
