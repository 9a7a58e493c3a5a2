"""What a trained network knows beside the label: the site, the partner in the other modality, the lesion."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from mammopath.features import Bank, TokenBank
from mammopath.files import write_text
from mammopath.localisation import Localisation, View, localise
from mammopath.metrics.intervals import Interval
from mammopath.model.network import Network, Precision
from mammopath.objectives.retrieval import modality_gap
from mammopath.representation import Cohort, joined, matches, probed, site_from_label, site_probe
from mammopath.seen import Seen, look
from mammopath.types import MODALITIES, Modality, Record

FILE = "diagnostics.json"

DEPTHS = ("1", "5", "10")
"""Depths of recall that a results line tells."""

Row = dict[str, Any]


def write_diagnostics(
    folder: Path,
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    *,
    val: Sequence[int],
    test: Sequence[int],
    lesion_map: bool,
    precision: Precision = "fp32",
) -> None:
    """Write ``diagnostics.json`` into a run folder; only images that trained nothing are looked at.

    Args:
        folder: of the run, under construction.
        network: trained.
        bank: where the content comes from.
        records: all of them.
        val: rows of the training sites that selected the network.
        test: rows that test it.
        lesion_map: the method trains the lesion map.
        precision: of the part above the cut.
    """
    see = partial(look, network, bank, records, lesion_map=lesion_map, precision=precision)
    validation, tested = see(val), see(test)
    found = {
        "site_probe": site_probes(network, bank, records, (validation, tested)),
        "modality_gap": None,
        **retrievals(validation, tested),
        "localisation": localisations(tested.views),
    }
    write_text(folder / FILE, json.dumps(_plain(found), indent=2))


def headlines(folder: Path, *, site: str, modality: str) -> Row:
    """What a results line tells of the diagnostics of its run; None where undefined."""
    path = folder / FILE
    found = json.loads(path.read_text()) if path.exists() else {}
    probe = _first(found.get("site_probe", []), {"modality": modality})
    label, patient = (
        _first(found.get("retrieval", []), {"modality": modality, "link": link})
        for link in ("label", "patient")
    )
    where = {"site": site, "modality": modality, "target": "malignant"}
    lesion, attention = (
        _first(found.get("localisation", []), where | {"map": name}) for name in ("lesion", "attention")
    )
    return {
        "site_probe": probe.get("after"),
        "site_probe_before": probe.get("before"),
        "site_probe_chance": probe.get("chance"),
        "retrieval_label": label.get("mean_precision"),
        "retrieval_label_chance": label.get("chance_precision"),
        "retrieval_patient": patient.get("mean_precision"),
        "retrieval_patient_chance": patient.get("chance_precision"),
        **_recalls("label", label),
        **_recalls("patient", patient),
        "modality_gap": found.get("modality_gap"),
        "pointing_lesion": lesion.get("pointing"),
        "pointing_attention": attention.get("pointing"),
        "pointing_chance": attention.get("pointing_chance"),
        "froc_lesion": lesion.get("froc"),
        "froc_attention": attention.get("froc"),
        "froc_chance": attention.get("froc_chance"),
    }


def _recalls(link: str, row: Row) -> Row:
    """Share of queries with a right one among the first so many, and that of a random order."""
    found, chance = row.get("recall", {}), row.get("chance_recall", {})
    told = {f"recall_{k}_{link}": found.get(k) for k in DEPTHS}
    return told | {f"recall_{k}_{link}_chance": chance.get(k) for k in DEPTHS}


def site_probes(network: Network, bank: Bank, records: Sequence[Record], parts: Sequence[Seen]) -> list[Row]:
    """The site read off the embedding (after) and off the frozen trunk at the same block (before)."""
    found = []
    for modality in MODALITIES:
        rows = [row for part in parts for row in part.rows.get(modality, [])]
        cohort = _cohort(records, rows)
        keep = probed(cohort)
        if not keep.any():
            continue
        own = cohort.where(keep)
        after = np.concatenate([e for part in parts for e in part.embedding.get(modality, [])])[keep]
        sites = np.unique(own.sites).tolist()
        row: Row = {"modality": modality, "sites": sites, "images": len(own.sites)}
        row |= {"patients": len(np.unique(own.patients)), "chance": 1 / len(sites)}
        row |= {"from_label": site_from_label(own)} | _limits("after", site_probe(after, own))
        if isinstance(bank, TokenBank):
            block = network.of(modality).top - 1
            before = np.stack([bank.statistics(rows[i])[block].numpy() for i in np.flatnonzero(keep)])
            row |= _limits("before", site_probe(before, own))
        found.append(row)
    return found


def retrievals(val: Seen, test: Seen) -> Row:
    """Patients of each modality search those of the other; validation stands in for a modality not tested."""
    sides = {m: test.people.get(m) or val.people.get(m) for m in MODALITIES}
    known = {m: joined(parts) for m, parts in sides.items() if parts}
    if len(known) < len(MODALITIES):
        return {"retrieval": []}
    rows = []
    for query, gallery in (MODALITIES, MODALITIES[::-1]):
        origin = {"query_part": _part(query, test), "gallery_part": _part(gallery, test)}
        for link, found in matches(known[query], known[gallery]).items():
            rows.append({"modality": query, "link": link} | origin | asdict(found))
    gap = modality_gap(*(known[m].projection for m in MODALITIES))
    return {"retrieval": rows, "modality_gap": gap}


def localisations(images: Sequence[View]) -> list[Row]:
    """Each map of each site, on the lesions of malignant images and on all."""
    groups: dict[tuple[Modality, str], list[View]] = {}
    for view in images:
        groups.setdefault((view.modality, view.site), []).append(view)
    rows = []
    for (modality, site), group in sorted(groups.items()):
        for name, target in product(group[0].heat, ("malignant", "any")):
            found = localise(group, name, malignant=target == "malignant")
            if found:
                row = {"modality": modality, "site": site, "map": name, "target": target}
                rows.append(row | _judged(found))
    return rows


def _judged(found: Localisation) -> Row:
    """One row: every interval as a value with ``_low`` and ``_high``."""
    told = asdict(found)
    gains = {name: told.pop(name) or {} for name in ("over_chance", "over_attention")}
    told |= _limits("pointing", found.pointing) | _limits("froc", found.froc)
    for name, gap in gains.items():
        for measure, limits in gap.items():
            told |= _limits(f"{measure}_{name}", Interval(**limits))
    return told


def _cohort(records: Sequence[Record], rows: Sequence[int]) -> Cohort:
    chosen = [records[r] for r in rows]
    malignant = np.array([r.malignant for r in chosen], dtype=float)
    sites, patients = (np.array([getattr(r, name) for r in chosen]) for name in ("domain", "patient"))
    return Cohort(sites, patients, malignant)


def _part(modality: Modality, test: Seen) -> str:
    return "test" if test.people.get(modality) else "val"


def _limits(name: str, found: Interval) -> Row:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _first(rows: Sequence[Row], where: Row) -> Row:
    """The first row that agrees; an empty one if none does."""
    return next((row for row in rows if where.items() <= row.items()), {})


def _plain(value: Any) -> Any:
    """JSON has no NaN; numbers keep six decimals, far below their noise."""
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return None if isnan(value) else round(value, 6)
    return value
