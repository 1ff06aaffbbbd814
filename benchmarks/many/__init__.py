"""Time and memory of what is done with many images, trial records and jobs, against their number.

``prepared.py`` makes n of each on a temporary disk, ``measured.py`` runs the product on them, and
``__main__.py`` prints the table.
"""
