"""What a run may be trusted with: fitted on validation, kept in its folder, met by new cases unchanged."""

import json
import math

import numpy as np
import polars as pl
import pytest
from scipy.special import expit

from mammopath.confidence import Confidence, Reference, judge, read_confidence, settle, write_confidence
from mammopath.errors import DataError
from mammopath.metrics.ood import fit_familiar, mahalanobis, neighbour


def _table(n=400, *, sharp=3.0, seed=0, sites=("a", "b")):
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.4).astype(float)
    logit = sharp * (2 * label - 1 + rng.normal(size=n))
    return pl.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "patient": [f"p{k // 2}" for k in range(n)],
            "site": [sites[k % len(sites)] for k in range(n)],
            "modality": ["mammogram"] * n,
            "laterality": ["L"] * n,
            "malignant": label,
            "logit": logit,
            "patient_logit": logit,
            "score": expit(logit),
            "part": ["val"] * n,
            "in_test_split": [False] * n,
        }
    )


def _reference(seed=0):
    rng = np.random.default_rng(seed)
    familiar = fit_familiar(rng.normal(size=(100, 20)), np.zeros(100))
    held = rng.normal(size=(80, 20))
    return Reference("trunk", familiar, mahalanobis(familiar, held), neighbour(familiar, held))


def test_what_is_written_is_what_is_read(tmp_path):
    found = {"mammogram": Confidence(settle(_table())["mammogram"].settled, _reference())}
    write_confidence(tmp_path, found)
    again = read_confidence(tmp_path)["mammogram"]
    assert again.settled == found["mammogram"].settled
    new = np.random.default_rng(5).normal(size=(30, 20))
    np.testing.assert_allclose(again.reference.p(new), found["mammogram"].reference.p(new), atol=0.02)


def test_it_is_fitted_on_validation_alone_and_calibrates_cases_like_those():
    table = _table()
    other = _table(seed=7, sharp=9.0).with_columns(part=pl.lit("test"))
    settled = settle(pl.concat([table, other]))["mammogram"].settled["image"]
    assert settled == settle(table)["mammogram"].settled["image"]
    assert settled.cases == 400
    # logits of this model are normal about +-sharp, so the likelihood ratio is exp(2 logit / sharp)
    assert settled.temperature == pytest.approx(1.5, rel=0.25)
    new = _table(4000, seed=1)
    judged = judge(settled, new["logit"].to_numpy())
    truth = new["malignant"].to_numpy()
    right = np.where(truth == 1, judged.answer != "not malignant", judged.answer != "malignant")
    assert right.mean() == pytest.approx(0.9, abs=0.03)
    assert (judged.answer == "insufficient").any()


def test_unfamiliar_cases_are_not_answered():
    settled = settle(_table())["mammogram"].settled["image"]
    judged = judge(settled, np.array([9.0, 9.0, 9.0]), np.array([0.5, 0.01, np.nan]))
    assert judged.answer.tolist() == ["malignant", "insufficient", "malignant"]
    assert judged.why[1] == "unlike the training sites"
    assert judged.called.all()


def test_too_few_validation_images_leave_familiarity_unknown_rather_than_certain():
    known, absurd = _reference(), np.full((2, 20), 1e6)
    assert (known.p(absurd) <= 0.05).all()
    few = Reference("trunk", known.familiar, known.distance[:38], known.neighbour[:38])
    assert np.isnan(few.p(absurd)).all()


def test_one_class_settles_little_and_says_so(tmp_path):
    table = _table(60).with_columns(malignant=pl.lit(0.0))
    found = settle(table)
    write_confidence(tmp_path, found)
    settled = read_confidence(tmp_path)["mammogram"].settled["image"]
    assert math.isnan(settled.temperature)
    assert settled.positive == math.inf
    assert set(judge(settled, np.array([-50.0, 50.0])).answer) <= {"insufficient", "malignant"}
    assert settle(table.with_columns(part=pl.lit("test"))) == {}


def test_a_missing_or_damaged_file_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match="train the run again"):
        read_confidence(tmp_path)
    (tmp_path / "confidence.json").write_text(json.dumps({"mammogram": {}}))
    with pytest.raises(DataError, match="damaged"):
        read_confidence(tmp_path)
