"""Adapt a trained run to the unlabelled cases of a site, into a run folder of its own."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from mammopath.adaptation.adapt import adapt
from mammopath.adaptation.methods import ADAPTATIONS
from mammopath.adaptation.values import AdaptationReport, Adapted, SourceFacts
from mammopath.bench import Bench, prepare_bench
from mammopath.cohort.loader import Pick, label_table
from mammopath.cohort.splits import fold
from mammopath.errors import AdaptationError
from mammopath.experiment import Outcome
from mammopath.features import Bank
from mammopath.files import sha256, write_text
from mammopath.images.packed import file_of
from mammopath.model.network import Network
from mammopath.parallel import threads
from mammopath.predict import Scores, predict, prediction_table, write_table
from mammopath.progress import Track, silent
from mammopath.runs import Run, load_run, save_facts, save_model, writing_folder
from mammopath.settings import AdaptSettings, RunSettings
from mammopath.site_stream import at_cut, site_stream
from mammopath.types import MODALITIES, Modality, Record

PROBE = 64
"""Validation images of the training sites on which calls should not change."""


def adapt_to_held_out(
    bench: Bench, source: Run, *, method: str, settings: AdaptSettings, folder: Path
) -> Outcome:
    """Adapt a run to the site that it left out, and score that site; labels are read only to be judged by.

    Validation images keep the source's scores, so the threshold stays the source's.

    Raises:
        AdaptationError: the method cannot be carried out on these cases.
    """
    started = time.monotonic()
    told = source.settings
    part = fold(
        bench.records,
        held_out=source.facts["held_out"],
        validation=told.data.validation,
        test_share=told.data.test_share,
        seed=told.seed,
    )
    with threads(told.threads), writing_folder(folder) as building:
        bank = bench.bank(label_table(bench.records, source.facts["sites"]), told, source.network)
        facts = {
            m: source_facts(source.network, bank, bench.records, train=part.train, probe=part.val, modality=m)
            for m in MODALITIES
        }
        test = [r for r in part.test if bench.records[r].modality in source.facts["sites"]]
        network, adapted = adapt_network(
            bench, source.network, test, told=told, method=method, settings=settings, facts=facts
        )
        scores = site_scores(network, bank, bench.records, test, adapted, precision=told.train.precision)
        named = dict.fromkeys(part.test, "test")
        tested = prediction_table(bench.records, scores, part=named, test_split=set(part.test_split))
        before = pl.read_parquet(source.folder / "predictions.parquet")
        table = pl.concat([before.filter(part="val"), tested], how="diagonal")
        write_table(building / "predictions.parquet", table, stamp=source.facts.get("stamp", ""))
        reports = [one.report for one in adapted.values()]
        write_adapted(building, source, network, reports, bench.records, seconds=time.monotonic() - started)
    told_before = {name: source.facts.get(name, {}) for name in ("best_step", "counters", "idle")}
    return Outcome(table, told_before | {"adaptation": summary(reports)})


def adapt_to_site(
    run: Path,
    manifest: Path,
    probe: Path | None,
    *,
    method: str,
    settings: AdaptSettings,
    folder: Path,
    track: Track = silent,
) -> list[AdaptationReport]:
    """Adapt a run to all cases of a manifest and write the adapted run with its scores; no label is read.

    Args:
        run: folder of the source.
        manifest: cases of the new site.
        probe: cases of the training sites, for the guard; what a run keeps holds no images.
        method: a key of the table of adaptations.
        settings: of the adaptation.
        folder: the adapted run; must not exist.
        track: shows progress.
    """
    known_adaptation(method)
    source, started = load_run(run), time.monotonic()
    with writing_folder(folder) as building, threads(source.settings.threads):
        told = _told(source, manifest)
        bench, bank = _bench(source, told, track=track)
        facts = {m: SourceFacts(source.facts.get("prevalence", {}).get(m, 0.5)) for m in MODALITIES}
        if probe:
            old, old_bank = _bench(source, _told(source, probe), track=track)
            rows = range(len(old.records))
            facts = {
                m: source_facts(source.network, old_bank, old.records, train=rows, probe=rows, modality=m)
                for m in MODALITIES
            }
        cases = [i for i, r in enumerate(bench.records) if r.modality in source.facts["sites"]]
        network, adapted = adapt_network(
            bench,
            source.network,
            cases,
            told=told,
            method=method,
            settings=settings,
            facts=facts,
            track=track,
        )
        precision = source.settings.train.precision
        scores = site_scores(network, bank, bench.records, cases, adapted, precision=precision)
        named = dict.fromkeys(cases, "test")
        write_table(
            building / "predictions.parquet",
            prediction_table(bench.records, scores, part=named, test_split=set()),
            stamp=source.facts.get("stamp", ""),
        )
        reports = [one.report for one in adapted.values()]
        write_adapted(building, source, network, reports, bench.records, seconds=time.monotonic() - started)
    return reports


def _told(source: Run, manifest: Path) -> RunSettings:
    data = source.settings.data.model_copy(update={"manifests": (manifest,), "sources": (), "limit": 0})
    prepare = source.settings.prepare.model_copy(update={"draws": 0})
    return source.settings.model_copy(update={"data": data, "prepare": prepare})


def _bench(source: Run, told: RunSettings, *, track: Track) -> tuple[Bench, Bank]:
    cache = told.cache or source.folder.parent / "cache"
    bench = prepare_bench(told, cache=cache, track=track)
    return bench, bench.bank(label_table(bench.records, {}), told, source.network)


def adapt_network(
    bench: Bench,
    network: Network,
    rows: Sequence[int],
    *,
    told: RunSettings,
    method: str,
    settings: AdaptSettings,
    facts: Mapping[Modality, SourceFacts],
    track: Track = silent,
) -> tuple[Network, dict[Modality, Adapted]]:
    """Adapt to the rows of each modality in turn; what moves belongs to one modality alone.

    Args:
        bench: the site's records and the store of their views.
        network: the source.
        rows: the cases.
        told: settings of the source's run.
        method: a key of the table of adaptations.
        settings: of the adaptation.
        facts: of the source, for each modality.
        track: shows progress.

    Raises:
        AdaptationError: the method needs style-only views and there are none, or it cannot be carried out.
    """
    found: dict[Modality, Adapted] = {}
    for modality in MODALITIES:
        mine = [r for r in rows if bench.records[r].modality == modality]
        if mine:
            chosen = ADAPTATIONS[method]
            stream = site_stream(
                bench, network, mine, told=told, settings=settings, method=chosen, track=track
            )
            try:
                done = adapt(network, stream, method=method, settings=settings, source=facts[modality])
            except AdaptationError as error:
                raise _with_files(error, bench.records) from None
            found[modality] = done
            network = found[modality].network
    if not found:
        raise AdaptationError("there is no case of a modality that this run reads")
    return network, found


def _with_files(error: AdaptationError, records: Sequence[Record]) -> AdaptationError:
    """The error, with the files of the rows that it blames."""
    files = "".join(f"\n  row {row}: {records[row].path}" for row in error.rows[:10])
    return AdaptationError(f"{error}{files}", rows=error.rows)


def source_facts(
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    *,
    train: Sequence[int],
    probe: Sequence[int],
    modality: Modality,
) -> SourceFacts:
    """What the training sites leave behind: prevalence, and validation images spread evenly as a probe."""
    labels = [records[r].malignant for r in train if records[r].modality == modality]
    known = [label for label in labels if label in (0, 1)]
    prevalence = float(np.clip(np.mean(known), 0.01, 0.99)) if known else 0.5
    mine = [r for r in probe if records[r].modality == modality]
    chosen = mine[:: max(1, len(mine) // PROBE)][:PROBE]
    batches = (at_cut(network, bank.batch(modality, [Pick(r, 0) for r in chosen])),) if chosen else ()
    return SourceFacts(prevalence=prevalence, probe=batches)


def site_scores(
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    rows: Sequence[int],
    adapted: Mapping[Modality, Adapted],
    *,
    precision: Literal["fp32", "bf16"],
) -> Scores:
    """Scores of the site: of the final network where it was calibrated, else as each case was answered."""
    found = predict(network, bank, records, rows, precision=precision)
    logit = dict(zip(found.rows.tolist(), found.logit.tolist(), strict=True))
    for one in adapted.values():
        if one.report.mode != "calibrate":
            logit |= dict(zip(one.report.rows, one.scores.tolist(), strict=True))
    answered = np.array([logit[int(r)] for r in found.rows])
    moved = _patient_means(records, found.rows, answered - found.logit)
    return replace(found, logit=answered, patient_logit=found.patient_logit + moved)


def _patient_means(
    records: Sequence[Record], rows: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """For each image, the mean over its patient's images of the same modality.

    A stream is answered image by image, so no network ever pools a patient's images as they were answered:
    the patient moves as its images do on average.
    """
    keys = [(records[int(r)].modality, records[int(r)].domain, records[int(r)].patient) for r in rows]
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    patients = np.array([place[key] for key in keys], dtype=np.int64)
    count = np.bincount(patients, minlength=len(place))
    return (np.bincount(patients, values, minlength=len(place)) / np.maximum(count, 1))[patients]


KNOWLEDGE = ("confidence.json", "familiar.safetensors", "evidence.json", "evidence.safetensors")
"""What a run knows beside its weights, from the training sites: the source's, as it was before adapting."""


def write_adapted(
    folder: Path,
    source: Run,
    network: Network,
    reports: Sequence[AdaptationReport],
    records: Sequence[Record],
    *,
    seconds: float,
) -> None:
    """Write weights, settings and what moved, by how much, on which images.

    What the source knows of its training sites is carried along: temperature, threshold and references are
    the source's own, from its scores on source validation, and run.json says so.
    """
    save_model(folder, network.trained_state(), source.settings)
    told = [{**asdict(r), "images": _images(r, records)} for r in reports]
    write_text(folder / "adaptation.json", json.dumps(told, indent=2))
    for name in KNOWLEDGE:
        if (source.folder / name).exists():
            shutil.copyfile(source.folder / name, folder / name)
    same = ("held_out", "method", "seed", "select", "sites", "best_step", "people", "stamp", "prevalence")
    more = ("recipe", "counters", "idle", "units")
    kept = {name: source.facts[name] for name in (*same, *more) if name in source.facts}
    facts = {"source": source.folder.name, "source_sha256": source.facts["model_sha256"]}
    facts |= {"confidence_of": "the source, before it was adapted", "seconds": round(seconds, 1)}
    save_facts(folder, kept | facts)


def _images(report: AdaptationReport, records: Sequence[Record]) -> list[dict[str, object]]:
    """Names and hashes of the files of the cases, and whether each was learned from."""
    files = [file_of(records[row].path) for row in report.rows]
    hashes = {file: sha256(file) for file in dict.fromkeys(files)}
    return [
        {"image_id": records[row].image_id, "sha256": hashes[file], "learned": learned}
        for row, file, learned in zip(report.rows, files, report.learned, strict=True)
    ]


def summary(reports: Sequence[AdaptationReport]) -> dict[str, dict[str, object]]:
    """What a result line says of an adaptation, by modality."""
    return {
        r.modality: {
            "decision": r.decision,
            "reasons": list(r.reasons),
            "moved": len(r.moved),
            "relative": round(r.relative, 6),
            "changed": round(r.adapted_cases / max(1, r.cases), 6),
            "rules": dict(r.rules),
            "cases": r.cases,
            "used": r.used,
            "rollbacks": r.rollbacks,
        }
        for r in reports
    }


def known_adaptation(name: str) -> str:
    """The name, if it is in the table.

    Raises:
        AdaptationError: it is not.
    """
    if name not in ADAPTATIONS:
        raise AdaptationError(f"there is no adaptation {name!r}; there are {', '.join(ADAPTATIONS)}")
    return name
