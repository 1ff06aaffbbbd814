"""``densessl data inspect PATH`` and ``densessl data convert PATH -o coco.json``."""

import logging
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from densessl.core import log
from densessl.core.errors import InputError, unknown
from densessl.core.files import full_disk_reported, standing, write_text
from densessl.core.names import one_line
from densessl.core.parser import Parser

from .model import FORMS, Dataset

VERBS = ("inspect", "convert")
DESCRIPTION = """\
Read annotations in whatever form they are: what they hold, and every fault with its file and place;
or write them as COCO's JSON, which 'densessl transfer --train FILE' takes, too.

""" + "\n".join(f"  {form:11s} {what}" for form, what in FORMS.items())
EPILOG = """
inspect writes a contact sheet: images with their annotations drawn. The exit code is 2 where the
annotations have a fault, and convert writes nothing then.
"""
SHEET = "contact_sheet.png"


def parser() -> Parser:
    made = Parser(prog="densessl data", description=DESCRIPTION, epilog=EPILOG)
    made.add_argument("verb", metavar="VERB", help=f"one of {', '.join(VERBS)}")
    made.add_argument("path", metavar="PATH", type=Path, help="a file of annotations, or a folder")
    made.add_argument("--split", metavar="NAME", help="only this one, as train or val")
    made.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help=f"convert: the JSON file; inspect: the contact sheet, else {SHEET}",
    )
    return made


def main(argv: list[str]) -> int:
    """Run the verb; see DESCRIPTION."""
    args = parser().parse_args(argv)
    if args.verb not in VERBS:
        raise unknown("verb", args.verb, VERBS, "data VERB")
    ending = ".json" if args.verb == "convert" else ".png"
    if args.output is None and args.verb == "convert":
        raise InputError("-o is missing: the JSON file to write, as -o coco.json")
    output = Path(SHEET) if args.output is None else args.output
    _require_writable(output, ending)
    log.setup()
    from .sources import recognise

    sources = recognise(args.path)
    if args.split is not None:
        chosen = [each for each in sources if each.split == args.split]
        if not chosen:
            splits = [each.split for each in sources if each.split]
            if not splits:
                raise InputError(f"--split is '{args.split}', but {args.path} has no splits")
            raise unknown("split", args.split, splits, f"--split of {args.path}")
        sources = chosen
    files = {
        each: output.with_stem(f"{output.stem}_{Path(each.split).stem}")
        if len(sources) > 1
        else output
        for each in sources
    }
    if args.verb == "inspect":
        return max([_inspect(each.read(), file) for each, file in files.items()])
    sets = {file: each.read().require_sound() for each, file in files.items()}
    for file, data in sets.items():
        _convert(data, file)
    return 0


def _require_writable(file: Path, ending: str) -> None:
    """InputError for an output that could not be written; said before the work, not after it."""
    if file.suffix.lower() != ending or file.is_dir():
        raise InputError(f"-o is '{file}'; allowed: a file whose name ends in {ending}")
    try:
        standing(file.absolute().parent)
    except OSError as error:
        raise InputError(f"-o {file} cannot be written: {error.strerror}") from None


# inspect ----------------------------------------------------------------------------------------


def _inspect(data: Dataset, file: Path) -> int:
    from . import drawing

    rows = [*_rows(data)]
    if data.pictures:
        with full_disk_reported(file):
            drawn = drawing.sheet(data, file)
        rows.append(("drawn", f"{file}, {drawn} images"))
    rows += [("note", remark) for remark in data.remarks]
    if data.faults:
        rows.append(("faults", f"{len(data.faults)}"))
    else:
        rows.append(("next", _next(data)))
    width = max(len(label) for label, _ in rows)
    print("\n".join(f"{label:{width}s}  {one_line(text)}" for label, text in rows))
    for fault in data.faults:
        print(f"  {one_line(fault)}")
    print()
    return InputError.exit_code if data.faults else 0


def _rows(data: Dataset) -> Iterator[tuple[str, str]]:
    """What is in a data set, as label and text."""
    where = f"{data.path}, split {data.split}" if data.split else str(data.path)
    yield "format", f"{data.form}: {where}"
    without = sum(not each.objects for each in data.pictures)
    yield "images", f"{len(data.pictures):,}" + (f", {without:,} without an object" * bool(without))
    if data.pictures:
        yield "below", str(data.root)
        sizes = [each.size for each in data.pictures]
        for name, side in (("width", 0), ("height", 1)):
            ordered = sorted(size[side] for size in sizes)
            middle = ordered[len(ordered) // 2]
            yield name, f"{ordered[0]} to {ordered[-1]} px, median {middle}"
    objects = [*data.objects()]
    yield "objects", f"{len(objects):,}{_kinds(objects)}"
    sides = sorted(max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (each.box for each in objects))
    if sides:
        spread = f"{sides[0]:.0f} to {sides[-1]:.0f} px"
        yield "their size", f"{spread} (longer side), median {sides[len(sides) // 2]:.0f}"
    counts = Counter(each.category for each in objects)
    for place, category in enumerate(data.categories):
        points = f", {len(category.keypoints)} keypoints" if category.keypoints else ""
        label = "" if place else f"{len(data.categories)} classes"
        yield label, f"{place} {category.name}: {counts[place]:,}{points}"


def _kinds(objects: list) -> str:
    """How many objects have polygons and so on."""
    kinds = {
        "with polygons": sum(bool(each.polygons) for each in objects),
        "with masks": sum(each.mask is not None for each in objects),
        "boxes alone": sum(not each.polygons and each.mask is None for each in objects),
        "with keypoints": sum(bool(each.keypoints) for each in objects),
        "crowds": sum(each.crowd for each in objects),
    }
    listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    return f": {listed}" if listed else ""


def _next(data: Dataset) -> str:
    masks = all(each.polygons or each.mask for each in data.objects())
    points = any(each.keypoints for each in data.objects())
    protocol = "custom_keypoint" if points else "custom_mask" if masks else "custom_det"
    place = shlex.quote(str(data.path))
    return f"densessl transfer WEIGHTS --protocol {protocol} --train {place} -o DIR"


# convert ----------------------------------------------------------------------------------------


def _convert(data: Dataset, file: Path) -> None:
    from . import coco

    where = os.path.relpath(data.root, file.absolute().parent)
    text = coco.text(coco.content(data, where))
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") != text:
        raise InputError(f"-o {file} is there already, and nothing is overwritten: name another")
    with full_disk_reported(file):
        write_text(file, text)
    for remark in data.remarks:
        logging.getLogger("densessl").warning("%s", one_line(remark))
    print(
        f"{file}: {len(data.pictures)} images of {data.root}, "
        f"{sum(1 for _ in data.objects())} objects of {len(data.categories)} classes, from "
        f"{data.form}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
