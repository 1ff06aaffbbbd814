"""Which records may stand side by side: of one protocol, one variant, all full or all miniature."""

from collections.abc import Sequence

from densessl.core.errors import InputError, unknown

from ..protocols import PROTOCOLS
from ..results import Record, class_of


def of_one_kind(
    records: Sequence[Record],
    protocol: str | None = None,
    variant: str | None = None,
    usual: str | None = None,
) -> list[Record]:
    """The records of one protocol and variant, those that are named or else the only ones.

    ``usual``: the protocol that is taken of several unless one is named. Raises InputError for a
    name that no record has, where several remain, and for miniatures among full trials.
    """
    found = list(records)
    protocols = dict.fromkeys(record.protocol for record in found)
    if protocol is None:
        if len(protocols) > 1 and usual not in protocols:
            raise InputError(
                f"the records are of the protocols {', '.join(protocols)}; name one with --protocol"
            )
        protocol = usual if usual in protocols else next(iter(protocols))
    if protocol not in protocols:
        raise unknown("protocol", protocol, protocols, "--protocol, among the records")
    found = [record for record in found if record.protocol == protocol]
    variants = dict.fromkeys(record.variant for record in found)
    if variant is None and len(variants) > 1:
        raise InputError(
            f"the records of {protocol} are of the variants {', '.join(variants)}, whose numbers "
            "do not compare; name one with --variant"
        )
    if variant is not None and variant not in variants:
        if list(variants) == [""]:
            raise InputError(f"--variant is '{variant}', but the records of {protocol} have none")
        raise unknown("variant", variant, variants, "--variant, among the records")
    found = [record for record in found if variant in (None, record.variant)]
    if len({record.mini for record in found}) > 1:
        mini, full = (
            next(r.folder for r in found if r.mini is is_mini) for is_mini in (True, False)
        )
        raise InputError(
            f"{mini} is a miniature and {full} is not, and their numbers do not compare; name the "
            "folders of one kind"
        )
    return found


def metrics_of(records: Sequence[Record], named: Sequence[str] = ()) -> list[str]:
    """The named metrics, or those that the protocol reports, its main one first.

    Raises InputError, with the nearest, for a metric that no record has.
    """
    known = dict.fromkeys(name for record in records for name in record.metrics)
    for name in named:
        if name not in known:
            raise unknown("metric", name, known, "--metric")
    protocol = PROTOCOLS.get(records[0].protocol)
    reported = [name for name in protocol.metrics if name in known] if protocol else []
    means = [name for name in known if not class_of(name)]
    return list(dict.fromkeys(named)) or reported or means or list(known)


def values_of(trials: Sequence[Record], metric: str) -> dict[int, float]:
    """By seed, the value of each trial that has a number there."""
    found = {trial.seed: trial.metrics[metric] for trial in trials if metric in trial.metrics}
    return {seed: value for seed, value in found.items() if value == value}  # not NaN
