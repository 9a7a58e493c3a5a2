"""The values of a prediction: the case that goes in, what is said of it, and how both stand on disk."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mammopath import RESEARCH_USE_ONLY
from mammopath.images.geometry import Frame
from mammopath.maps.values import AttentionMap, Box
from mammopath.metrics.maps import UNTESTED
from mammopath.types import Modality, Record, Skipped

SEVERITY_IS = "uncalibrated probabilities of an ordinal category, not the Nottingham grade"


@dataclass(frozen=True)
class Case:
    """One patient: any number of mammograms and of tissue images, at least one in all."""

    name: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Score:
    """What is said of one unit.

    Attributes:
        unit: ``image``, ``slide`` (all of its fields), ``breast``, ``patient`` (one modality) or ``both``
            (both modalities read together).
        which: image, side or patient.
        modality: of the unit; ``both`` for the last one.
        logit: as the network gave it.
        probability: of malignancy, calibrated on source validation where ``calibrated``.
        answer: ``malignant``, ``not malignant`` or ``insufficient``; why: the reason of the last.
        labels: conformal set, of ``not malignant`` and ``malignant``.
        familiar_p: p-value of being like the training sites; None where not known.
        low: of the Venn-Abers interval of the probability; high: likewise; None where there are no cases.
        cases: validation cases that calibration rests on.
    """

    unit: str
    which: str
    modality: str
    logit: float
    probability: float
    answer: str
    why: str = ""
    labels: tuple[str, ...] = ()
    familiar_p: float | None = None
    calibrated: bool = False
    cases: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Spot:
    """A suspicious region of one image, in level-0 pixels.

    Attributes:
        image_id: of the image.
        number: from 1, the most suspicious first.
        score: highest value of the lesion map in it (probability, uncalibrated).
        box: around the region. contour: around it where the map falls below the threshold.
        point: middle of the highest token, x and y.
        mm: width and height in millimetres, or None where the spacing is unknown; area_mm2 likewise.
        cells: its tokens, as rows and columns of the map.
    """

    image_id: str
    number: int
    score: float
    box: Box
    contour: tuple[tuple[float, float], ...]
    point: tuple[float, float]
    mm: tuple[float, float] | None
    area_mm2: float | None
    cells: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Patch:
    """A piece of an image that a link points to.

    Attributes:
        image_id: of the image.
        box: in level-0 pixels; None where the image of a reference is no longer there.
        weight: share of the region's link, 0 to 1; of references, relative to the best one.
        cell: row and column in the image's map.
        whose: empty for this patient; for a reference its site (its ``image_id`` is a number and no more).
        malignant: label of a reference; None for this patient.
        path: file of a reference, to draw it; written nowhere.
    """

    image_id: str
    box: Box | None
    weight: float
    cell: tuple[int, int]
    whose: str = ""
    malignant: float | None = None
    path: str = ""


@dataclass(frozen=True)
class Link:
    """One region and what of the other modality belongs to it, best first."""

    image_id: str
    number: int
    box: Box
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class Links:
    """Links of a case, in both directions.

    Attributes:
        kind: ``this patient``, ``reference case, not this patient``, or ``none``; why: what is missing.
        by: what weights are: ``relevance``, ``attention``, ``similarity`` as the fusion sees it, or
            ``token similarity`` where the run has no fusion.
        verdict: of the latest audit of such links on this run, as of maps.
    """

    kind: str = "none"
    why: str = ""
    by: str = ""
    to_tissue: tuple[Link, ...] = ()
    to_mammogram: tuple[Link, ...] = ()
    verdict: str = UNTESTED

    def to_json(self) -> dict[str, Any]:
        """As ``links.json`` keeps them: without the files of references, which are other people's."""
        told = plain(vars(self))
        for link in (*told["to_tissue"], *told["to_mammogram"]):
            for patch in link["patches"]:
                del patch["path"]
        return {"notice": RESEARCH_USE_ONLY} | told


@dataclass(frozen=True)
class Concordance:
    """Whether the modalities agree.

    Attributes:
        verdict: one of ``concordance.VERDICTS``.
        direction: which way they disagree, or what is missing.
        strength: of a disagreement, 0 to 1: probability that each is right by itself.
        look: what a reader should look at, in sentences.
        basis: which mammograms were compared with the tissue.
    """

    verdict: str
    direction: str = ""
    strength: float | None = None
    look: tuple[str, ...] = ()
    basis: str = ""


@dataclass(frozen=True)
class SeenImage:
    """What is said of one image.

    Attributes:
        record: of the image, with what its header added.
        frame: from level-0 pixels to prepared ones.
        score: of the image alone.
        severity: probability of each severity category; empty where the run did not learn it.
        spots: suspicious regions; empty where the run learnt no lesion map.
        maps: by method.
        sha256: of the file. decoder: what read it.
        fields: number of fields that a whole slide was read in; 0 for an image that was read at once.
        unread: fields of a slide that could not be read.
    """

    record: Record
    frame: Frame
    score: Score
    severity: Mapping[str, float]
    spots: tuple[Spot, ...]
    maps: Mapping[str, AttentionMap]
    sha256: str
    decoder: str
    fields: int = 0
    unread: tuple[Skipped, ...] = ()

    @property
    def mark(self) -> str:
        """Side and view, or the file's name."""
        side = " ".join(part for part in (self.record.laterality, self.record.view) if part)
        return side or self.record.path.name

    @property
    def guide(self) -> AttentionMap:
        """The map that findings come from, or the attention where there is no lesion map."""
        return self.maps.get("lesion") or self.maps["attention"]


@dataclass(frozen=True)
class Prediction:
    """Everything that is said of a case.

    Attributes:
        case: its name.
        images: those that could be read.
        scores: of breasts, of the patient by modality, and of both modalities together.
        severity: of the patient by modality, of the worse breast: probability of each category, uncalibrated.
        links, concordance: across the modalities.
        skipped: images that could not be read, and views (code ``view``) of a kind that trained nothing.
        provenance: run, hash of its weights, preparation, versions.
    """

    case: str
    images: tuple[SeenImage, ...]
    scores: tuple[Score, ...]
    severity: Mapping[str, Mapping[str, float]]
    links: Links
    concordance: Concordance
    skipped: tuple[Skipped, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stamp(self) -> str:
        """What the run's training data make a reader need to know (a leak, an error); empty for nothing."""
        return str(self.provenance.get("stamp", ""))

    def of(self, modality: Modality) -> list[SeenImage]:
        """Images of one modality."""
        return [i for i in self.images if i.record.modality == modality]

    def score(self, unit: str, modality: str) -> Score | None:
        """The one score of a unit that a patient has once."""
        return next((s for s in self.scores if (s.unit, s.modality) == (unit, modality)), None)

    def to_json(self) -> dict[str, Any]:
        """As one line of ``predictions.jsonl``; maps and links stand in files of their own."""
        return {
            "notice": RESEARCH_USE_ONLY,
            "stamp": self.stamp,
            "case": self.case,
            "concordance": plain(vars(self.concordance)),
            "scores": [plain(vars(s)) for s in self.scores],
            "severity": plain(self.severity),
            "severity_is": SEVERITY_IS,
            "images": [_image(i) for i in self.images],
            "links": {k: getattr(self.links, k) for k in ("kind", "why", "by", "verdict")},
            "skipped": [{"where": s.where, "code": s.code, "why": s.why} for s in self.skipped],
            "provenance": plain(self.provenance),
        }


def _image(seen: SeenImage) -> dict[str, Any]:
    record = seen.record
    return {
        "image_id": record.image_id,
        "modality": record.modality,
        "laterality": record.laterality,
        "view": record.view,
        "um_per_pixel": [record.spacing.um_x, record.spacing.um_y] if record.spacing else None,
        "spacing_source": record.spacing_source,
        "spacing_tag": record.attributes.get("spacing_tag", ""),
        "score": plain(vars(seen.score)),
        "severity": plain(seen.severity),
        "lesion_map": seen.maps["lesion"].verdict if "lesion" in seen.maps else None,
        "findings": [_finding(s, seen.maps["lesion"].verdict) for s in seen.spots],
        "sha256": seen.sha256,
        "decoder": seen.decoder,
    } | _fields(seen)


def _fields(seen: SeenImage) -> dict[str, Any]:
    """How a whole slide was read; nothing of other images."""
    unread = [{"where": s.where, "code": s.code, "why": s.why} for s in seen.unread]
    return {"fields": seen.fields, "unread_fields": unread} if seen.fields else {}


def _finding(spot: Spot, verdict: str) -> dict[str, Any]:
    told = {k: v for k, v in vars(spot).items() if k != "cells"}
    return {k: plain(v) for k, v in told.items()} | {"map": "lesion", "verdict": verdict}


def plain(value: Any) -> Any:
    """As JSON takes it: numbers with six decimals, NaN as null, tuples as lists."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return plain(vars(value)) if hasattr(value, "__dataclass_fields__") else value
