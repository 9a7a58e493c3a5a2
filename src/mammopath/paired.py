"""Patients whom one site has in both modalities: a score from either or both, and what it is worth."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from mammopath.cohort.loader import Pick
from mammopath.cohort.splits import Fold
from mammopath.evaluate import Resampling, Units, result_lines, source_val_auc
from mammopath.features import Bank
from mammopath.metrics.auc import auc_interval
from mammopath.model.network import Network, Precision
from mammopath.predict import Scores, corn_level, scoring
from mammopath.types import MODALITIES, Modality, Record

FILE = "pairs.parquet"

BOTH = "both"
"""Stands for the modality of a line of results that judges patients from all their images."""

READINGS = ("fused", "mean", *MODALITIES)
"""What a patient's score may come from; a method's own is the first of these that it has.

``fused`` is what the network reads from both modalities together, ``mean`` the mean of the two patient
logits (late fusion), a modality the patient logit of that one alone.
"""

SIZE = 32
"""Images of one modality that go through the network together, more where a patient has more."""


@dataclass(frozen=True)
class Pair:
    """One patient: pairing key, site, and rows of the images of each modality."""

    key: str
    site: str
    rows: Mapping[Modality, tuple[int, ...]]


@dataclass(frozen=True)
class Reading:
    """What a network reads from both modalities of a patient: malignancy, and severity category or NaN."""

    logit: float
    level: float = math.nan


def true_pairs(records: Sequence[Record], rows: Sequence[int]) -> list[Pair]:
    """The patients among some rows whom one site has in both modalities, by site and pairing key."""
    found: dict[tuple[str, str], dict[Modality, list[int]]] = {}
    for row in sorted(rows):
        one = records[row]
        if one.pair_key:
            found.setdefault((one.domain, one.pair_key), {}).setdefault(one.modality, []).append(row)
    return [
        Pair(key, site, {m: tuple(own[m]) for m in MODALITIES})
        for (site, key), own in sorted(found.items())
        if len(own) == len(MODALITIES)
    ]


def read_together(
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    rows: Sequence[int],
    *,
    precision: Precision = "fp32",
) -> dict[tuple[str, str], Reading]:
    """What the network's fusion says of each true pair among some rows, by site and pairing key.

    Args:
        network: with fusion; put into evaluation mode and left in it.
        bank: where the content comes from.
        records: all of them.
        rows: which to look at.
        precision: of the part above the cut.

    Raises:
        ConfigError: the network has no fusion.
    """
    found: dict[tuple[str, str], Reading] = {}
    with scoring(network, precision):
        for group in _groups(true_pairs(records, rows)):
            picks = {m: [Pick(row, 0) for pair in group for row in pair.rows[m]] for m in MODALITIES}
            batches = {m: bank.batch(m, own).to(network.device()) for m, own in picks.items()}
            fused = network.fuse({m: network(batch) for m, batch in batches.items()}, batches)
            first = {pair.key: place for pair, place in zip(group, _starts(group), strict=True)}
            index = batches["mammogram"].pair
            place = torch.searchsorted(fused.pairs, index[list(first.values())].to(fused.pairs))
            said = zip(fused.logit[place].tolist(), corn_level(fused.severity)[place].tolist(), strict=True)
            found |= {(p.site, p.key): Reading(*one) for p, one in zip(group, said, strict=True)}
    return found


def pair_table(
    records: Sequence[Record],
    part: Fold,
    scores: Scores,
    fused: Mapping[tuple[str, str], Reading] | None = None,
) -> pl.DataFrame:
    """One row per true pair of a fold's validation and test rows; empty where there is none.

    A patient is malignant where any image of either modality is, and as severe as the worst of them.
    ``reads`` says what the method's own ``logit`` comes from; beside it stand the logits of every reading.

    Args:
        records: all of them.
        part: of the study.
        scores: of the images that the method reads, of one modality or both.
        fused: what its network reads from both, where it learned to.
    """
    said = dict(zip(scores.rows.tolist(), scores.patient_logit.tolist(), strict=True))
    rows = [
        _row(records, pair, said, (fused or {}).get((pair.site, pair.key)))
        | {"part": name, "in_test_split": set(pair.rows["mammogram"]) <= set(part.test_split)}
        for name, own in (("val", part.val), ("test", part.test))
        for pair in true_pairs(records, own)
    ]
    table = pl.DataFrame([row for row in rows if row["reads"]])
    return table.with_columns(score=1 / (1 + (-pl.col("logit")).exp())) if table.height else table


def pair_lines(
    table: pl.DataFrame, facts: Mapping[str, Any], *, resampling: Resampling
) -> list[dict[str, Any]]:
    """Result lines of the tested pairs, one per site, with the AUC of every reading beside the method's own.

    Args:
        table: of ``pair_table``.
        facts: what every line starts with.
        resampling: of patients, for the limits.
    """
    if not table.height:
        return []
    lines = result_lines(table, facts, units=Units("image"), resampling=resampling)
    val = source_val_auc(table, Units("image"))
    known = table.filter(pl.col("malignant").is_not_nan(), part="test")
    return [
        line
        | {"unit": "pair", "source_val_auc": None if math.isnan(val) else round(val, 6)}
        | {"reads": str(known["reads"][0])}
        | _readings(known.filter(site=line["site"]), resampling.of(line["n"]))
        for line in lines
    ]


def _groups(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Pairs of one site whose images fit together; a key is never twice in a group."""
    group: list[Pair] = []
    for pair in pairs:
        longest = max(sum(len(p.rows[m]) for p in (*group, pair)) for m in MODALITIES)
        if group and (longest > SIZE or pair.site != group[0].site):
            yield group
            group = []
        group.append(pair)
    if group:
        yield group


def _starts(group: Sequence[Pair]) -> list[int]:
    """Place of each pair's first mammogram in the batch of its group."""
    sizes = [len(pair.rows["mammogram"]) for pair in group]
    return [sum(sizes[:k]) for k in range(len(sizes))]


def _row(
    records: Sequence[Record], pair: Pair, said: Mapping[int, float], fused: Reading | None
) -> dict[str, Any]:
    images = [records[row] for m in MODALITIES for row in pair.rows[m]]
    alone = {str(m): _mean([said[row] for row in pair.rows[m] if row in said]) for m in MODALITIES}
    both = {"mean": _mean(list(alone.values())), "fused": fused.logit if fused else math.nan}
    logits = alone | both
    reads = next((name for name in READINGS if not math.isnan(logits[name])), "")
    return {
        "pair": pair.key,
        "patient": images[0].patient,
        "site": pair.site,
        "modality": BOTH,
        "malignant": _worst([r.malignant for r in images]),
        "severity": _worst([float(r.severity) for r in images]),
        "severity_level": fused.level if fused else math.nan,
        "reads": reads,
        "logit": logits.get(reads, math.nan),
        **{f"logit_{name}": logits[name] for name in READINGS},
    }


def _readings(test: pl.DataFrame, how: Resampling) -> dict[str, Any]:
    """AUC with limits of each reading that the table has."""
    labels, patients = test["malignant"].to_numpy().astype(np.int64), test["patient"].to_numpy()
    found: dict[str, Any] = {}
    for name in READINGS:
        logits: Float[np.ndarray, " n"] = test[f"logit_{name}"].to_numpy()
        if len(logits) and not np.isnan(logits).any():
            one = auc_interval(labels, logits, patients, draws=how.draws, seed=how.seed, kind=how.kind)
            limits = {f"auc_{name}": one.value, f"auc_{name}_low": one.low, f"auc_{name}_high": one.high}
            found |= {k: None if math.isnan(v) else round(float(v), 6) for k, v in limits.items()}
    return found


def _mean(values: Sequence[float]) -> float:
    """NaN where one is missing, or all are."""
    return float(np.mean(values)) if values else math.nan


def _worst(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return max(known) if known else math.nan
