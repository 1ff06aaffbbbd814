"""Masks as polygons: exact outlines along pixel edges, and through pixel centres."""

import numpy as np

# Walking with the mask on the right hand. Direction (dx, dy): the pixel on its right, relative to
# the corner that the step starts from.
RIGHT_PIXEL = {(1, 0): (0, 0), (0, 1): (-1, 0), (-1, 0): (-1, -1), (0, -1): (0, -1)}


def loops(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """The closed walks (corner x, y; one step a pixel edge) around a bool mask [H, W].

    Outer walks go clockwise on the screen, walks around holes the other way. Pixels that touch
    only at a corner belong to different walks (4-connectivity).
    """
    inside = np.pad(mask, 1).astype(np.int8)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}  # corner: directions leaving it

    def add(edge: np.ndarray, direction: tuple[int, int], shift: tuple[int, int]) -> None:
        for y, x in zip(*np.nonzero(edge), strict=True):
            steps.setdefault((int(x) + shift[0], int(y) + shift[1]), []).append(direction)

    down = np.diff(inside, axis=0)[:, 1:-1]  # [H + 1, W]: row y lies between pixels y − 1 and y
    across = np.diff(inside, axis=1)[1:-1]  # [H, W + 1]
    add(down == 1, (1, 0), (0, 0))  # above the mask: to the right
    add(down == -1, (-1, 0), (1, 0))  # below it: to the left
    add(across == 1, (0, -1), (0, 1))  # on its left: up
    add(across == -1, (0, 1), (0, 0))  # on its right: down

    found = []
    while steps:
        corner = start = min(steps)  # no two walks meet at the leftmost corner
        direction = steps[start][0]
        walk: list[tuple[int, int]] = []
        while not walk or corner != start:
            ways = steps[corner]
            sharp = (-direction[1], direction[0])  # a right turn hugs the same pixel
            direction = sharp if sharp in ways else ways[0]
            ways.remove(direction)
            if not ways:
                del steps[corner]
            walk.append(corner)
            corner = (corner[0] + direction[0], corner[1] + direction[1])
        found.append(walk)
    return found


def signed_area(walk: list[tuple[int, int]]) -> float:
    """Pixels enclosed by a walk: positive for an outer one, negative for a hole."""
    x, y = np.array(walk, float).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def edge_polygons(mask: np.ndarray) -> list[list[int]]:
    """Flat polygons [x, y, x, y, …] along pixel edges whose union is exactly ``mask``.

    COCO's polygons cannot have holes: a piece with a hole is cut in two through it.
    """
    walks = loops(mask)
    hole = next((walk for walk in walks if signed_area(walk) < 0), None)
    if hole is None:
        return [_flat(_corners(walk)) for walk in walks]
    xs = [x for x, _ in hole]
    cut = (min(xs) + max(xs)) // 2
    left, right = mask.copy(), mask.copy()
    left[:, cut:], right[:, :cut] = False, False
    return edge_polygons(left) + edge_polygons(right)


def center_polygon(mask: np.ndarray) -> list[tuple[int, int]]:
    """The centres (x, y) of the border pixels of one 4-connected piece, in walking order.

    Filling it with its outline, as Cityscapes does, gives the mask back, holes filled.
    """
    walk = max(loops(mask), key=signed_area)
    centers: list[tuple[int, int]] = []
    for (x, y), (next_x, next_y) in zip(walk, walk[1:] + walk[:1], strict=True):
        dx, dy = RIGHT_PIXEL[next_x - x, next_y - y]
        pixel = (x + dx, y + dy)
        if not centers or centers[-1] != pixel:
            centers.append(pixel)
    return _corners(centers)


def _corners(walk: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The walk without the points that lie on a straight line between their neighbours."""
    kept = []
    for i, (x, y) in enumerate(walk):
        (x0, y0), (x1, y1) = walk[i - 1], walk[(i + 1) % len(walk)]
        if (x - x0, y - y0) != (x1 - x, y1 - y):
            kept.append((x, y))
    return kept or walk


def _flat(points: list[tuple[int, int]]) -> list[int]:
    return [value for point in points for value in point]
