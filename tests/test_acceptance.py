"""The acceptance test of a site: priors, evidence, decisions, and the rates at which it errs."""

import json
import math
import shutil
from dataclasses import replace

import h5py
import numpy as np
import polars as pl
import pytest
from scipy import stats
from scipy.special import expit, logit

from mammopath.acceptance import accept_site, as_json, earlier_lines
from mammopath.bench import prepare_bench
from mammopath.cohort import manifest
from mammopath.cohort.splits import person_marks
from mammopath.config import parse
from mammopath.errors import ConfigError, DataError
from mammopath.evaluate import Units
from mammopath.experiment import run
from mammopath.metrics.siting import (
    GRID,
    Evidence,
    Rules,
    assured,
    auc_evidence,
    hanley_mcneil,
    posterior,
    quantile,
    reaches,
    sensitivity_evidence,
    site_prior,
)
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.settings import LodoSettings
from mammopath.slides.demo import demo_settings
from mammopath.slides.learn import train_slides
from mammopath.slides.train import bag_network
from mammopath.sources import SOURCES
from mammopath.types import Record
from mammopath.verdict import Priors, Sample, Targets, decide, priors_from
from test_lodo import SMALL

VAGUE = Priors(site_prior([]), site_prior([]))
FOUR = [Evidence(v, 0.15) for v in (0.80, 0.84, 0.87, 0.90)]
ASKED = Targets(auc=0.8, sensitivity=0.8)


def _sample(cases, *, truth, seed=0, each=1):
    rng = np.random.default_rng(seed)
    labels = (np.arange(cases) < 0.4 * cases).astype(np.int64)
    shift = math.sqrt(2) * stats.norm.ppf(truth)
    scores = rng.normal(size=cases) + shift * labels
    return Sample(labels, scores, np.arange(cases) // each, scores >= shift - stats.norm.ppf(truth))


def _lines(site, auc, *, positives=80, n=200, method="erm", held_out=None, adaptation="none"):
    return {
        "site": site,
        "held_out": site if held_out is None else held_out,
        "method": method,
        "modality": "mammogram",
        "adaptation": adaptation,
        "auc": auc,
        "auc_low": auc - 0.06,
        "auc_high": auc + 0.04,
        "sensitivity": 0.85,
        "positives": positives,
        "n": n,
    }


def test_hanley_and_mcneil_is_the_spread_of_exponential_scores():
    rng = np.random.default_rng(0)
    sick, well = rng.exponential(4.0, (2000, 30, 1)), rng.exponential(1.0, (2000, 1, 50))
    found = (sick > well).mean(axis=(1, 2))
    assert np.mean(found) == pytest.approx(0.8, abs=0.01)
    assert hanley_mcneil(0.8, 30, 50) == pytest.approx(np.std(found), rel=0.08)


def test_posterior_with_a_normal_prior_is_the_textbook_one():
    prior = np.exp(-0.5 * ((GRID - 1.0) / 0.5) ** 2)
    after = posterior(prior / prior.sum(), Evidence(float(expit(2.0)), 0.25))
    weight = 0.25 / (0.25 + 0.0625)  # 0.5^2 / (0.5^2 + 0.25^2)
    mean, spread = 1.0 + weight * 1.0, math.sqrt(0.25 * (1 - weight))
    assert (after * GRID).sum() == pytest.approx(mean, abs=1e-3)
    assert reaches(after, 0.85) == pytest.approx(stats.norm.sf(logit(0.85), mean, spread), abs=0.01)
    assert quantile(after, 0.975) == pytest.approx(expit(mean + 1.96 * spread), abs=2e-3)


def test_few_earlier_sites_promise_little_and_many_alike_promise_more():
    none, two = site_prior([]), site_prior(FOUR[1:3])
    many = site_prior([Evidence(0.85, 0.1)] * 12)
    spans = [quantile(p, 0.9) - quantile(p, 0.1) for p in (none, two, many)]
    assert spans[0] > spans[1] > spans[2]
    assert quantile(many, 0.5) == pytest.approx(0.85, abs=0.02)
    unlike = site_prior([Evidence(v, 0.05) for v in (0.6, 0.75, 0.9, 0.95)])
    assert quantile(unlike, 0.1) < quantile(site_prior(FOUR), 0.1)
    for prior in (none, two, many):
        assert prior.sum() == pytest.approx(1.0)


def test_evidence_stays_finite_at_the_edges():
    assert sensitivity_evidence(20.0, 20).value < 1
    assert math.isinf(sensitivity_evidence(0.0, 0).error)
    assert auc_evidence(1.0, 10, 10).value == pytest.approx(0.995)
    assert math.isinf(auc_evidence(math.nan, 0, 10).error)
    assert (posterior(VAGUE.auc, auc_evidence(math.nan, 0, 10)) == VAGUE.auc).all()


@pytest.mark.parametrize(("truth", "expected"), [(0.95, "accept"), (0.6, "reject")])
def test_clear_sites_are_decided(truth, expected):
    priors = Priors(site_prior(FOUR), site_prior(FOUR))
    decision, why, more, auc, sensitivity = decide(_sample(300, truth=truth), priors, ASKED, rules=Rules())
    assert decision == expected
    assert why
    assert more == 0
    assert auc.low < auc.value < auc.high
    assert auc.local == pytest.approx(truth, abs=0.06)
    assert (auc.reached > 0.95) == (expected == "accept")
    assert sensitivity.target == 0.8


def test_a_small_sample_is_never_enough_however_good_the_prior():
    sure = site_prior([Evidence(0.95, 0.05)] * 10)
    decision, why, more, _, _ = decide(_sample(12, truth=0.99), Priors(sure, sure), ASKED, rules=Rules())
    assert decision == "more"
    assert "fewer than 10" in why
    assert more >= 10


def test_several_images_of_few_patients_never_decide():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(22), 6)
    labels = (patients < 2).astype(np.int64)
    scores = 9.0 * labels + rng.normal(size=len(labels))
    sure = site_prior([Evidence(0.95, 0.05)] * 10)
    sample = Sample(labels, scores, patients, scores > 4)
    decision, why, more, _, _ = decide(sample, Priors(sure, sure), ASKED, rules=Rules())
    assert (decision, why) == ("more", "fewer than 10 local patients of a class")
    assert more is not None
    assert more >= 8 / (3 / 24), "eight further malignant patients, of whom there are 2 in 22"


def test_a_run_without_a_threshold_is_neither_accepted_nor_rejected():
    sample = _sample(300, truth=0.95)
    unknown = Sample(sample.labels, sample.logits, sample.patients, None)
    sure = site_prior([Evidence(0.95, 0.05)] * 10)
    for priors in (VAGUE, Priors(sure, sure)):
        decision, why, more, auc, sensitivity = decide(unknown, priors, ASKED, rules=Rules())
        assert (decision, more) == ("more", None)
        assert "no threshold" in why
        assert math.isnan(sensitivity.local)
        assert auc.local == pytest.approx(0.95, abs=0.04)


def test_an_open_site_is_told_how_many_more_and_that_many_mostly_decide():
    sample = _sample(60, truth=0.90, seed=3)
    decision, _, more, auc, _ = decide(sample, VAGUE, ASKED, rules=Rules())
    assert decision == "more"
    assert more is not None
    assert 20 <= more <= 3000
    decided = [
        decide(_sample(60 + more, truth=0.90, seed=s), VAGUE, ASKED, rules=Rules(), plan=False)[0] == "accept"
        for s in range(40)
    ]
    assert np.mean(decided) > 0.5
    assert auc.more <= more


def test_more_cases_decide_more_surely():
    chances = assured(site_prior(FOUR), 0.8, np.array([1.0, 0.5, 0.25, 0.1, 0.03]), Rules())
    assert (np.diff(chances) > 0).all()
    assert chances[-1] > 0.8


def test_bad_sites_are_accepted_rarely_and_good_ones_rejected_rarely():
    priors = Priors(site_prior(FOUR), site_prior(FOUR))

    def rate(truth, decision, cases):
        found = [
            decide(_sample(cases, truth=truth, seed=s), priors, ASKED, rules=Rules(), plan=False)[0]
            for s in range(60)
        ]
        return found.count(decision) / 60

    assert rate(0.75, "accept", 200) <= 0.05
    assert rate(0.90, "reject", 200) <= 0.05
    assert rate(0.92, "accept", 400) >= 0.7


def test_several_images_of_a_patient_do_not_count_as_several_patients():
    single, double = _sample(200, truth=0.85), _sample(200, truth=0.85, each=2)
    narrow = decide(single, VAGUE, ASKED, rules=Rules(), plan=False)[4]
    wide = decide(double, VAGUE, ASKED, rules=Rules(), plan=False)[4]
    assert wide.high - wide.low > narrow.high - narrow.low


def test_priors_are_of_earlier_sites_of_the_same_method_only():
    lines = [
        *(_lines(s, v) for s, v in (("a", 0.85), ("a", 0.87), ("b", 0.8), ("here", 0.5))),
        _lines("a", 0.99, held_out=""),
        _lines("a", 0.99, method="irm"),
        _lines("a", 0.99, adaptation="tent"),
    ]
    found = earlier_lines(lines, method="erm", modality="mammogram", but=["here"])
    assert [line["auc"] for line in found] == [0.85, 0.87, 0.8]
    by_hand = site_prior(
        [Evidence(v, (logit(v + 0.04) - logit(v - 0.06)) / (2 * 1.959964)) for v in (0.86, 0.8)]
    )
    np.testing.assert_allclose(priors_from(found).auc, by_hand, rtol=1e-6)


@pytest.fixture(scope="module")
def phantom_run(tmp_path_factory):
    """A run on two sites of a phantom whose third was left out; that one is judged by breasts."""
    folder = tmp_path_factory.mktemp("accept")
    root = folder / "phantom"
    generate(root, PhantomSettings(patients=8, fields=1))
    data = {"sources": [{"source": "phantom", "root": str(root)}], "units": {"site_c": "breast"}}
    settings = parse(LodoSettings, SMALL | {"data": data})
    run(prepare_bench(settings, cache=folder / "cache"), settings, held_out="site_c", folder=folder / "run")
    return folder, manifest.collect(SOURCES["phantom"].index(root), source="phantom", root=root)


def _site_file(folder, every, chosen):
    path = folder / "chosen.parquet"
    manifest.write(manifest.collect(tuple(chosen), source="phantom", root=folder / "phantom"), path)
    return path


def test_a_run_is_judged_at_a_phantom_site_in_the_units_of_that_site(phantom_run):
    folder, every = phantom_run
    mine = [r for r in every.records if r.domain == "site_c"]
    verdicts = accept_site(folder / "run", _site_file(folder, every, mine), [], targets=ASKED)
    assert [v.modality for v in verdicts] == ["mammogram", "pathology"]
    assert {v.decision for v in verdicts} <= {"more", "reject"}
    assert math.isnan(verdicts[0].unfamiliar), "so few validation images cannot say what is familiar"
    told = json.loads(json.dumps(as_json(verdicts, folder / "run", ASKED)))
    mammograms = [r for r in mine if r.modality == "mammogram"]
    breasts = {(r.patient, r.laterality) for r in mammograms}
    assert told["verdicts"][0]["cases"] == len(breasts) < len(mammograms)
    by_image = accept_site(folder / "run", folder / "chosen.parquet", [], targets=ASKED, units=Units("slide"))
    assert by_image[0].cases == len(mammograms), "a slide is one record, settled as an image is"


@pytest.mark.parametrize("part", ["train", "val"])
def test_patients_who_trained_or_selected_a_run_cannot_judge_it(phantom_run, part):
    folder, every = phantom_run
    selected = set(pl.read_parquet(folder / "run" / "predictions.parquet").filter(part="val")["patient"])
    learned = [r for r in every.records if r.domain == "site_a"]
    chosen = [r for r in learned if (r.patient in selected) == (part == "val")][:1]
    strangers = [r for r in every.records if r.domain == "site_c"]
    with pytest.raises(DataError, match="1 patients of the manifest trained or selected this run"):
        accept_site(folder / "run", _site_file(folder, every, strangers + chosen), [], targets=ASKED)
    renamed = [replace(chosen[0], patient="another name", image_id="x")]
    if chosen[0].pair_key:
        with pytest.raises(DataError, match="another name"):
            accept_site(folder / "run", _site_file(folder, every, renamed), [], targets=ASKED)


def test_a_run_that_does_not_say_who_trained_it_is_not_judged(phantom_run, tmp_path):
    folder, every = phantom_run
    shutil.copytree(folder / "run", tmp_path / "old")
    facts = json.loads((tmp_path / "old" / "run.json").read_text())
    assert not any(r.patient in json.dumps(facts) for r in every.records), "hashes, no names"
    facts.pop("people")
    (tmp_path / "old" / "run.json").write_text(json.dumps(facts))
    mine = [r for r in every.records if r.domain == "site_c"]
    with pytest.raises(DataError, match="does not say who trained it"):
        accept_site(tmp_path / "old", _site_file(folder, every, mine), [], targets=ASKED)


def _slides(folder, site, patients, *, shift=3.0):
    """Slides of a site, a patient each, every other malignant, with features as of another program."""
    width = bag_network(demo_settings([])).shape.width
    records = []
    for k in range(patients):
        name, rng = f"{site}_{k}", np.random.default_rng([ord(site), k])
        values = rng.normal(size=(12, width)) + shift * (k % 2) * np.linspace(-1, 1, width)
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["features"], file["coords"] = values.astype("f4"), np.zeros((12, 2), int)
        path = folder / f"{name}.tif"
        path.touch()
        records.append(Record(name, path, f"p-{name}", site, "pathology", float(k % 2)))
    return records


def test_a_run_of_slides_is_judged_on_features_of_slides_that_did_not_train_it(tmp_path):
    learned = [r for site in "ab" for r in _slides(tmp_path, site, 16)]
    local = _slides(tmp_path, "c", 40)
    settings = demo_settings(["train.steps=40", "train.validate_every=20"])
    facts = train_slides(learned, tmp_path, tmp_path / "run", settings)
    assert set(facts["people"]) <= person_marks(learned)
    assert not any(r.patient in json.dumps(facts) for r in learned), "hashes, no names"
    given = manifest.collect(local, source="table", root=tmp_path)
    manifest.write(given, tmp_path / "local.parquet")
    with pytest.raises(ConfigError, match="--features"):
        accept_site(tmp_path / "run", tmp_path / "local.parquet", [], targets=ASKED)
    (verdict,) = accept_site(
        tmp_path / "run", tmp_path / "local.parquet", [], targets=ASKED, features=tmp_path
    )
    assert (verdict.modality, verdict.cases, verdict.positives) == ("pathology", 40, 20)
    assert verdict.auc.local > 0.9
    own = replace(learned[0], image_id="again")
    manifest.write(manifest.collect([*local, own], source="table", root=tmp_path), tmp_path / "more.parquet")
    with pytest.raises(DataError, match="1 patients of the manifest trained or selected this run"):
        accept_site(tmp_path / "run", tmp_path / "more.parquet", [], targets=ASKED, features=tmp_path)
    (tmp_path / "c_3.h5").unlink()
    with pytest.raises(DataError, match="no features of 1 slides"):
        accept_site(tmp_path / "run", tmp_path / "local.parquet", [], targets=ASKED, features=tmp_path)
