"""What a finished trial detects, drawn beside the ground truth of some test images."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densessl.core.errors import InputError
from densessl.core.files import write_atomic
from densessl.core.text import read_mapping

from . import config_files, flags, own_data
from .protocols import PROTOCOLS
from .saved import FINAL
from .trained import fill

DETECTOR = "GeneralizedRCNN"
GOOD_IOU = 0.5  # a box that overlaps an object of its class so much has found it


@dataclass
class Example:
    """One test image: [H, W, 3] pixels, and boxes as (x1, y1, x2, y2, class, score).

    Boxes are in pixels of the file, of which there are ``size`` (width, height).
    """

    name: str
    pixels: Any  # uint8 array
    size: tuple[int, int]
    objects: list[tuple]
    detections: list[tuple]


def detections(trial_dir: str | os.PathLike, out_png: str | os.PathLike, n: int = 6) -> None:
    """Draw ``n`` test images of a finished trial: the ground truth left, the detections right.

    The images are spread evenly over the test set, which Detectron2's catalogs must know. As many
    detections are drawn as the image has objects, those of the highest scores. Uses the trial's
    ``config.yaml`` and ``model_final.pth``; raises InputError where one is missing, or is not a
    detector's.
    """
    config_of(trial_dir)
    examples, classes = _detect(Path(trial_dir), n)
    _draw(examples, classes, out_png)


def config_of(trial_dir: str | os.PathLike) -> dict[str, Any]:
    """The config of a detector's finished trial; InputError for anything else."""
    trial_dir = Path(trial_dir)
    for name in ("config.yaml", FINAL):
        if not (trial_dir / name).is_file():
            raise InputError(f"{trial_dir}: it has no {name}; is the trial finished?")
    config = read_mapping(trial_dir / "config.yaml", "the config of a trial")
    try:
        network = config["MODEL"].get("META_ARCHITECTURE", "network of another kind")
    except (KeyError, AttributeError) as error:
        raise InputError(
            f"{trial_dir / 'config.yaml'} is no config of a trial: {error!r}"
        ) from None
    if network != DETECTOR:
        raise InputError(
            f"{trial_dir} trained a {network}; allowed: a trial of a detector ({DETECTOR})"
        )
    if channels := config.get("INPUT", {}).get("CHANNELS"):
        raise InputError(
            f"{trial_dir} was trained on images of {channels} channels, which are no pictures"
        )
    if code := config.get("IMPORT") or (config.get("LAZY") or {}).get("FILE"):
        raise InputError(f"{trial_dir} was trained with {code}, which is not run to draw a trial")
    return config


def register(trial_dir: str | os.PathLike, args) -> None:
    """Tell Detectron2's catalogs where the trial's test images lie.

    ``args``: of :func:`main`. InputError where they are missing, or are not the trial's.
    """
    from . import datasets
    from .datasets import custom
    from .evaluate_only import origin

    config = config_of(trial_dir)
    known = PROTOCOLS.get(origin(Path(trial_dir) / FINAL).protocol or "")
    if own := known and own_data.of(known, vars(args) | {"output_dir": Path(trial_dir).parent}):
        classes = config["MODEL"]["ROI_HEADS"]["NUM_CLASSES"]
        if own.num_classes != classes:
            raise InputError(
                f"{own.val_json} has {own.num_classes} categories, but {trial_dir} was "
                f"trained on {classes}"
            )
        custom.register(own)
        return
    datasets.register(datasets.check(config["DATASETS"]["TEST"], args.data, stand_in=True))


def _detect(trial_dir: Path, n: int) -> tuple[list[Example], list[str]]:
    import numpy as np
    import torch

    from . import compat

    compat.setup()
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.modeling import build_model

    from . import modeling  # noqa: F401 (its import registers the heads of the protocols)
    from .datasets.detection_mapper import DetectionMapper
    from .datasets.reading import Reading, bounds_of
    from .modeling.sliding_window import by_windows

    cfg = config_files.of_trial(trial_dir / "config.yaml")
    cfg.MODEL.DEVICE = "cpu" if not torch.cuda.is_available() else cfg.MODEL.DEVICE
    model = build_model(cfg).eval()
    fill(model, trial_dir / FINAL)
    model = by_windows(cfg, model)
    test = cfg.DATASETS.TEST[0]
    every = DatasetCatalog.get(test)
    mapper = DetectionMapper(cfg, is_train=False)
    read = Reading("RGB", bounds_of(cfg), cfg.INPUT.MAX_PIXELS)
    examples = []
    for index in np.linspace(0, len(every) - 1, min(n, len(every))).round().astype(int):
        entry = every[index]
        pixels, size = read(entry["file_name"])
        with torch.no_grad():
            found = model([mapper(dict(entry))])[0]["instances"].to("cpu")
        best = found.scores.argsort(descending=True)[: len(entry["annotations"])]
        boxes = found.pred_boxes.tensor[best].tolist()
        kinds, scores = found.pred_classes[best].tolist(), found.scores[best].tolist()
        examples.append(
            Example(
                name=Path(entry["file_name"]).stem,
                pixels=pixels,
                size=size,
                objects=[_object(each) for each in entry["annotations"]],
                detections=[
                    (*box, kind, score)
                    for box, kind, score in zip(boxes, kinds, scores, strict=True)
                ],
            )
        )
    return examples, MetadataCatalog.get(test).thing_classes


def _object(annotation: dict) -> tuple:
    from detectron2.structures import BoxMode

    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return (*map(float, box), annotation["category_id"], None)


def _draw(examples: list[Example], classes: list[str], out_png: str | os.PathLike) -> None:
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = (len(examples) + 1) // 2
    figure = Figure(figsize=(13, 3.4 * rows + 0.6), layout="constrained")
    figure.suptitle(
        "ground truth (left) and as many detections of the highest scores (right); "
        f"thick: IoU ≥ {GOOD_IOU} with an object of its class",
        fontsize=11,
    )
    shown = {box[4] for each in examples for box in each.objects + each.detections}
    colours = {kind: colormaps["tab10"](k % 10) for k, kind in enumerate(sorted(shown))}
    for k, example in enumerate(examples):
        for right in (False, True):
            axes = figure.add_subplot(rows, 4, 2 * k + 1 + right)
            width, height = example.size
            axes.imshow(example.pixels, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
            axes.set_axis_off()
            axes.set_title(f"{example.name}: detections" if right else example.name, fontsize=9)
            for box in example.detections if right else example.objects:
                thick = not right or _found(box, example.objects)
                _box(axes, box, classes[box[4]], colours[box[4]], thick)
    canvas = FigureCanvasAgg(figure)
    write_atomic(out_png, lambda stream: canvas.print_figure(stream, format="png", dpi=110))


def _box(axes, box: tuple, name: str, colour, thick: bool) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2, _, score = box
    width = 2.5 if thick else 1.0
    axes.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=width)
    )
    text = name if score is None else f"{name} {score:.2f}"
    axes.text(
        x1,
        y1,
        text,
        fontsize=7,
        color="white",
        va="bottom" if y1 > 0.08 * axes.get_ylim()[0] else "top",  # the y axis points down
        clip_on=True,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1},
    )


def _found(box: tuple, objects: list[tuple]) -> bool:
    return any(box[4] == each[4] and _iou(box, each) >= GOOD_IOU for each in objects)


def _iou(one: tuple, other: tuple) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (areas - both) if both else 0.0


def main(argv: list[str]) -> int:
    """Write the picture of one trial's detections."""
    from densessl.core.parser import Parser

    parser = Parser(prog="python -m densessl.d2_transfer.pictures", description=main.__doc__)
    parser.add_argument("trial", metavar="TRIAL_DIR")
    parser.add_argument("-o", "--output", required=True, metavar="PNG")
    parser.add_argument("-n", type=int, default=6, help="how many images")
    flags.add(parser, ("data", *flags.OWN))
    args = parser.parse_args(argv)
    register(args.trial, args)
    detections(args.trial, args.output, args.n)
    return 0


if __name__ == "__main__":
    from densessl.core.errors import run_module

    run_module(main, "pictures")
