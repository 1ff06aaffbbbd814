"""Predictions to the papers' metrics."""

from .build import build_evaluator, fast_coco, flat_metrics

__all__ = ["build_evaluator", "fast_coco", "flat_metrics"]
