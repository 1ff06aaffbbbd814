"""The dense losses as papers write them and codes usually run them: full matrices, no shortcuts.

What benchmarks/loss_heads.py measures ours against.
"""

import torch
import torch.nn.functional as F

TEMPERATURE = 0.2


def dense(query, key, match, queue):
    """DenseCL eq. 3 by cross entropy over [positive, queue] logits, ``[B * N, 1 + K]``."""
    positive = key.gather(2, match[:, None, :].expand_as(query))
    rows = query.transpose(1, 2).flatten(0, 1)  # [B * N, D]
    same = (query * positive).sum(1).flatten()[:, None]
    logits = torch.cat((same, rows @ queue.T), dim=1) / TEMPERATURE
    return F.cross_entropy(logits, torch.zeros(len(rows), dtype=torch.long))


def sets(query, key, mask, queue):
    """SetSim eq. 8 by log-probabilities of [view, queue] logits, ``[B, N, N + K]``."""
    rows = query.transpose(1, 2)  # [B, N, D]
    logits = torch.cat((rows @ key, rows @ queue.T), dim=2) / TEMPERATURE
    from_queue = mask.new_ones(1, 1, 1).expand(*mask.shape[:2], len(queue))
    exponential = torch.exp(logits) * torch.cat((mask, from_queue), dim=2)
    log_prob = logits - torch.log(exponential.sum(2, keepdim=True))
    positives = torch.cat((mask, ~from_queue), dim=2)
    count = mask.sum(2)  # n_i
    loss = -(positives * log_prob).sum(2) / count.clamp_min(1)
    return (loss.sum(1) / (count > 0).sum(1).clamp_min(1)).mean()


def set_cosine(query, key, mask):
    """SetSim on SimSiam: the mean of all cosines with a position's set."""
    cosine = F.normalize(query, dim=1).transpose(1, 2) @ F.normalize(key, dim=1)  # [B, N, N]
    count = mask.sum(2)
    rows = (cosine * mask).sum(2) / count.clamp_min(1)
    return -(rows.sum(1) / (count > 0).sum(1).clamp_min(1)).mean()


def hough_match(query, key, grid, exponent=3.0, sigma=1.0):
    """HoughCL's match, image by image: a histogram of offsets, smoothed twice by a convolution."""
    h, w = grid
    row, column = torch.arange(h * w) // w, torch.arange(h * w) % w
    y = row[None, :] - row[:, None] + h - 1
    x = column[None, :] - column[:, None] + w - 1
    bins = y * (2 * w - 1) + x  # [N, N]
    reach_y, reach_x = torch.arange(2 - 2 * h, 2 * h - 1), torch.arange(2 - 2 * w, 2 * w - 1)
    squared = reach_y[:, None].square() + reach_x[None, :].square()
    kernel = torch.exp(-squared / (2 * sigma**2))[None, None]
    matches = []
    for q, k in zip(query.flatten(2), key.flatten(2), strict=True):
        a = (F.normalize(q, dim=0).T @ F.normalize(k, dim=0)).clamp_min(0) ** exponent
        votes = torch.zeros((2 * h - 1) * (2 * w - 1)).index_add_(0, bins.flatten(), a.flatten())
        space = votes.view(1, 1, 2 * h - 1, 2 * w - 1)
        for _ in range(2):
            space = F.conv2d(space, kernel, padding=(2 * h - 2, 2 * w - 2))
        matches.append((a * space.flatten()[bins]).argmax(1))
    return torch.stack(matches)


def pixpro(x, values, targets, crops, grid, exponent=2.0, threshold=0.7):
    """PixPro in both directions: propagation, the pairs of each direction, the mean over them."""
    loss = 0.0
    for here, there in ((0, 1), (1, 0)):
        value = values[here].flatten(2)
        unit = F.normalize(x[here].flatten(2), dim=1)
        attention = torch.clamp(unit.transpose(1, 2) @ unit, min=0.0) ** exponent  # [B, N, N]
        y = F.normalize(value, dim=1) @ attention.transpose(1, 2)
        cosine = F.normalize(y, dim=1).transpose(1, 2) @ targets[there]
        pairs = close(crops[here], crops[there], grid, threshold)
        loss = loss - 2 * ((cosine * pairs).sum((1, 2)) / (pairs.sum((1, 2)) + 1e-6)).mean()
    return loss


def close(query, key, grid, threshold):
    """Pairs of cells whose centres are closer than so many diagonals, as floats ``[B, N, N]``."""
    h, w = grid
    centres, diagonals = [], []
    for crop in (query, key):
        width, height = (crop[:, 2] - crop[:, 0]) / w, (crop[:, 3] - crop[:, 1]) / h
        x = crop[:, :1] + (torch.arange(w) + 0.5) * width[:, None]
        y = crop[:, 1:2] + (torch.arange(h) + 0.5) * height[:, None]
        centres.append((x[:, None, :].expand(-1, h, w), y[:, :, None].expand(-1, h, w)))
        diagonals.append(torch.sqrt(width**2 + height**2))
    (x_q, y_q), (x_k, y_k) = (tuple(part.flatten(1) for part in pair) for pair in centres)
    dx, dy = x_q[:, :, None] - x_k[:, None, :], y_q[:, :, None] - y_k[:, None, :]
    distance = torch.sqrt(dx**2 + dy**2) / torch.maximum(*diagonals)[:, None, None]
    return (distance < threshold).float()


def resim(query_map, key_map, boxes_q, boxes_k, valid, scale):
    """One level of ReSim: pooling of all windows, cross entropy over [positive, all cells]."""
    r, r_k = (
        F.normalize(prroi(features, boxes, scale), dim=2)
        for features, boxes in ((query_map, boxes_q), (key_map, boxes_k))
    )
    cells = F.avg_pool2d(key_map, 3, stride=1).flatten(2).transpose(1, 2).flatten(0, 1)
    negatives = F.normalize(cells, dim=1)
    r, r_k = r.flatten(0, 1), r_k.flatten(0, 1)
    logits = torch.cat(((r * r_k).sum(1, keepdim=True), r @ negatives.T), dim=1) / TEMPERATURE
    labels = torch.where(valid.flatten(), 0, -1)
    return F.cross_entropy(logits, labels, ignore_index=-1)


def prroi(features, boxes, scale):
    """The precise mean over every box: ``[B, R, C]``, by the integrals of the hat function."""

    def weights(start, end, cells):
        def integral(edge):
            v = (edge[..., None] - torch.arange(cells)).clamp(-1, 1)
            return 0.5 + v - v * v.abs() / 2

        width = (end - start).clamp_min(1e-6)
        return (integral(end) - integral(start)) / width[..., None]  # [B, R, cells]

    boxes = boxes * scale
    rows = weights(boxes[..., 1], boxes[..., 3], features.shape[2])
    columns = weights(boxes[..., 0], boxes[..., 2], features.shape[3])
    return torch.einsum("brh,bchw,brw->brc", rows, features, columns)


def dino(students, teachers, center):
    """DINO's loss: log-probabilities of all views, and a sum over the pairs of views."""
    log_prob = [F.log_softmax(s / 0.1, dim=1) for s in students]
    prob = [F.softmax((t - center) / 0.04, dim=1) for t in teachers]
    terms = [
        -(q * p).sum(1).mean() for g, q in enumerate(prob) for v, p in enumerate(log_prob) if v != g
    ]
    return sum(terms) / len(terms)
