"""Lists of the images of a data set that a probe takes, as papers publish them."""

from collections.abc import Sequence
from pathlib import Path

from densessl.core.errors import InputError

from ..classification.folders import listed
from ..datasets.inspection import some
from ..datasets.semantic import MaskPair


def of_list(
    pairs: Sequence[MaskPair], name: str, wanted: str, root: Path, option: str
) -> tuple[list[MaskPair], str]:
    """The pairs whose images a list names, in their own order, and what messages call them.

    ``wanted``: a text file (looked for in ``root``, then as it stands) of image names, one a line,
    with their ending and folders or without; what follows white space is ignored. ``name``: of the
    data set; ``option``: of the list. Raises InputError for a missing list, for names that are not
    there, and for one that several images have.
    """
    places = (root / wanted, Path(wanted).expanduser())
    file = next((place for place in places if place.is_file()), places[1])
    lines = [line.split()[0] for line in listed(file, option, wanted)]
    asked = {Path(line).name for line in lines}
    known = {each for pair in pairs for each in (pair.image.name, pair.image.stem)}
    if missing := sorted(asked - known):
        raise InputError(
            f"{option}: {file}: {len(missing)} of its {len(asked)} images are not in {name}: "
            f"{some(missing)}"
        )
    kept = [pair for pair in pairs if asked & {pair.image.name, pair.image.stem}]
    if len(kept) != len(asked):
        raise InputError(
            f"{option}: {file} has {len(asked)} names for {len(kept)} images of {name}; allowed: "
            "one name for each image, that no other has"
        )
    return kept, f"{name}, of {file.name}"
