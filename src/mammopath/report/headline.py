"""What a reader sees first: cards, means with limits, the forest of each site, the card of the models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby, product
from typing import Any

from markupsafe import Markup

from mammopath.report.comparisons import MeanInterval
from mammopath.report.figures import forest_axis, forest_head, forest_row
from mammopath.report.gaps import GapRow, gaps_of
from mammopath.report.overview import order_by_effect
from mammopath.report.study import Study
from mammopath.report.tables import MeanRow, SiteRow, number, signed, signed_limits, with_limits


def cards(study: Study, rows: Sequence[SiteRow]) -> list[tuple[str, str]]:
    """Counts of the study."""
    sites = study.data.get("sites", [])
    patients = [s.get("patients") for s in sites]
    known = [p for p in patients if p is not None]
    return [
        ("sites", str(len({r.site for r in rows}))),
        ("images", f"{sum(s['images'] for s in sites):,}" if sites else "–"),
        ("patients", f"{sum(known):,}" + ("" if len(known) == len(patients) else "+") if known else "–"),
        ("methods", str(len({r.label for r in rows}))),
        ("seeds", str(max((r.seeds for r in rows), default=0))),
        ("runs", str(len(study.runs))),
    ]


def mean_blocks(
    rows: Sequence[MeanRow], limits: Sequence[MeanInterval], gaps: Sequence[GapRow]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Means of each scope with their limits, by falling mean; incomplete methods last."""
    found = {(i.scope, i.label): i for i in limits}
    lost = {(g.scope, g.modality, g.label): g for g in gaps}
    blocks = []
    for scope, group in groupby(rows, lambda r: r.scope):
        members = list(group)
        most = max(r.sites for r in members)
        members.sort(key=lambda r: (r.sites < most, -r.mean_auc if r.mean_auc == r.mean_auc else 1.0))
        told = [_mean(r, found.get((scope, r.label)), most) for r in members]
        for row, kind in product(told, ("mean", "worst")):
            row[f"gap_{kind}"] = _gap(lost.get((kind, scope, row["label"])), row["mean_gap_in_domain"], kind)
        blocks.append((scope, told))
    return blocks


def _gap(found: GapRow | None, value: float, kind: str) -> str:
    if found is None:
        return signed(value) if kind == "mean" else "–"
    return signed_limits(found.gap, found.low, found.high) + (f" ({found.site})" if kind == "worst" else "")


def forest(rows: Sequence[SiteRow], styles: Mapping[str, int], gaps: Sequence[GapRow] = ()) -> dict[str, Any]:
    """Rows of each site by falling AUC, each with its bar."""
    lost = gaps_of(gaps)
    axis = forest_axis([v for r in rows for v in (r.auc, r.auc_low, r.auc_high, r.in_domain_auc)])
    groups = []
    for (modality, site), group in groupby(order_by_effect(rows), lambda r: (r.modality, r.site)):
        lines = [
            asdict(r)
            | {
                "label": r.label,
                "text": with_limits(r.auc, r.auc_low, r.auc_high),
                "gap": _gap(lost.get((r.modality, r.site, r.label)), r.gap_in_domain, "mean"),
                "bar": Markup(  # noqa: S704 - our own SVG
                    forest_row(
                        axis, r.auc, r.auc_low, r.auc_high, reference=r.in_domain_auc, index=styles[r.label]
                    )
                ),
            }
            for r in group
        ]
        groups.append({"modality": modality, "site": site, "rows": lines})
    return {"head": Markup(forest_head(axis)), "groups": groups}  # noqa: S704


def model_card(study: Study, rows: Sequence[SiteRow], stamp: str) -> list[tuple[str, str]]:
    """What a model card says in a few lines."""
    sites = study.data.get("sites", [])
    found = [
        ("Intended use", "Research on domain generalisation in breast imaging. Not for diagnosis."),
        (
            "Not intended",
            "Decisions on patients; screening; other organs; sites unlike those of section Data",
        ),
        ("Trained on", ", ".join(f"{s['site']} ({s['modality']})" for s in sites) or "not recorded"),
        ("Judged at", "each site by models that never saw it; see the worst site, not the mean"),
        ("Input", "mammograms (DICOM, PNG, TIFF, ...) and histology; unpaired or paired by patient"),
        (
            "Output",
            "probability of malignancy, or insufficient; maps as good as section Where it looks says",
        ),
        ("Pairing", str(study.data.get("pairing") or "not recorded").replace("_", " ")),
        ("Known faults", stamp or "none found by the checks"),
    ]
    worst = min((r for r in rows if r.auc == r.auc), key=lambda r: r.auc, default=None)
    if worst:
        found.append(("Worst seen", f"AUC {worst.auc:.2f} at {worst.site} ({worst.label})"))
    return found


def licences(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Encoder, data sets and program with their licences, as card.json tells them; none without it."""
    if not card:
        return []
    encoder = card["encoder"]
    start = "pretrained" if encoder["pretrained"] else "from random weights"
    return [
        ("encoder", f"{encoder['name']}, {start}; {encoder['source']}".rstrip("; "), encoder["licence"]),
        *(("data", f"{s['name']}: {s['about']}", s["licence"]) for s in card["sources"]),
        ("program", "mammopath", card["licence"]),
    ]


def _mean(row: MeanRow, limit: MeanInterval | None, most: int) -> dict[str, Any]:
    auc = with_limits(row.mean_auc, limit.low, limit.high) if limit else number(row.mean_auc)
    return asdict(row) | {"auc": auc, "of": most}
