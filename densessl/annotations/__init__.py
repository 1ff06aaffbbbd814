"""Annotations in the forms that people have them in, read to one; and back as COCO's JSON."""

from typing import TYPE_CHECKING

from densessl.core.lazy import lazily

from .model import FORMS, AnnotatedImage, AnnotationSource, Category, Dataset, Fault, Object

if TYPE_CHECKING:
    from .sources import read, recognise


__all__ = [
    "FORMS",
    "Category",
    "Dataset",
    "Fault",
    "Object",
    "AnnotatedImage",
    "AnnotationSource",
    "read",
    "recognise",
]
__getattr__ = lazily(__name__, dict.fromkeys(("read", "recognise"), "sources"))
