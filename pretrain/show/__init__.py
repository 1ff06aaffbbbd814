"""``densessl show``: what a backbone attends to in two views of an image, and what it matches.

``checkpoint.py`` reads a backbone, ``look.py`` gives it two views, ``matches.py`` computes what
is drawn, ``sections.py`` says which panels a method has, ``panels.py`` draws them, ``picture.py``
puts them on a page.
"""

from .main import main

__all__ = ["main"]
