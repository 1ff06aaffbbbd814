"""What a run on many GPUs sends, saves, reads and loses, by arithmetic (docs/scale.md)."""
