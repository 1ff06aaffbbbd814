"""``densessl prepare NAME``: write the label images that a data set lacks for Detectron2."""

import sys
from pathlib import Path

from densessl.core import log
from densessl.core.errors import EnvironmentLacks, InputError, unknown
from densessl.core.limits import cores
from densessl.core.options import argument
from densessl.core.parser import Parser
from densessl.core.stops import unfinished

NAMES = {
    "voc_aug": "VOC2012's and SBD's masks as class numbers, with lists, in a new folder voc_aug",
    "cityscapes": "*_gtFine_labelTrainIds.png beside the *_gtFine_labelIds.png",
    "coco_panoptic": "coco/panoptic_stuff_*: the stuff of the panoptic images as class numbers",
    "ade20k": "annotations_detectron2: annotations of 0 to 150 as 0 to 149, and 255 for other",
}
DESCRIPTION = """\
Write the label images that a data set lacks for Detectron2, derived from what it has.
No file is overwritten: what is there already is compared. Stop it at any time; the same command
resumes.

""" + "\n".join(f"  {name:14s} {what}" for name, what in NAMES.items())


def parser() -> Parser:
    options = Parser(prog="densessl prepare", description=DESCRIPTION)
    options.add_argument("name", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    options.add_argument("--data", metavar="DIR", help="the data sets; else DETECTRON2_DATASETS")
    options.add_argument(
        "--sbd", metavar="DIR", type=Path, help="voc_aug: SBD, or a folder SegmentationClassAug"
    )
    options.add_argument(
        "--workers", type=argument(">= 1"), default=cores(), metavar="N", help="processes"
    )
    return options


def main(argv: list[str]) -> int:
    """Run the verb; see DESCRIPTION."""
    args = parser().parse_args(argv)
    root = _check_arguments(args)
    log.setup()
    from ..checks import remark_on_counts
    from . import plans, work

    plan = plans.PLANS[args.name](root, args.sbd and args.sbd.expanduser().absolute())
    work.check_disk(plan)
    with unfinished(args.name):
        try:
            outcome = work.run(plan, args.workers)
        except OSError as error:
            raise EnvironmentLacks(f"the labels cannot be written: {error}") from None
    if outcome.problems:
        raise InputError(_message(outcome))
    remark_on_counts(plan.counts, root)
    print(f"{root}: {args.name}: {_summary(outcome)}")
    return 0


def _check_arguments(args) -> Path:
    from ..checks import root_folder

    if args.name not in NAMES:
        raise unknown("data set", args.name, NAMES, "prepare NAME")
    if args.sbd is not None and args.name != "voc_aug":
        raise InputError(f"--sbd is '{args.sbd}', but only voc_aug reads it")
    if args.sbd is not None and not args.sbd.expanduser().is_dir():
        raise InputError(f"--sbd is '{args.sbd}', which is no folder")
    root, named_by = root_folder(args.data)
    if not root.is_dir():
        raise InputError(
            f"the folder {root} is not there (from {named_by}); name it with --data DIR"
        )
    return root


def _message(outcome) -> str:
    shown = outcome.problems[:10]
    more = len(outcome.problems) - len(shown)
    lines = [f"{len(outcome.problems)} label images are not right:", *shown]
    return "\n  ".join(lines + ([f"and {more} more"] if more else []))


def _summary(outcome) -> str:
    already = f"{outcome.right} label images were there already and are right"
    if not outcome.written:
        return f"{already}, nothing to do"
    return f"wrote {outcome.written} label images" + (f"; {already}" if outcome.right else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
