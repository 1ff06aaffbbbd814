"""A long pretraining whose loaders restart again and again: does anything grow?"""
