"""The acceptance test of a site: a run's scores on labelled local cases, judged with its study as a prior."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool

from mammopath import RESEARCH_USE_ONLY
from mammopath.bench import prepare_bench
from mammopath.cohort.loader import label_table
from mammopath.cohort.manifest import read
from mammopath.cohort.splits import person_marks
from mammopath.confidence import FILE as CONFIDENCE
from mammopath.confidence import Confidence, read_confidence, settle
from mammopath.errors import ConfigError, DataError
from mammopath.evaluate import Units, by_unit, units_of
from mammopath.familiarity import row_features
from mammopath.metrics.ood import unfamiliar
from mammopath.metrics.siting import Rules
from mammopath.parallel import threads
from mammopath.predict import predict, prediction_table
from mammopath.progress import Track, silent
from mammopath.runs import Run, load_run
from mammopath.slides.learn import features_of, load_slide_run, score_rows
from mammopath.types import Modality, Record
from mammopath.verdict import Criterion, Decision, Sample, Targets, decide, priors_from


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one modality.

    Attributes:
        more: further cases, where the decision is ``more``; None if the site lies too close to a target.
        unfamiliar: share of local cases unlike the training sites; NaN where not known.
    """

    modality: str
    decision: Decision
    why: str
    more: int | None
    cases: int
    patients: int
    positives: int
    earlier_sites: int
    auc: Criterion
    sensitivity: Criterion
    unfamiliar: float


def earlier_lines(
    lines: Sequence[Mapping[str, Any]], *, method: str, modality: str, but: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Held-out lines of a method and modality; sites that are judged now are no earlier ones."""
    return [
        line
        for line in lines
        if line["held_out"] == line["site"]
        and (line["method"], line["modality"], line["adaptation"]) == (method, modality, "none")
        and line["site"] not in but
    ]


def accept_site(
    run: Path,
    manifest: Path,
    lines: Sequence[Mapping[str, Any]],
    *,
    targets: Targets,
    features: Path | None = None,
    rules: Rules | None = None,
    units: Units | None = None,
    track: Track = silent,
) -> list[Verdict]:
    """Score the labelled cases of a manifest and judge the run there, per modality.

    Args:
        run: folder of the run as it would be used.
        manifest: labelled local cases, which took no part in training or selection.
        lines: results lines of the run's study; may be empty.
        targets: AUC and sensitivity.
        features: of the local slides, for a run of slides.
        rules: None for the default ones.
        units: of evaluation; None for the run's own (``data.unit`` and ``data.units``).
        track: shows progress.

    Raises:
        DataError: no labelled case of a modality that the run reads, a patient who trained or selected it, or
            a slide without features.
        ConfigError: a run of slides, and no features.
    """
    loaded, known = load_run(run), _confidence(run)
    _demand_unseen(loaded, read(manifest).records)
    units = units or units_of(loaded.settings.data)
    if "slides" in loaded.facts:
        table = _scored_slides(run, manifest, features)
    else:
        table = _scored(loaded, known, manifest, track=track)
    verdicts = []
    for modality, one in known.items():
        mine = table.filter(pl.col("modality") == modality)
        sample = _sample(by_unit(mine, units), one, units)
        if sample is None:
            continue
        old = earlier_lines(
            lines, method=str(loaded.facts["method"]), modality=modality, but=mine["site"].unique().to_list()
        )
        verdict = _of_modality(modality, sample, old, targets, rules or Rules())
        verdicts.append(replace(verdict, unfamiliar=_share_unfamiliar(mine)))
    if not verdicts:
        raise DataError(f"{manifest}: has no labelled case of a modality that {run} reads")
    return verdicts


def _sample(rows: pl.DataFrame, known: Confidence, units: Units) -> Sample | None:
    """Local cases with what the run would call them, each at the threshold of its site's unit."""
    if not rows.height:
        return None
    called: Bool[np.ndarray, " n"] | None = np.zeros(rows.height, dtype=bool)
    logits, site = rows["logit"].to_numpy(), rows["site"].to_numpy()
    for name in np.unique(site):
        settled = known.of(units.of(name))
        if settled is None or isnan(settled.threshold):
            called = None
        if called is not None and settled is not None:
            called[site == name] = settled.probability(logits[site == name]) >= settled.threshold
    return Sample(
        labels=rows["malignant"].to_numpy().astype(np.int64),
        logits=logits,
        patients=rows["patient"].to_numpy(),
        called=called,
    )


def as_json(verdicts: Sequence[Verdict], run: Path, targets: Targets) -> dict[str, Any]:
    """What ``--out`` writes; the stamp is that of the run, whose study is the prior."""
    told = [{k: _plain(v) for k, v in asdict(one).items()} for one in verdicts]
    head = {"notice": RESEARCH_USE_ONLY, "stamp": run_stamp(run), "run": str(run)}
    return head | {"targets": asdict(targets), "verdicts": told}


def run_stamp(run: Path) -> str:
    """What a reader of anything that a run says must know, as ``run.json`` tells it; empty for nothing."""
    return str(json.loads((run / "run.json").read_text()).get("stamp", ""))


def _of_modality(
    modality: Modality,
    sample: Sample,
    old: Sequence[Mapping[str, Any]],
    targets: Targets,
    rules: Rules,
) -> Verdict:
    decision, why, more, auc, sensitivity = decide(sample, priors_from(old), targets, rules=rules)
    return Verdict(
        modality=modality,
        decision=decision,
        why=why,
        more=more,
        cases=len(sample.labels),
        patients=len(np.unique(sample.patients)),
        positives=int(sample.labels.sum()),
        earlier_sites=len({line["site"] for line in old}),
        auc=auc,
        sensitivity=sensitivity,
        unfamiliar=float("nan"),
    )


def _scored(run: Run, known: Mapping[Modality, Confidence], manifest: Path, *, track: Track) -> pl.DataFrame:
    """Predictions of the manifest's images, with ``familiar_p`` where the run knows what is familiar."""
    data = run.settings.data.model_copy(update={"manifests": (manifest,), "sources": (), "limit": 0})
    prepare = run.settings.prepare.model_copy(update={"draws": 0})
    settings = run.settings.model_copy(update={"data": data, "prepare": prepare})
    precision = settings.train.precision
    with threads(settings.threads):
        bench = prepare_bench(settings, cache=settings.cache or run.folder.parent / "cache", track=track)
        bank = bench.bank(label_table(bench.records, {}), settings, run.network)
        rows = [i for i, r in enumerate(bench.records) if r.modality in known]
        scores = predict(run.network, bank, bench.records, rows, precision=precision)
        p = np.full(len(bench.records), np.nan)
        for modality, one in known.items():
            mine = [i for i in rows if bench.records[i].modality == modality]
            if one.reference and mine:
                p[mine] = one.reference.p(
                    row_features(run.network, bank, bench.records, mine, precision=precision)
                )
    table = prediction_table(bench.records, scores, part=dict.fromkeys(rows, "test"), test_split=set())
    return table.with_columns(familiar_p=pl.Series(p[scores.rows]))


def _scored_slides(run: Path, manifest: Path, features: Path | None) -> pl.DataFrame:
    """Predictions of the manifest's labelled slides; what is familiar, a run of slides does not keep."""
    if features is None:
        raise ConfigError(
            f"{run}: reads features of slides: make those of the local slides as those of its training, with"
            " `mammopath slides features`, and give their folder with --features"
        )
    loaded = load_slide_run(run)
    records = [r for r in read(manifest).records if r.modality == "pathology" and r.malignant in (0, 1)]
    rows = range(len(records))
    with threads(loaded.run.settings.threads):
        scores = score_rows(loaded.network, records, features_of(loaded, features, records), rows)
    table = prediction_table(records, scores, part=dict.fromkeys(rows, "test"), test_split=set())
    return table.with_columns(familiar_p=pl.lit(float("nan")))


def _confidence(run: Path) -> Mapping[Modality, Confidence]:
    """What the run's validation settled; worked out again for a run that did not keep it."""
    if (run / CONFIDENCE).exists():
        return read_confidence(run)
    return settle(pl.read_parquet(run / "predictions.parquet"))


def _demand_unseen(run: Run, records: Sequence[Record]) -> None:
    """Local cases judge only a run that never met their patients.

    Raises:
        DataError: a patient trained or selected the run, or the run does not say who did.
    """
    if "people" not in run.facts:
        raise DataError(f"{run.folder}: does not say who trained it; train the run again with this version")
    learned = set(run.facts["people"])
    shared = sorted({r.patient for r in records if person_marks([r]) & learned})
    if shared:
        raise DataError(
            f"{len(shared)} patients of the manifest trained or selected this run, as {shared[0]}: "
            "they cannot judge it; leave them out"
        )


def _share_unfamiliar(table: pl.DataFrame) -> float:
    p = table["familiar_p"].to_numpy()
    return float("nan") if np.isnan(p).all() else float(unfamiliar(p).mean())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, float):
        return None if isnan(value) else round(value, 4)
    return value
