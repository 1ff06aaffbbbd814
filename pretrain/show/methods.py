"""Which methods have pictures, and which one a checkpoint gets by itself. Imports nothing heavy."""

METHODS = ("setsim", "houghcl", "densecl", "pixpro", "vader", "resim", "scfs")
JIGSAW = "jigsaw"  # any network's, and of several beside each other
CLASSES = "classes"  # any network's, with labelled images beside
CHOICES = ("auto", "all", *METHODS, JIGSAW, CLASSES)
ALIKE = {"dino": "scfs"}  # trained with local crops, too
GENERAL = "setsim"  # attention and matches tell something of any network
LOCAL_CROPS = {"scfs": 6, CLASSES: 1}  # that are drawn
NEEDS_POSITIONS = ("setsim", "houghcl", "densecl", "pixpro")  # not one position alone


def chosen(asked: str, trained_by: str) -> tuple[str, ...]:
    """The methods to draw: ``asked`` is of ``CHOICES``, ``trained_by`` the checkpoint's method."""
    if asked == "all":
        return METHODS
    if asked != "auto":
        return (asked,)
    own = ALIKE.get(trained_by, trained_by)
    return (own if own in METHODS else GENERAL,)
