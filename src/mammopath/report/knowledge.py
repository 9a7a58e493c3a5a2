"""Rows of a report on what the networks know beside the label: site, partner, lesion; means over seeds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from mammopath.report.study import Study, read_diagnostics
from mammopath.report.tables import Line, method_label

Found = Mapping[str, Any]
"""One row of a run's diagnostics."""

DEPTHS = ("1", "5", "10")
"""Depths at which recall is told."""


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """How well the site can be read off a representation, balanced accuracy.

    Attributes:
        site: that was held out.
        before: off the frozen trunk; NaN where the trunk was trained. after: off the embedding.
        from_label: off the label alone. chance: one over the number of sites.
    """

    modality: str
    site: str
    label: str
    images: int
    sites: str
    before: float
    before_low: float
    before_high: float
    after: float
    after_low: float
    after_high: float
    from_label: float
    chance: float


@dataclass(frozen=True, slots=True)
class RetrievalRow:
    """How patients of one modality find those of the other; every measure with its chance level.

    Attributes:
        modality: of the queries. site: that was held out.
        link: what makes a patient the right one.
        recall_1: and so on: share of queries with a right one among so many.
    """

    modality: str
    site: str
    label: str
    link: str
    queries: int
    precision: float
    precision_chance: float
    recall_1: float
    recall_1_chance: float
    recall_5: float
    recall_5_chance: float
    recall_10: float
    recall_10_chance: float
    gap: float


@dataclass(frozen=True, slots=True)
class MapRow:
    """How one map finds lesions of a held-out site.

    Attributes:
        target: lesions of malignant images, or of any.
        pointing_over_chance, froc_over_chance: minus a random token, minus a map of noise.
        pointing_over_attention, froc_over_attention: minus the attention map of the same networks, NaN for
            that map. Limits are of patients, mean over seeds; NaN where the runs did not keep them.
        froc_half: sensitivity at half a false positive per image; and so on.
    """

    modality: str
    site: str
    label: str
    map: str
    target: str
    images: int
    with_lesion: int
    lesions: int
    pointing: float
    pointing_low: float
    pointing_high: float
    pointing_chance: float
    froc: float
    froc_low: float
    froc_high: float
    froc_chance: float
    pointing_over_chance: float
    pointing_over_chance_low: float
    pointing_over_chance_high: float
    pointing_over_attention: float
    pointing_over_attention_low: float
    pointing_over_attention_high: float
    froc_over_chance: float
    froc_over_chance_low: float
    froc_over_chance_high: float
    froc_over_attention: float
    froc_over_attention_low: float
    froc_over_attention_high: float
    froc_half: float
    froc_1: float
    froc_2: float
    froc_4: float

    @property
    def froc_at(self) -> tuple[float, ...]:
        """Sensitivity at 0.5, 1, 2 and 4 false positives per image; none where a run did not keep them."""
        found = (self.froc_half, self.froc_1, self.froc_2, self.froc_4)
        return () if any(math.isnan(value) for value in found) else found


@dataclass(frozen=True)
class Knowledge:
    """Sections Representation and Where it looks."""

    site_probe: Sequence[ProbeRow]
    retrieval: Sequence[RetrievalRow]
    localisation: Sequence[MapRow]


GAINS = tuple(
    f"{measure}_over_{other}" for measure in ("pointing", "froc") for other in ("chance", "attention")
)
"""Differences of a map from something else, each with ``_low`` and ``_high``."""

POINTS = ("froc_half", "froc_1", "froc_2", "froc_4")

Told = Sequence[tuple[Line, Found]]
"""Held-out lines of results with the diagnostics of their runs."""


def told(study: Study) -> Told:
    """Lines of held-out sites whose runs left diagnostics, by modality and site."""
    lines = [line for line in study.lines if line["held_out"] and line["held_out"] == line["site"]]
    sites = list(dict.fromkeys(line["site"] for line in lines))
    lines.sort(key=lambda line: (line["modality"], sites.index(line["site"])))
    found = [(line, read_diagnostics(study.folder, line["run"])) for line in lines]
    return [(line, diagnostics) for line, diagnostics in found if diagnostics]


def probe_rows(runs: Told) -> list[ProbeRow]:
    """One row per held-out site and method."""
    names = [
        *("before", "before_low", "before_high", "after", "after_low", "after_high"),
        *("from_label", "chance"),
    ]
    found = []
    for place, rows in _grouped(runs, "site_probe", ()):
        values = place | {name: _mean(rows, name) for name in names}
        values |= {"images": int(rows[-1]["images"]), "sites": ", ".join(rows[-1]["sites"])}
        found.append(ProbeRow(**values))
    return found


def retrieval_rows(runs: Told) -> list[RetrievalRow]:
    """One row per held-out site, method and link."""
    gaps = [
        (line, {"retrieval": [r | {"gap": d["modality_gap"]} for r in d["retrieval"]]}) for line, d in runs
    ]
    found = []
    for place, rows in _grouped(gaps, "retrieval", ("link",)):
        values = place | {"queries": int(rows[-1]["queries"]), "gap": _mean(rows, "gap")}
        values |= {"precision": _mean(rows, "mean_precision")}
        values |= {"precision_chance": _mean(rows, "chance_precision")}
        values |= {f"recall_{k}": _mean([r["recall"] for r in rows], k) for k in DEPTHS}
        values |= {f"recall_{k}_chance": _mean([r["chance_recall"] for r in rows], k) for k in DEPTHS}
        found.append(RetrievalRow(**values))
    return found


def map_rows(runs: Told) -> list[MapRow]:
    """One row per held-out site, method, map and kind of lesion."""
    counts = ("images", "with_lesion", "lesions")
    names = (
        *("pointing", "pointing_low", "pointing_high", "pointing_chance"),
        *("froc", "froc_low", "froc_high", "froc_chance"),
    )
    found = []
    for place, rows in _grouped(runs, "localisation", ("map", "target")):
        values = place | {n: int(rows[-1][n]) for n in counts} | {n: _mean(rows, n) for n in names}
        values |= {f"{n}{end}": _mean(rows, f"{n}{end}") for n in GAINS for end in ("", "_low", "_high")}
        values |= {n: _mean(_at(rows, k), "at") for k, n in enumerate(POINTS)}
        found.append(MapRow(**values))
    return [_without_kept_gains(row, found) for row in found]


def _without_kept_gains(row: MapRow, rows: Sequence[MapRow]) -> MapRow:
    """The row with differences from its own values where its runs did not keep them; these have no limits."""
    same = (row.modality, row.site, row.label, row.target)
    maps = {r.map: r for r in rows if (r.modality, r.site, r.label, r.target) == same}
    other = {"chance": (row.pointing_chance, row.froc_chance)}
    if row.map != "attention" and "attention" in maps:
        other["attention"] = (maps["attention"].pointing, maps["attention"].froc)
    gaps = {
        f"{measure}_over_{name}": getattr(row, measure) - value
        for name, values in other.items()
        for measure, value in zip(("pointing", "froc"), values, strict=True)
    }
    return replace(row, **{name: gap for name, gap in gaps.items() if math.isnan(getattr(row, name))})


def _grouped(runs: Told, table: str, keys: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], list[Found]]]:
    """Rows of one table by modality, held-out site, method and ``keys``: one for each seed."""
    groups: dict[tuple[str, ...], list[Found]] = {}
    for line, diagnostics in runs:
        label = method_label(line["method"], line["adaptation"], line.get("select", ""))
        for row in diagnostics[table]:
            if row["modality"] == line["modality"] and row.get("site", line["site"]) == line["site"]:
                place = (line["modality"], line["site"], label, *(row[k] for k in keys))
                groups.setdefault(place, []).append(row)
    for place, rows in groups.items():
        yield dict(zip(("modality", "site", "label", *keys), place, strict=True)), rows


def _at(rows: Sequence[Found], place: int) -> list[Found]:
    return [{"at": row["froc_at"][place]} for row in rows if row.get("froc_at")]


def _mean(rows: Sequence[Found], name: str) -> float:
    """Mean over the seeds in which it is known."""
    known = [float(row[name]) for row in rows if row.get(name) is not None]
    return fmean(known) if known else math.nan
