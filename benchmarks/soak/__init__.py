"""A long pretraining whose loaders start anew again and again: does anything grow?"""
