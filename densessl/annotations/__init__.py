"""Annotations in the forms that people have them in, read to one; and back as COCO's JSON."""

from .model import Category, Dataset, Fault, Object, Picture
from .recognise import FORMS, Source, read, recognise

__all__ = [
    "FORMS",
    "Category",
    "Dataset",
    "Fault",
    "Object",
    "Picture",
    "Source",
    "read",
    "recognise",
]
