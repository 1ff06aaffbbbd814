"""What is done with a correspondence: contrastive losses against a queue.

Plain functions of tensors, float32 inside (float64 where given float64) whatever the autocast
state. None of them normalises its inputs: queries, keys and queue are unit vectors by the methods'
papers, and the caller makes them so.
"""

from pretrain.losses.contrastive import dense_info_nce, info_nce, set_info_nce
from pretrain.losses.queue import queue_logsumexp

__all__ = ["dense_info_nce", "info_nce", "queue_logsumexp", "set_info_nce"]
