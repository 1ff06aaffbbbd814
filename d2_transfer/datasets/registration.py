"""Detectron2's catalogs, pointed at a folder.

Detectron2 reads DETECTRON2_DATASETS once, when it is imported; here the data sets are registered
again under the same names, so that ``--data`` and a variable set later take effect.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from densessl.probes.label_images import VOID

from .. import compat
from . import cityscapes, coco_content
from .cityscapes import CityscapesInstances
from .coco_panoptic import PanopticLayout
from .detection import PERSON, VOC_CLASSES, CocoLayout, VocLayout, voc_records
from .inspection import DatasetLayout
from .layouts import LAYOUTS
from .lvis import IMAGES, LvisLayout, image_file
from .semantic import SemanticLayout, VocSemantic

ABOUT_CLASSES = (  # what Detectron2 knows of a data set, wherever it lies
    "thing_classes",
    "thing_colors",
    "thing_dataset_id_to_contiguous_id",
    "stuff_classes",
    "stuff_dataset_id_to_contiguous_id",
    "stuff_colors",
    "keypoint_names",
    "keypoint_flip_map",
    "keypoint_connection_rules",
)


def register(root: Path) -> None:
    """Register every data set of LAYOUTS below ``root`` under Detectron2's own names.

    But for those whose label images hold other numbers than the classes': Detectron2 would read
    them as they are.
    """
    compat.setup()
    import detectron2.data.datasets  # noqa: F401  (registers the built-in ones)
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for name, layout in LAYOUTS.items():
        if isinstance(layout, SemanticLayout) and layout.table:
            continue
        known = MetadataCatalog.get(name).as_dict()
        about_classes = {key: known[key] for key in ABOUT_CLASSES if key in known}
        forget(name)
        if isinstance(layout, VocLayout):
            _register_voc(name, layout, root / layout.folder)
        elif isinstance(layout, CocoLayout):
            if layout.keypoints:  # Detectron2 knows it from the file only
                about_classes["thing_dataset_id_to_contiguous_id"] = dict.fromkeys(PERSON, 0)
            register_coco(name, about_classes, root / layout.annotations, root / layout.images)
        elif isinstance(layout, PanopticLayout):
            _register_panoptic(name, layout, about_classes, root)
        elif isinstance(layout, LvisLayout):
            about_classes["thing_dataset_id_to_contiguous_id"] = layout.numbers
            file, images = root / layout.annotations, root / IMAGES
            register_coco(name, about_classes, file, images, "lvis", image_file)
        else:
            DatasetCatalog.register(name, _reader(layout, root))
            MetadataCatalog.get(name).set(**(about_classes | _facts(layout, root)))


def _register_voc(name: str, layout: VocLayout, folder: Path) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    DatasetCatalog.register(name, lambda: voc_records(folder, layout.split))
    MetadataCatalog.get(name).set(
        thing_classes=list(VOC_CLASSES),
        dirname=str(folder),
        year=layout.year,
        split=layout.split,
        evaluator_type="pascal_voc",
    )


def _register_panoptic(name: str, layout: PanopticLayout, about_classes: dict, root: Path) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    numbers = about_classes["thing_dataset_id_to_contiguous_id"]
    DatasetCatalog.register(name, lambda: layout.records(root, numbers))
    MetadataCatalog.get(name).set(
        json_file=str(root / layout.objects.annotations),
        image_root=str(root / layout.objects.images),
        panoptic_json=str(layout.annotations(root)),
        panoptic_root=str(layout.segments(root)),
        sem_seg_root=str(layout.stuff(root)),
        evaluator_type="coco_panoptic_seg",
        ignore_label=VOID,
        **about_classes,
    )


def register_coco(
    name: str,
    about_classes: dict,
    file: Path | str,
    images: Path | str,
    evaluator: str = "coco",
    image_file: Callable[[dict], str] = coco_content.FILE_NAME,
) -> None:
    """Register COCO's annotations, anew each time, with a reader for files as people have them.

    ``about_classes``: ``thing_classes`` and ``thing_dataset_id_to_contiguous_id`` at least.
    ``evaluator``, ``image_file``: those of LVIS, whose annotations have COCO's form.
    """
    compat.setup()
    from detectron2.data import DatasetCatalog, MetadataCatalog

    classes = about_classes["thing_dataset_id_to_contiguous_id"]
    forget(name)
    DatasetCatalog.register(name, lambda: coco_content.records(file, images, classes, image_file))
    MetadataCatalog.get(name).set(
        json_file=str(file), image_root=str(images), evaluator_type=evaluator, **about_classes
    )


def forget(name: str) -> None:
    """Remove a data set from Detectron2's catalogs, if it is there."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)


def _reader(layout: Any, root: Path) -> Callable[[], list[dict]]:
    if isinstance(layout, CityscapesInstances):
        return lambda: cityscapes.read_objects(root, layout.split)
    return lambda: [pair.record() for pair in layout.pairs(root)]


def _facts(layout: DatasetLayout, root: Path) -> dict:
    """The metadata that evaluators read, beside the classes."""
    if isinstance(layout, CityscapesInstances):
        images, truth = map(str, cityscapes.folders(root, layout.split))
        return {"image_dir": images, "gt_dir": truth, "evaluator_type": "cityscapes_instance"}
    assert isinstance(layout, SemanticLayout)
    facts: dict = {"evaluator_type": "sem_seg", "ignore_label": layout.void}
    if names := _names(layout):
        facts["stuff_classes"] = list(names)
    return facts


def _names(layout: SemanticLayout) -> tuple[str, ...]:
    """The classes' names where Detectron2 has none."""
    if isinstance(layout, VocSemantic):
        return ("background", *VOC_CLASSES)
    return layout.names


def class_names(name: str) -> tuple[str, ...]:
    """Of a data set with label images the names of its classes, in their order."""
    layout = LAYOUTS[name]
    assert isinstance(layout, SemanticLayout)
    if names := _names(layout):
        return names
    compat.setup()
    import detectron2.data.datasets  # noqa: F401  (registers the built-in ones)
    from detectron2.data import MetadataCatalog

    return tuple(MetadataCatalog.get(name).stuff_classes)
