"""``densessl study``: is pretraining worth it on one's own images, and how many labels it saves."""
