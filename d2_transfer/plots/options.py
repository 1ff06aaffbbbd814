"""What a record tells of an option of its pretraining."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from densessl.configs import presets
from densessl.core.options import flat

from ..results import Record
from ..tables.matching import config_names


@dataclass(frozen=True)
class SweptOption:
    """An option of pretraining that a figure is drawn over.

    ``key``: its name in the configs of pretraining; ``fact``: in the ``pretrain`` facts of a
    record; ``ending``: what the names of the papers' configs say of it.
    """

    key: str
    fact: str
    ending: re.Pattern

    def of(self, record: Record) -> float | None:
        """Its value: the record's fact, else what the config says that the record names."""
        value = record.pretrain.get(self.fact)
        for name in config_names(record.pretrain):  # of equal options, if there are several
            value = built_in(name).get(self.key) if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        return float(value)

    def family(self, record: Record) -> str:
        """The config's name without the option, which a sweep has in common; else the method."""
        found = {self.ending.sub("", name) for name in config_names(record.pretrain)}
        return min(found, key=lambda name: (len(name), name), default=record.method)


THRESHOLD = SweptOption("SETSIM.THRESHOLD", "setsim_threshold", re.compile(r"_threshold\d+"))
CROPS = SweptOption("VIEWS.LOCAL_CROPS", "local_crops", re.compile(r"_crops\d+"))


@cache
def built_in(name: str) -> Mapping[str, object]:
    """The options that a config of pretraining which comes with DenseSSL sets, flat.

    Empty for any other name: a record's text never becomes a path.
    """
    if preset := presets.built_in().get(name):
        from fvcore.common.config import CfgNode

        return flat(preset.options(CfgNode.load_yaml_with_base(str(preset.file))))
    return {}
