"""The formulas of released codes, written out, with what they do to memory.

Tested equal to the official numbers in tests/golden (tests/benchmarks/test_official_forms.py).
"""

import torch
import torch.nn.functional as F


def contrast(query, key, queue, temperature):
    """MoCo's and DenseCL's contrast of rows ``[M, D]`` with a queue ``[D, K]``.

    Positive and negative logits are made apart, copied into one ``[M, 1 + K]``, and divided into
    another; the cross entropy keeps a third.
    """
    positive = torch.einsum("nc,nc->n", query, key)[:, None]
    negative = torch.einsum("nc,ck->nk", query, queue)
    logits = torch.cat((positive, negative), dim=1)
    logits = logits / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def best(query, key):
    """DenseCL's match of features ``[B, C, h, w]``: normalised copies, every similarity."""
    query, key = (F.normalize(x.flatten(2), dim=1) for x in (query, key))
    return torch.matmul(query.permute(0, 2, 1), key).argmax(2)


def sets(query, key, mask, queue, temperature):
    """SetSim's loss of its released code: ``[B, N, N + K]`` logits, masks and log-probabilities.

    Two masks of the size of the logits are filled for every step: the denominators' and the
    positives', as floats.
    """
    rows = query.permute(0, 2, 1)
    logits = torch.cat((torch.matmul(rows, key), torch.matmul(rows, queue)), dim=2) / temperature
    member = mask.float()
    in_denominator = torch.cat((member, torch.ones(*mask.shape[:2], queue.shape[1])), dim=2)
    is_positive = torch.cat((member, torch.zeros(*mask.shape[:2], queue.shape[1])), dim=2)
    exponential = torch.exp(logits) * in_denominator
    log_prob = logits - torch.log(exponential.sum(2, keepdim=True))
    mean = (is_positive * log_prob).sum(2) / (member.sum(2) + 1e-8)
    return -(mean.sum(1) / ((member.sum(2) > 0).sum(1) + 1e-8)).mean()


def cosine(p, z):
    """SimSiam's: a module that normalises both."""
    return -torch.nn.CosineSimilarity(dim=1)(p, z.detach()).mean()


def dino(student, teacher, center, crops, student_temperature, teacher_temperature, momentum=0.9):
    """DINO's loss of ``[V B, K]`` and ``[2 B, K]``, and the centre after the step.

    All student logits are divided into a copy; every pair of views has a log-softmax, a product and
    its sum of its own.
    """
    students = (student / student_temperature).chunk(crops)
    teachers = F.softmax((teacher - center) / teacher_temperature, dim=-1).detach().chunk(2)
    total, terms = 0, 0
    for g, q in enumerate(teachers):
        for v, s in enumerate(students):
            if v != g:
                total = total + torch.sum(-q * F.log_softmax(s, dim=-1), dim=-1).mean()
                terms += 1
    moved = center * momentum + teacher.mean(0, keepdim=True) * (1 - momentum)
    return total / terms, moved


def paired(student, teacher, center, student_temperature, teacher_temperature):
    """SCFS' term of local against global features, row by row."""
    p = student / student_temperature
    q = F.softmax((teacher - center) / teacher_temperature, dim=-1).detach()
    return torch.sum(-q * F.log_softmax(p, dim=-1), dim=-1).mean()
