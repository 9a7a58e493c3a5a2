"""The small convolutional network: what it sees, that it learns, that padding says nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mammopath.cohort.splits import Fold
from mammopath.errors import DataError
from mammopath.metrics.ranking import auc
from mammopath.scratch import SmallCNN, cnn_scores, shrunk, together
from mammopath.settings import AugmentSettings, TrainSettings
from mammopath.tensors import Sample
from mammopath.types import Record

SETTINGS = TrainSettings(steps=40, batch=8, lr=3e-3, validate_every=20)


def _sample(seed, malignant, size=(48, 32)):
    generator = torch.Generator().manual_seed(seed)
    image = 0.2 * torch.rand(1, *size, generator=generator) + 0.3
    if malignant:
        y, x = (int(torch.randint(4, s - 12, (1,), generator=generator)) for s in size)
        image[:, y : y + 8, x : x + 8] += 0.4
    return Sample(image, torch.ones(size, dtype=torch.bool), torch.zeros(size))


def _cohort(n=60, label=lambda k: float(k % 2)):
    records = [
        Record(f"i{k}", Path(f"/nowhere/{k}.png"), f"p{k}", "ab"[k % 4 // 2], "mammogram", malignant=label(k))
        for k in range(n)
    ]
    third = n // 3
    parts = [tuple(range(i * third, (i + 1) * third)) for i in range(3)]
    return records, Fold("c", parts[0], parts[1], parts[2], (), ())


def test_it_finds_bright_squares_and_repeats_itself():
    records, part = _cohort()
    samples = {k: _sample(k, r.malignant == 1) for k, r in enumerate(records)}
    found = [
        cnn_scores(samples, records, part, settings=SETTINGS, augment=AugmentSettings(), seed=0)
        for _ in range(2)
    ]
    scores, trained = found[0]
    assert np.array_equal(scores.logit, found[1][0].logit)
    assert scores.rows.tolist() == [*part.val, *part.test]
    test = np.isin(scores.rows, part.test)
    labels = np.array([records[r].malignant for r in scores.rows[test]])
    assert auc(labels, scores.logit[test]) > 0.9
    assert trained["mammogram"].val_auc > 0.9


def test_padding_changes_nothing():
    network = SmallCNN(1).eval()
    small, large = _sample(0, True), _sample(1, False, (96, 64))
    alone = network(*together([small]))
    padded = network(*together([small, large]))[:1]
    assert torch.allclose(alone, padded, atol=1e-5)
    empty = Sample(torch.zeros(1, 32, 32), torch.zeros(32, 32, dtype=torch.bool), torch.zeros(32, 32))
    assert torch.isfinite(network(*together([empty]))).all()


def test_large_images_are_averaged_down():
    sample = _sample(0, True, (900, 300))
    assert shrunk(sample).image.shape == (1, 225, 75)
    assert shrunk(_sample(0, True)).image.shape == (1, 48, 32)


def test_one_class_is_an_error_that_says_what_to_do():
    records, part = _cohort(label=lambda k: 0.0)
    samples = {k: _sample(k, False) for k in range(len(records))}
    with pytest.raises(DataError, match="add a site"):
        cnn_scores(samples, records, part, settings=SETTINGS, augment=AugmentSettings(), seed=0)
