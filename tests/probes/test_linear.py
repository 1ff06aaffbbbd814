"""The linear probe has the optimum of multinomial logistic regression, by Newton's method."""

import weakref

import numpy as np
import pytest
import torch

from densessl import probes


def case(n=200, channels=5, classes=4, seed=0):
    """Features of other scales and places, with classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, channels, generator=generator, dtype=torch.float64)
    x = centres[labels] + torch.randn(n, channels, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(-2, 1, channels, dtype=torch.float64) + 3
    return x, labels


def newton(x, y, l2, steps=60):
    """Probabilities at the optimum of mean cross-entropy + l2/2 · ‖W‖²; y [N, classes] weights."""
    x = np.hstack([x, np.ones((len(x), 1))])
    n, classes, total = x.shape[1], y.shape[1], y.sum()
    penalty = np.tile(np.r_[np.full(n - 1, l2), 0], classes)
    theta = np.zeros(n * classes)
    m = y.sum(1)
    for _ in range(steps):
        logits = x @ theta.reshape(classes, n).T
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        gradient = ((p * m[:, None] - y).T @ x / total).ravel() + penalty * theta
        hessian = np.diag(penalty)
        for a in range(classes):
            for b in range(classes):
                w = m * p[:, a] * ((a == b) - p[:, b]) / total
                hessian[a * n : (a + 1) * n, b * n : (b + 1) * n] += (x * w[:, None]).T @ x
        theta -= np.linalg.lstsq(hessian, gradient, rcond=1e-14)[0]  # biases: one too many
    assert np.abs(gradient).max() < 1e-10
    return p


def exact(x, labels, classes, **options):
    return probes.linear_probe(
        x, labels, classes, dtype=torch.float64, tolerance=1e-8, iterations=2000, **options
    )


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_equals_newtons_method(l2):
    x, labels = case()
    found = exact(x, labels, 4, l2=l2)
    assert found.converged
    expected = newton(x.numpy(), np.eye(4)[labels], l2)
    np.testing.assert_allclose(found.logits(x).softmax(1), expected, atol=1e-6)


def test_equals_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels = case()
    C = 0.7
    theirs = linear_model.LogisticRegression(C=C, tol=1e-12, max_iter=1000, solver="newton-cg")
    theirs.fit(x, labels)
    found = exact(x, labels, 4, l2=1 / (C * len(x)))
    np.testing.assert_allclose(found.logits(x).softmax(1), theirs.predict_proba(x), atol=1e-6)


def test_batch_norm_is_a_regression_on_normalised_features():
    x, labels = case()
    labels[:20] = 255  # neither trained on nor in the statistics
    found = exact(x, labels, 4, l2=1e-2, batch_norm=True)
    kept = x[20:].numpy()
    z = (kept - kept.mean(0)) / np.sqrt(kept.var(0) + 1e-5)
    expected = newton(z, np.eye(4)[labels[20:]], 1e-2)
    np.testing.assert_allclose(found.logits(x[20:]).softmax(1), expected, atol=1e-6)
    plain = exact(x, labels, 4, l2=1e-2)
    assert not torch.allclose(plain.logits(x), found.logits(x), atol=0.01)


def test_pixels_weigh_a_position():
    x, labels = case(60, 3, 3)
    counts = torch.nn.functional.one_hot(labels, 3) * 2
    counts[::3, 1] += 1
    counts[5] = 0
    found = exact(x, counts, 3, l2=1e-2)
    expected = newton(x.numpy(), counts.numpy().astype(float), 1e-2)
    np.testing.assert_allclose(found.logits(x).softmax(1), expected, atol=1e-6)


def test_blocks_and_single_precision_give_the_same(monkeypatch):
    x, labels = case()
    whole = exact(x, labels, 4, l2=1e-2)
    monkeypatch.setattr("densessl.probes.rows.BLOCK", 100)  # values: 20 rows
    blocks = exact([x[:1], x[1:90].clone(), x[90:]], labels, 4, l2=1e-2)
    torch.testing.assert_close(whole.logits(x), blocks.logits(x), atol=1e-6, rtol=0)
    single = probes.linear_probe(x.float(), labels, 4, l2=1e-2)
    assert single.gradient < 1e-4 and single.weight.dtype == torch.float32  # its rounding: 1e-5
    torch.testing.assert_close(
        single.logits(x.float()).softmax(1).double(), whole.logits(x).softmax(1), atol=1e-3, rtol=0
    )


def test_maps_are_a_convolution_and_missing_classes_are_never_predicted():
    x, labels = case(48, 6, 3)
    found = probes.linear_probe(x, torch.where(labels == 1, -1, labels), 5, l2=1e-3)
    maps = x.float().view(2, 4, 6, 6).permute(0, 3, 1, 2)
    assert found.logits(maps).shape == (2, 5, 4, 6)
    assert torch.equal(found.predict(maps).flatten(), found.predict(x.float()))
    assert set(found.predict(x).tolist()) <= {0, 2}
    up = torch.nn.functional.interpolate(found.logits(maps), scale_factor=3, mode="bilinear")
    assert up.isfinite().all() and set(up.argmax(1).unique().tolist()) <= {0, 2}


def test_features_of_files_are_read_again_for_each_step_and_never_held():
    x, labels = case(2000, 6)

    class Files:
        readings, alive, most = 0, 0, 0

        def __iter__(self):
            self.readings += 1
            for part in x.split(250):
                block = part.float()
                self.alive += 1
                self.most = max(self.most, self.alive)
                weakref.finalize(block, self.forget)
                yield block
                del block

        def forget(self):
            self.alive -= 1

    files = Files()
    found = probes.linear_probe(files, labels, 4)
    assert files.readings > found.iterations > 3
    assert files.most <= 2 and files.alive <= 1


def test_what_cannot_be_trained_on_is_refused():
    x, labels = case(20, 2, 2)
    for wrong in (
        (x, torch.full_like(labels, 255)),
        (x, labels[:10]),
        (x[:10], labels),
        (iter([x]), labels),
        (x.masked_fill(x > 3, torch.inf), labels),
    ):
        with pytest.raises(ValueError):
            probes.linear_probe(wrong[0], wrong[1], 2)
