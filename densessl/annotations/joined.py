"""Images whose channels lie in files of their own: one of the files stands for each image."""

import os
from collections import defaultdict
from collections.abc import Sequence

from densessl.decoding.channel_files import names_of

from .model import AnnotatedImage, Dataset


def join(data: Dataset, words: Sequence[str]) -> None:
    """Of the files of each image keep the first that has objects, else the first, as the image.

    ``words``: as :mod:`densessl.decoding.channel_files` has them; images without any of them stay
    as they are. A file that is not there is a fault, and so are other objects in another file.
    """
    images: dict[tuple[str, ...], list[AnnotatedImage]] = defaultdict(list)
    for picture in data.pictures:
        path = os.fspath(picture.path)
        images[names_of(path, words) or (path,)].append(picture)
    data.pictures = []
    for names, pictures in images.items():
        first, *others = [each for each in pictures if each.objects] or pictures[:1]
        data.pictures.append(first)
        for name in names:
            if not os.path.isfile(name):
                data.fault(first.path, "", f"the file of another channel is not there: {name}")
        for other in others:
            if _objects(other) != _objects(first):
                data.fault(
                    other.path, "", f"other objects than in {first.path.name}, of the same image"
                )
    data.pictures.sort(key=lambda each: each.path)


def _objects(picture: AnnotatedImage) -> list[tuple]:
    return [(each.category, each.box) for each in picture.objects]
