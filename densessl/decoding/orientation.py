"""Upright images: what EXIF's orientation says, and where a box of an upright image is stored."""

from PIL import Image

ORIENTATION = 0x0112  # EXIF, and the tag of a TIFF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPED = (5, 6, 7, 8)  # width and height
ACROSS, DOWN = (2, 3, 7, 8), (3, 4, 6, 7)  # mirrored so, before width and height are swapped
BACK = {6: 8, 8: 6}  # the turn that undoes another; all others undo themselves

Box = tuple[int, int, int, int]  # x1, y1, x2, y2: pixel edges


def orientation_of(image: Image.Image) -> int:
    """EXIF's number, 1 to 8; 1 of an image that is stored upright."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data are no reason to lose an image
        return 1


def turned(box: Box, size: tuple[int, int], turn: int) -> Box:
    """Where ``box`` of a stored image of ``size`` lies once the image is upright."""
    x1, y1, x2, y2 = box
    if turn in ACROSS:
        x1, x2 = size[0] - x2, size[0] - x1
    if turn in DOWN:
        y1, y2 = size[1] - y2, size[1] - y1
    return (y1, x1, y2, x2) if turn in SWAPPED else (x1, y1, x2, y2)


def turned_back(box: Box, size: tuple[int, int], turn: int) -> Box:
    """Where ``box`` of the upright image is stored; ``size``: that of the stored image."""
    upright = size[::-1] if turn in SWAPPED else size
    return turned(box, upright, BACK.get(turn, turn))
