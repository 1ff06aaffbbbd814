"""Detectron2's catalogs, pointed at a folder.

Detectron2 reads DETECTRON2_DATASETS once, when it is imported; here the data sets are registered
again under the same names, so that ``--data`` and a variable set later take effect.
"""

from collections.abc import Callable
from pathlib import Path

from d2_transfer import compat

from . import cityscapes, cityscapes_objects
from .cityscapes import CityscapesInstances
from .detection import VOC_CLASSES, CocoLayout, VocLayout
from .inspection import Layout
from .label_images import VOID
from .layouts import LAYOUTS
from .semantic import SemanticLayout, VocSemantic

ABOUT_CLASSES = (  # what Detectron2 knows of a data set, wherever it lies
    *("thing_classes", "thing_colors", "thing_dataset_id_to_contiguous_id"),
    *("stuff_classes", "stuff_colors"),
    *("keypoint_names", "keypoint_flip_map", "keypoint_connection_rules"),
)


def register(root: Path) -> None:
    """Register every data set of LAYOUTS below ``root`` under Detectron2's own names."""
    compat.setup()
    import detectron2.data.datasets  # noqa: F401  (registers the built-in ones)
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for name, layout in LAYOUTS.items():
        known = MetadataCatalog.get(name).as_dict()
        about_classes = {key: known[key] for key in ABOUT_CLASSES if key in known}
        forget(name)
        if isinstance(layout, VocLayout):
            from detectron2.data.datasets.pascal_voc import register_pascal_voc

            register_pascal_voc(name, str(root / layout.folder), layout.split, layout.year)
            MetadataCatalog.get(name).evaluator_type = "pascal_voc"
        elif isinstance(layout, CocoLayout):
            from detectron2.data.datasets import register_coco_instances

            json_file, images = str(root / layout.annotations), str(root / layout.images)
            register_coco_instances(name, about_classes, json_file, images)
        else:
            DatasetCatalog.register(name, _reader(layout, root))
            MetadataCatalog.get(name).set(**(about_classes | _facts(layout, root)))


def forget(name: str) -> None:
    """Remove a data set from Detectron2's catalogs, if it is there."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)


def _reader(layout: Layout, root: Path) -> Callable[[], list[dict]]:
    if isinstance(layout, CityscapesInstances):
        return lambda: cityscapes_objects.read(root, layout.split)
    return lambda: [pair.record() for pair in layout.pairs(root)]


def _facts(layout: Layout, root: Path) -> dict:
    """The metadata that evaluators read, beside the classes."""
    if isinstance(layout, CityscapesInstances):
        images, truth = map(str, cityscapes.folders(root, layout.split))
        return {"image_dir": images, "gt_dir": truth, "evaluator_type": "cityscapes_instance"}
    assert isinstance(layout, SemanticLayout)
    facts: dict = {"evaluator_type": "sem_seg", "ignore_label": VOID}
    if isinstance(layout, VocSemantic):
        facts["stuff_classes"] = ["background", *VOC_CLASSES]
    return facts
