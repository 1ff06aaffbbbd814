"""Contrast against a queue is attention: log-sum-exp over the queue, and its gradient, together.

    lse_i     = log sum_c exp(q_i . k_c / tau)
    d lse_i   = mean_i / tau,  mean_i = sum_c softmax_c(q_i . k_c / tau) k_c

mean_i is what attention with query q_i and keys = values = queue returns, and lse_i is what its
kernels keep beside it. So the forward pass has the gradient too, no [M, K] tensor exists, and the
queue may be overwritten as soon as the forward pass is done.

Two ways lead there. "attention": one call of PyTorch's fused attention kernel, the way on CUDA.
"blocks": the queue in blocks that stay in cache, the way on CPU (with oneDNN's products it beats
the fused kernel: python -m benchmarks.loss_heads --kernels), and wherever no fused kernel fits.
"""

from concurrent.futures import ThreadPoolExecutor

import torch

from densessl.core.errors import InputError, unknown
from densessl.core.products import product

from ..precision import without_autocast

ROWS, BLOCK, TILE = 2048, 512, 2**21  # queries and at least so many entries at once: 8 MiB
WORTH_THREADS = 2**27  # multiplications
LEAST, MOST = 1e-20, 1e30  # sums of exponentials: in between, no float32 was lost or overflowed
KERNELS = ("auto", "attention", "blocks")


def queue_logsumexp(
    query: torch.Tensor, queue: torch.Tensor, temperature: float, kernel: str = "auto"
) -> torch.Tensor:
    """log sum over the queue of exp(q . k / temperature), exact, for every query: ``[M]``.

    ``query [M, D]`` gets a gradient; ``queue [K, D]`` is a constant, and overwriting it after the
    call does no harm. The result is float32, or float64 where an input is float64. Float32 inputs
    give value and gradient within 1e-5 of float64 (absolute, or relative to the largest gradient,
    which reaches 1 / temperature when a query is itself in the queue); float16 and bfloat16
    inputs give the same value (of the rounded inputs), and a gradient in their own precision.
    An empty queue gives -inf. It cannot be differentiated twice. ``kernel`` is for measurements.
    Raises InputError for shapes that disagree, a temperature that is not positive, or a queue that
    requires a gradient. Source: the denominators of MoCo eq. 1 and SetSim eq. 8.
    """
    temperature = float(temperature)
    _check(query, queue, temperature, kernel)
    if kernel == "auto":
        kernel = "attention" if _fused_kernel_fits(query, queue) else "blocks"
    with without_autocast(query.device):
        return _QueueLogSumExp.apply(query, queue, temperature, kernel, torch.is_grad_enabled())


def _check(query: torch.Tensor, queue: torch.Tensor, temperature: float, kernel: str) -> None:
    if query.ndim != 2 or queue.ndim != 2 or query.shape[1] != queue.shape[1]:
        raise InputError(
            f"queue_logsumexp(): query is {list(query.shape)} and queue {list(queue.shape)}; "
            "they must be [M, D] and [K, D]"
        )
    if not temperature > 0:
        raise InputError(f"queue_logsumexp(): temperature is {temperature}; it must be positive")
    if queue.requires_grad:
        raise InputError("queue_logsumexp(): the queue is a constant; give queue.detach()")
    if kernel not in KERNELS:
        raise unknown("kernel", kernel, KERNELS, where="queue_logsumexp()")


class _QueueLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, queue, temperature, kernel, grad_enabled):
        with_mean = grad_enabled and ctx.needs_input_grad[0]
        run = _attention if kernel == "attention" else _blocks
        lse, mean = run(query, queue, 1 / temperature, with_mean)
        ctx.save_for_backward(mean)
        ctx.temperature, ctx.dtype = temperature, query.dtype
        return lse

    @staticmethod
    def backward(ctx, grad):  # [M]
        if torch.is_grad_enabled():  # create_graph: mean would pass for a constant
            raise RuntimeError("queue_logsumexp() cannot be differentiated twice")
        (mean,) = ctx.saved_tensors
        gradient = (grad / ctx.temperature)[:, None] * mean
        return gradient.to(ctx.dtype), None, None, None, None


# ---------------------------------------------------------------------------------- blocks


def _blocks(query, queue, scale, with_mean, block=None):
    """lse ``[M]`` and mean ``[M, D]`` (None without ``with_mean``), the queue block by block.

    On CPU every thread goes through its own part of the queue by itself, and the parts are merged
    by their lse: were each operation on a block shared among the threads, they would wait for each
    other ten times a block, which on cores that also load data costs more than the arithmetic.
    """
    dtype = torch.promote_types(torch.promote_types(query.dtype, queue.dtype), torch.float32)
    query, queue = query.detach().to(dtype) * scale, queue.to(dtype)
    block = block or min(max(TILE // max(len(query), 1), BLOCK), 4 * BLOCK)
    threads = torch.get_num_threads()
    worth_it = query.numel() * len(queue) >= WORTH_THREADS
    if not (query.device.type == "cpu" and worth_it and torch.backends.openmp.is_available()):
        threads = 1
    if threads == 1:
        return _stream(query, queue, with_mean, block)
    parts = queue.chunk(threads)
    merged = []
    try:  # the number of threads belongs to the calling thread; new ones inherit the last one set
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for rows in query.split(ROWS):
                jobs = [pool.submit(_stream, rows, keys, with_mean, block) for keys in parts]
                merged.append(_merge(job.result() for job in jobs))
    finally:
        torch.set_num_threads(threads)
    lse, mean = zip(*merged, strict=True)
    return torch.cat(lse), torch.cat(mean) if with_mean else None


def _stream(query, queue, with_mean, block):
    """lse and mean of one part of the queue; the queries are already divided by the temperature.

    Logits of unit vectors lie within 1 / temperature, where exponentials need no maximum. Whether
    they did is seen from the sums; on CUDA nobody looks, since the host would have to wait.
    """
    if query.device.type == "cpu":
        mass, mean = _sums(query, queue, with_mean, block)
        within = ((mass > LEAST) & (mass < MOST)).all()  # false for not a number, and for no queue
        if within and (mean is None or mean.isfinite().all()):
            return mass.log(), mean.div_(mass[:, None]) if with_mean else None
    return _online_softmax(query, queue, with_mean, block)


def _sums(query, queue, with_mean, block):
    """sum of exp(s) ``[M]``, and of exp(s) k ``[M, D]``, as they are."""
    mass = query.new_zeros(len(query))
    mean = torch.zeros_like(query) if with_mean else None
    for keys in queue.split(block) if query.numel() and queue.numel() else ():
        p = product(query, keys).exp_()  # [M, block]
        mass += p.sum(1)
        if with_mean:
            mean += product(p, keys.T)
    return mass, mean


def _online_softmax(query, queue, with_mean, block):
    """As ``_stream``, at any size of the logits.

    The running maximum and mass are apart (a running lse would round to its own last bit once a
    block), and the running mean moves towards a block's mean by the block's share of the mass so
    far. Nothing overflows.
    """
    peak = query.new_full((len(query),), -torch.inf)  # max of s so far, [M]
    mass = torch.zeros_like(peak)  # sum of exp(s - peak) so far, [M]
    mean = torch.zeros_like(query) if with_mean else None
    for keys in queue.split(block) if query.numel() and queue.numel() else ():
        s = product(query, keys)  # [M, block]
        block_peak = s.amax(1)
        p = torch.softmax(s, dim=1, out=s)  # in place: new pages would cost as much as the sums
        total = p.sum(1)  # 1 up to the error of softmax's own sum, here taken out
        block_mass = total / p.amax(1)  # the largest p is exp(0) / mass
        higher = torch.maximum(peak, block_peak)
        block_mass *= torch.exp(block_peak - higher)
        mass = mass * torch.exp(peak - higher) + block_mass
        peak = higher
        if with_mean:
            block_mean = product(p, keys.T) / total[:, None]
            mean.lerp_(block_mean, (block_mass / mass)[:, None])
    return peak + mass.log(), mean


def _merge(parts):
    """lse ``[M]`` and mean ``[M, D]`` of the whole queue from those of its parts."""
    lse, mean = zip(*parts, strict=True)
    lse = torch.stack(lse)  # [parts, M]
    if mean[0] is None:
        return torch.logsumexp(lse, dim=0), None
    share = torch.softmax(lse, dim=0)
    return torch.logsumexp(lse, dim=0), torch.einsum("pm,pmd->md", share, torch.stack(mean))


# ------------------------------------------------------------------------- fused attention


def _fused_kernel_fits(query: torch.Tensor, queue: torch.Tensor) -> bool:
    """Whether a CUDA attention kernel takes these inputs as they are."""
    return (
        query.device.type == "cuda"
        and query.dtype == queue.dtype
        and query.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and query.shape[1] % 8 == 0  # the kernels read 16 bytes at a time
        and min(len(query), len(queue)) > 0
    )


def _attention(query, queue, scale, with_mean, heads=None):
    """lse ``[M]`` and mean ``[M, D]`` in float32 (or float64) from one call of a fused kernel.

    Kernels are parallel over heads and blocks of queries only, and here is one head. So the queue
    is cut into ``heads`` parts (views, no copies) that are merged by their lse.
    """
    (m, d), k = query.shape, len(queue)
    heads = heads or _heads(m, k, query.device)
    q = query.expand(1, heads, m, d)
    keys = queue.contiguous().view(1, heads, k // heads, d)
    mean, lse = _kernel(q, keys, scale)  # [1, heads, M, D], [1, heads, >= M]: rows are padded
    accurate = torch.promote_types(mean.dtype, torch.float32)
    mean = mean[0].to(accurate) if with_mean else [None] * heads
    return _merge(zip(lse[0, :, :m].to(accurate), mean, strict=True))


def _heads(m: int, k: int, device: torch.device) -> int:
    """Into how many equal parts to cut a queue of ``k`` so that every processor has work."""
    if device.type != "cuda":
        return 1  # two cores are busy with the blocks of queries
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    heads = 1
    while heads * -(-m // 64) < 2 * processors and k % (2 * heads) == 0 and k // heads > 1024:
        heads *= 2
    return heads


def _kernel(query, keys, scale):
    """Fused attention with values = keys; natural-log lse. Shapes ``[1, heads, length, D]``."""
    aten = torch.ops.aten
    if query.device.type == "cpu":
        return aten._scaled_dot_product_flash_attention_for_cpu(query, keys, keys, scale=scale)
    half = query.dtype in (torch.float16, torch.bfloat16)
    if half and query.shape[3] <= 256 and torch.cuda.get_device_capability(query.device) >= (8, 0):
        return aten._scaled_dot_product_flash_attention(query, keys, keys, scale=scale)[:2]
    return aten._scaled_dot_product_efficient_attention(query, keys, keys, None, True, scale=scale)[
        :2
    ]
