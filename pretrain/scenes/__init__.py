"""A procedural data set of articulated figures, written in the layouts of the real ones."""
