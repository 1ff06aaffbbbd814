"""Which images keep their labels: nested, by the seed, with the classes in their proportions."""

from collections.abc import Collection, Sequence

STREAM = 0x57D1  # keeps this generator apart from others of the same seed


def draw(classes_of: Sequence[Collection[int]], count: int, seed: int) -> list[int]:
    """The numbers of ``count`` images in the order in which they are drawn; fewer are its start.

    First come images until every class has one, the rarest class first. Then each image is of the
    class that is furthest below its share of all images (iterative stratification, Sechidis et al.
    2011, one image at a time). ``classes_of``: of each image, numbers from 0; none is a class, too.
    """
    import numpy as np  # here alone: the verb's help does without

    images = len(classes_of)
    classes = 1 + max((max(found, default=-1) for found in classes_of), default=-1)
    waiting: list[list[int]] = [[] for _ in range(classes + 1)]
    shuffled = np.random.default_rng((STREAM, seed)).permutation(images).tolist()
    for number in reversed(shuffled):
        for label in classes_of[number] or (classes,):
            waiting[label].append(number)
    totals = np.array([len(numbers) for numbers in waiting], float)
    have = np.zeros(classes + 1)
    first = np.where(totals > 0, 2 * images - totals, 0.0)  # ahead of any that has one already
    first[classes] = 0
    order: list[int] = []
    taken: set[int] = set()
    while len(order) < min(count, images):
        wanted = totals * (len(order) + 1) / images - have + np.where(have == 0, first, 0)
        wanted[[not numbers for numbers in waiting]] = -np.inf
        number = waiting[int(wanted.argmax())].pop()
        if number in taken:
            continue
        taken.add(number)
        order.append(number)
        have[list(classes_of[number]) or [classes]] += 1
    return order
