"""Files of weights that people have: read without running anything, and the backbone in them."""
