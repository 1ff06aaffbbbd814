"""What the signs of healthy runs were: ``bands.json``, with the commands that measured them."""

import json
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_name("bands.json")

Band = tuple[float, float]


@lru_cache
def _measured() -> dict[str, dict[str, Band]]:
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        method: {key: (low, high) for key, (low, high) in each["bands"].items()}
        for method, each in found.items()
    }


def measured(method: str, key: str) -> Band | None:
    """Least and largest mean of a sign over healthy runs of the method.

    Of a method or sign that was not measured, over all methods; None where no run logged the sign.
    """
    bands = _measured()
    own = bands.get(method, {})
    found = [each[key] for each in ([own] if key in own else bands.values()) if key in each]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None
