"""A contact sheet: some images with their annotations drawn, so that one sees whether they fit."""

import logging
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from densessl.core.files import write_atomic
from densessl.decoding import UnreadableImage, decode
from densessl.decoding.channels import decode_channels, stored_channels

from .model import AnnotatedImage, Dataset, Object
from .shapes import mask_of

COLUMNS, TILE, GAP = 4, 320, 6  # pixels
MOST = 24  # images
COLOURS = (
    (230, 60, 60),
    (60, 140, 250),
    (40, 190, 90),
    (250, 170, 30),
    (190, 90, 230),
    (30, 200, 200),
    (250, 110, 190),
    (150, 200, 40),
)  # of the classes, over again from the ninth
COVER = 0.4  # of a mask's colour over the image
POINT = 2  # pixels, the radius of a keypoint


def sheet(data: Dataset, file: Path) -> int:
    """Write a PNG of at most MOST images, spread evenly over those with objects; how many."""
    chosen = [each for each in data.pictures if each.objects] or data.pictures
    if len(chosen) > MOST:
        chosen = [chosen[place * (len(chosen) - 1) // (MOST - 1)] for place in range(MOST)]
    tiles = [tile for each in chosen if (tile := _tile(each, data)) is not None]
    rows = -(-len(tiles) // COLUMNS)
    step = TILE + GAP
    columns = min(COLUMNS, len(tiles))
    whole = Image.new("RGB", (max(columns, 1) * step + GAP, max(rows, 1) * step + GAP), "white")
    for place, tile in enumerate(tiles):
        row, column = divmod(place, COLUMNS)
        whole.paste(tile, (GAP + column * step, GAP + row * step))
    write_atomic(file, lambda stream: whole.save(stream, "PNG"))
    return len(tiles)


def _pixels(path: Path) -> Image.Image:
    """RGB; of an image of other channels the first three as red, green and blue (or the first, as
    grey), by the range of its own values. UnreadableImage."""
    try:
        return decode(path).image
    except UnreadableImage:
        count = stored_channels(path)
        if not count:
            raise
    values = decode_channels(path, count).values
    return Image.fromarray(values[:, :, :3] if count > 2 else values[:, :, 0]).convert("RGB")


def _tile(picture: AnnotatedImage, data: Dataset) -> Image.Image | None:
    try:
        image = _pixels(picture.path)
    except UnreadableImage as error:
        logging.getLogger("densessl").warning("%s is not drawn: %s", picture.path, error)
        return None
    scale = TILE / max(picture.size)
    size = max(1, round(picture.size[0] * scale)), max(1, round(picture.size[1] * scale))
    tile = image.resize(size, Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST)
    for each in picture.objects:
        _cover(tile, each, scale)
    pen = ImageDraw.Draw(tile)
    for each in picture.objects:
        _outline(pen, each, scale, data.categories[each.category].name)
    return tile


def _colour(each: Object) -> tuple[int, int, int]:
    return COLOURS[each.category % len(COLOURS)]


def _cover(tile: Image.Image, each: Object, scale: float) -> None:
    """The mask of an object as a colour that one can see through."""
    area = Image.new("L", tile.size)
    if each.polygons:
        pen = ImageDraw.Draw(area)
        for polygon in each.polygons:
            pen.polygon([value * scale for value in polygon], fill=255)
    elif each.mask is not None:
        with suppress(ImportError):  # a compressed one without pycocotools
            shown = Image.fromarray(mask_of(each.mask).astype(np.uint8) * 255)
            area = shown.resize(tile.size, Image.Resampling.NEAREST)
    tile.paste(_colour(each), mask=area.point([round(value * COVER) for value in range(256)]))


def _outline(pen: ImageDraw.ImageDraw, each: Object, scale: float, name: str) -> None:
    colour = _colour(each)
    box = [value * scale for value in each.box]
    box[2], box[3] = max(box[2] - 1, box[0]), max(box[3] - 1, box[1])
    pen.rectangle(box, outline=colour, width=2)
    for polygon in each.polygons:
        pen.polygon([value * scale for value in polygon], outline=colour)
    for x, y, seen in each.keypoints:
        if seen:
            at = (x * scale - POINT, y * scale - POINT, x * scale + POINT, y * scale + POINT)
            pen.ellipse(at, fill=colour if seen == 2 else None, outline=colour)
    text = name.encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font has
    left, top, right, bottom = pen.textbbox((box[0] + 2, box[1] + 1), text)
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=colour)
    pen.text((box[0] + 2, box[1] + 1), text, fill="white")
