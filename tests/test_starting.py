"""Heads that start as a linear probe: the same logits as scikit-learn, and nothing else is changed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mammopath.baselines import linear_model
from mammopath.cohort.loader import label_table
from mammopath.features import SampleBank
from mammopath.predict import embeddings, predict
from mammopath.settings import RunSettings
from mammopath.starting import probe, start_from_probe
from mammopath.tensors import Sample
from mammopath.types import Record
from model_cases import network


def test_the_probe_reads_features_as_they_are():
    generator = np.random.default_rng(0)
    features = generator.normal(3, [1, 20, 0.1, 1], (60, 4))
    labels = (features[:, 1] + generator.normal(0, 10, 60) > 3).astype(int)
    weight, bias = probe(features, labels, c=0.1)
    expected = linear_model(0.1).fit(features, labels).decision_function(features)
    assert features @ weight + bias == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def films():
    """Forty films, brighter where malignant, and a bank of them."""
    records = [
        Record(f"i{k}", Path(f"i{k}.png"), f"p{k}", "s", "mammogram", malignant=float(k % 2))
        for k in range(40)
    ]
    bright = torch.rand(40, generator=torch.Generator().manual_seed(0)) * 0.3 + torch.arange(40) % 2 * 0.2
    valid = torch.ones(24, 16, dtype=torch.bool)
    noise = torch.Generator().manual_seed(1)
    return records, {
        k: Sample(
            torch.rand(1, 24, 16, generator=noise) * 0.2 + bright[k], valid, torch.full((24, 16), torch.nan)
        )
        for k in range(40)
    }


def bank_of(films, net):
    records, kept = films
    labels = label_table(records, {"mammogram": ("s",)})
    return SampleBank(records, labels, RunSettings(), net, kept=kept)


def test_the_network_starts_as_logistic_regression_on_what_its_heads_read(films):
    net = network(dropout=0.3)
    records, bank = films[0], bank_of(films, net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rows = list(range(30))
    chosen = start_from_probe(net, bank, records, rows)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split("heads.")[-1] for name in changed} == {"malignancy.weight", "malignancy.bias"}
    assert len(changed) == 2  # nothing of pathology, which has no rows
    labels = np.array([int(records[r].malignant) for r in rows])
    model = linear_model(chosen["mammogram"].c).fit(embeddings(net, bank, records, rows), labels)
    new = list(range(30, 40))
    expected = model.decision_function(embeddings(net, bank, records, new))
    assert predict(net, bank, records, new).logit == pytest.approx(expected, abs=1e-3)


def test_rows_of_one_class_leave_the_head_as_it_was(films):
    net = network()
    before = net.of("mammogram").heads.malignancy.weight.clone()
    assert start_from_probe(net, bank_of(films, net), films[0], range(0, 30, 2)) == {}
    assert torch.equal(net.of("mammogram").heads.malignancy.weight, before)
