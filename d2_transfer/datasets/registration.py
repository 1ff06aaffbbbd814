"""Detectron2's catalogs, pointed at a folder.

Detectron2 reads DETECTRON2_DATASETS once, when it is imported; here the data sets are registered
again under the same names, so that ``--data`` and a variable set later take effect.
"""

from pathlib import Path

from d2_transfer import compat

from .layouts import LAYOUTS, VocLayout

_ABOUT_A_PLACE = {"name", "json_file", "image_root", "evaluator_type", "dirname", "split", "year"}


def register(root: Path) -> None:
    """Register every data set of LAYOUTS below ``root`` under Detectron2's own names."""
    compat.setup()
    import detectron2.data.datasets  # noqa: F401  (registers the built-in ones)
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances
    from detectron2.data.datasets.pascal_voc import register_pascal_voc

    for name, layout in LAYOUTS.items():
        known = MetadataCatalog.get(name).as_dict()
        about_classes = {key: value for key, value in known.items() if key not in _ABOUT_A_PLACE}
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        if isinstance(layout, VocLayout):
            register_pascal_voc(name, str(root / layout.folder), layout.split, layout.year)
            MetadataCatalog.get(name).evaluator_type = "pascal_voc"
        else:
            json_file, images = str(root / layout.annotations), str(root / layout.images)
            register_coco_instances(name, about_classes, json_file, images)
