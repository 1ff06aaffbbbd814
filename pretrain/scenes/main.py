"""``densessl scenes DIR``: write the procedural data set in the layouts of the real ones."""

import logging
import shlex
import shutil
from pathlib import Path

from densessl.core import log
from densessl.core.limits import cores
from densessl.core.options import argument
from densessl.core.parser import Parser
from densessl.core.stops import unfinished

MOST_SCENES = 999_999  # numbers of the two splits stay apart
SIZES = (64, 1024)  # a figure of 1/16 needs its 4 pixels; larger adds no detail


def parser() -> Parser:
    options = Parser(
        prog="densessl scenes",
        description="Write a procedural data set (people, vehicles, animals; exact boxes, masks, "
        "keypoints and labels) in the layouts of VOC, COCO, LVIS, Cityscapes, ADE20K and ImageNet. "
        "DIR then serves as DETECTRON2_DATASETS. The same arguments give the same bytes.",
    )
    options.add_argument("dir", metavar="DIR", type=Path, help="a new or an empty folder")
    for name, rule, default, text in (
        ("train", f">= 1, <= {MOST_SCENES}", 1000, "training images"),
        ("val", f">= 1, <= {MOST_SCENES}", 200, "validation images"),
        ("size", f">= {SIZES[0]}, <= {SIZES[1]}", 128, "side in pixels"),
        ("seed", ">= 0", 0, "decides every byte"),
        ("workers", ">= 1", cores(), "processes; any number gives the same set"),
    ):
        kind = argument(rule)
        options.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=text)
    return options


def main(argv: list[str]) -> int:
    """Write the set, resume an unfinished one, or say that it is complete."""
    options = parser().parse_args(argv)
    log.setup()
    logger = logging.getLogger("densessl")
    from . import dataset

    root = options.dir
    request = dataset.Request(options.train, options.val, options.size, options.seed)
    found = dataset.state(root, request)
    if found == "complete":
        shutil.rmtree(root / dataset.UNFINISHED, ignore_errors=True)
        print(f"{root}: complete already, nothing to do")
        if folder := dataset.lacks(root):
            print(f"it was drawn by an older version, without {folder}; a new folder would have it")
        return 0
    if found == "new":
        dataset.check_disk(root, request)
        if options.train < 8 or options.val < 2:
            logger.warning(
                "fewer than 8 training or 2 validation images: some of VOC's lists will have one "
                "line or none, and Detectron2 reads such lists wrongly"
            )
    else:
        logger.info("resuming the unfinished set in %s", root)
    with unfinished(f"the set in '{root}'"):
        dataset.write(root, request, options.workers)
    print(
        f"{root}: {options.train} training and {options.val} validation scenes of "
        f"{options.size} px as VOC, COCO, LVIS, Cityscapes, ADE20K and ImageNet folders\n"
        f"for Detectron2: export DETECTRON2_DATASETS={shlex.quote(str(root.absolute()))}"
    )
    return 0
