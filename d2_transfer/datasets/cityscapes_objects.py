"""The objects in one file of Cityscapes' polygons, in Detectron2's format.

In place of Detectron2's own reader of such a file: the official main's imports a package of Meta's
own (detectron2#5436). The numbers are the same to the last bit.
"""

import json
from collections.abc import Mapping
from itertools import chain

import numpy as np
from shapely import Polygon

from .. import compat
from .cityscapes import Frame

compat.setup()
from detectron2.structures import BoxMode  # noqa: E402


def read_frame(frame: Frame, labels: Mapping[str, tuple[int, int | None]]) -> dict:
    """The record of an image with what is seen of its objects.

    ``labels``: name → Cityscapes' id, and the class that objects of it train, None for those that
    only hide others. Raises KeyError for a label that is not there.
    """
    content = json.loads(frame.file("polygons.json").read_text(encoding="utf-8"))
    annotations = []
    above = Polygon()  # all that is drawn over the object
    for item in reversed(content["objects"]):  # each is drawn over those before it
        if "deleted" in item:
            continue
        name = item["label"]
        is_group = name not in labels
        number, category = labels[name.removesuffix("group") if is_group else name]
        if number < 0:
            continue
        # Points are the middles of pixels, and a drawn polygon covers the pixels on its edge.
        shape = Polygon(np.asarray(item["polygon"], dtype=np.float32) + 0.5).buffer(
            0.5, quad_segs=4
        )
        if category is None:
            above = above.union(shape)
            continue
        seen = shape.difference(above)
        if seen.is_empty:
            continue
        above = above.union(shape)
        parts = [part for part in getattr(seen, "geoms", [seen]) if isinstance(part, Polygon)]
        annotations.append(
            {
                "iscrowd": is_group,
                "category_id": category,
                "segmentation": [[*chain(*part.exterior.coords)] for part in parts],
                "bbox": seen.bounds,
                "bbox_mode": BoxMode.XYXY_ABS,
            }
        )
    return {
        "file_name": str(frame.image),
        "image_id": frame.image.name,
        "height": content["imgHeight"],
        "width": content["imgWidth"],
        "annotations": annotations,
    }
