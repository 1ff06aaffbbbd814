"""Label images that a data set lacks, derived from what it has; no file is ever overwritten."""
