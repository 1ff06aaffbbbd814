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

    Of a method that was not measured, over all; None where no run logged the sign.
    """
    bands = _measured()
    chosen = [bands[method]] if method in bands else list(bands.values())
    found = [each[key] for each in chosen if key in each]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None
