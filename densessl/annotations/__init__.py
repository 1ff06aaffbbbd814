"""Annotations in the forms that people have them in, read to one; and back as COCO's JSON."""

from .model import AnnotatedImage, Category, Dataset, Fault, Object
from .recognise import FORMS, AnnotationSource, read, recognise

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
