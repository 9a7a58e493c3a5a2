"""What is said of one image or slide of a case: score, severity, suspicious regions, maps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mammopath.case.findings import spots
from mammopath.case.glance import Glance
from mammopath.case.knowledge import Knowledge
from mammopath.case.reading import Read
from mammopath.case.scan import Scan
from mammopath.case.scores import SETTLED_AS, answered, severities, with_interval
from mammopath.case.values import Score, SeenImage
from mammopath.files import sha256
from mammopath.images.geometry import Frame
from mammopath.images.packed import file_of
from mammopath.images.read import assumes_mg, read_header
from mammopath.maps.methods import METHODS
from mammopath.maps.values import AttentionMap
from mammopath.metrics.maps import UNTESTED
from mammopath.types import Record

Values = Mapping[str, Float[np.ndarray, "rows cols"]]
"""Of maps, by method."""


def image(known: Knowledge, read: Read, seen: Glance, place: int) -> SeenImage:
    """An image that was read at once.

    Args:
        known: of the run.
        read: the image.
        seen: a pass that it was in.
        place: its place in it.
    """
    record, prepared = read
    header = read_header(record.path, assume_mg=assumes_mg(record))
    logit, settled = float(seen.output.logit[place]), known.settled(record.modality, "image")
    score = answered("image", record.image_id, record.modality, logit, settled, seen.familiar[place])
    size, values = (header.height, header.width), seen.maps(place, known.methods())
    maps = _maps(known, record, values, prepared.frame, size=size)
    return _told(known, record, score, seen.output.severity[place], maps, decoder=header.decoder)


def slide(known: Knowledge, one: Scan, seen: Glance, places: Sequence[int]) -> SeenImage:
    """A slide: maps that cost nothing over all of it, others over its most suspicious fields.

    Args:
        known: of the run.
        one: the slide, field by field.
        seen: a pass that its most suspicious fields were in.
        places: theirs in it.
    """
    record, mosaic, opened = one.whole.record, one.whole.mosaic, one.whole.slide
    costly = [name for name in known.methods() if name not in one.maps]
    drawn = {n: seen.maps(place, costly) for n, place in zip(one.told, places, strict=True)}
    values = {name: own for name, own in one.maps.items() if name in known.methods()}
    values |= {name: mosaic.joined({n: maps[name] for n, maps in drawn.items()}) for name in costly}
    settled = known.settled(record.modality, SETTLED_AS["slide"])
    score = answered("slide", record.image_id, record.modality, one.pooled, settled, one.familiar)
    maps = _maps(known, record, values, mosaic.frame, size=(opened.height, opened.width))
    told = _told(known, record, score, one.graded, maps, decoder=opened.kind)
    return replace(told, fields=len(one.logit), unread=tuple(one.skipped))


def _maps(
    known: Knowledge, record: Record, values: Values, frame: Frame, *, size: tuple[int, int]
) -> dict[str, AttentionMap]:
    return {
        name: AttentionMap(
            method=name,
            unit=METHODS[name].unit,
            values=own,
            cell=known.run.network.cell(record.modality),
            frame=frame,
            image_id=record.image_id,
            spacing=record.spacing,
            verdict=known.verdicts.get(f"{record.modality}.{name}", UNTESTED),
            size=size,
        )
        for name, own in values.items()
    }


def _told(
    known: Knowledge,
    record: Record,
    score: Score,
    severity: Float[Tensor, " k"],
    maps: Mapping[str, AttentionMap],
    *,
    decoder: str,
) -> SeenImage:
    threshold = known.evidence.thresholds.get(record.modality, float("nan"))
    return SeenImage(
        record=record,
        frame=maps["attention"].frame,
        score=with_interval(score, known.validation),
        severity=severities(severity) if known.grades else {},
        spots=spots(maps["lesion"], threshold) if "lesion" in maps else (),
        maps=maps,
        sha256=sha256(file_of(record.path)),
        decoder=decoder,
    )
