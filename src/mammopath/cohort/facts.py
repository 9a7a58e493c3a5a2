"""What a report says of a cohort: sites, labels, spacings, pairing."""

from collections.abc import Sequence
from typing import Any

from mammopath.types import MODALITIES, Pairing, Record


def cohort_facts(records: Sequence[Record]) -> dict[str, Any]:
    """Plain values for JSON: phantom or not, pairing, a row per site and modality."""
    sites = sorted({(r.domain, r.modality) for r in records})
    return {
        "phantom": any(r.attributes.get("phantom") == "yes" for r in records),
        "pairing": pairing(records),
        "sites": [_site([r for r in records if (r.domain, r.modality) == key]) for key in sites],
    }


def pairing(records: Sequence[Record]) -> Pairing:
    """The strongest link between the modalities: true pairs, else labels, else none."""
    keys = [{r.pair_key for r in records if r.modality == m and r.pair_key} for m in MODALITIES]
    labels = [{r.malignant for r in records if r.modality == m and r.malignant in (0, 1)} for m in MODALITIES]
    if keys[0] & keys[1]:
        return "same_patient"
    return "same_label" if labels[0] & labels[1] else "none"


def _site(rows: Sequence[Record]) -> dict[str, Any]:
    return {
        "site": rows[0].domain,
        "modality": rows[0].modality,
        "images": len(rows),
        "patients": len({r.patient for r in rows}) if all(r.patient_known for r in rows) else None,
        "positives": sum(r.malignant == 1 for r in rows),
        "negatives": sum(r.malignant == 0 for r in rows),
        "unknown": sum(r.malignant not in (0, 1) for r in rows),
        "spacing": _spacing(rows),
        "official_split": any(r.official_split for r in rows),
        "sources": ", ".join(sorted({r.image_id.split("/")[0] for r in rows})),
    }


def _spacing(rows: Sequence[Record]) -> str:
    found = [r.spacing.um_x for r in rows if r.spacing]
    if not found:
        return "unknown"
    low, high = f"{min(found):.4g}", f"{max(found):.4g}"
    return f"{low} um" if low == high else f"{low} to {high} um"
