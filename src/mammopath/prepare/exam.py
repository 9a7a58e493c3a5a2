"""Exams of several views: which images of a patient belong together, and the standard views among them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from mammopath.errors import ImageReadError
from mammopath.prepare.sample import Prepared, load_sample
from mammopath.settings import PrepareSettings
from mammopath.types import Record, Skipped

View = tuple[str, str]
"""Side and view, such as ``("L", "CC")``."""

STANDARD: tuple[View, ...] = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))
"""The four views of a screening exam."""


@dataclass(frozen=True)
class Exam:
    """Mammograms of one patient that were taken together.

    Attributes:
        name: of the exam; the patient where the source tells no exams.
        views: the record of each standard view that is there.
        others: further records: special views, earlier takes, other projections.
    """

    name: str
    patient: str
    views: Mapping[View, Record]
    others: tuple[Record, ...] = ()

    @property
    def missing(self) -> tuple[View, ...]:
        """Standard views that are not there."""
        return tuple(view for view in STANDARD if view not in self.views)


@dataclass(frozen=True)
class PreparedExam:
    """Prepared images of an exam: those that could be read, and why others could not."""

    exam: Exam
    views: Mapping[View, Prepared]
    skipped: tuple[Skipped, ...] = field(default=())

    @property
    def missing(self) -> tuple[View, ...]:
        """Standard views without an image."""
        return tuple(view for view in STANDARD if view not in self.views)


def group_exams(records: Sequence[Record]) -> list[Exam]:
    """Exams of the mammograms among some records, in the order of their first image.

    Images belong together if patient, site and the attribute ``exam`` (a study) or, in its place,
    ``acquired`` (a date) agree. Of several images of one standard view, one that its source marks as
    ``standard`` is taken, else the first that has no flag of a special view or an earlier take.
    """
    groups: defaultdict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.modality == "mammogram":
            told = record.attributes.get("exam") or record.attributes.get("acquired", "")
            groups[record.patient, record.domain, told].append(record)
    return [_exam(told or patient, patient, group) for (patient, _, told), group in groups.items()]


def load_exam(exam: Exam, settings: PrepareSettings, *, multiple: int) -> PreparedExam:
    """Read and prepare the standard views of an exam; a missing or unreadable one is no error.

    Args:
        exam: which images.
        settings: sizes and quantiles.
        multiple: sides of the samples are multiples of this.
    """
    views: dict[View, Prepared] = {}
    skipped = []
    for view, record in exam.views.items():
        try:
            views[view] = load_sample(record, settings, multiple=multiple)
        except ImageReadError as error:
            skipped.append(Skipped(str(record.path), error.code, error.why))
    return PreparedExam(exam, MappingProxyType(views), tuple(skipped))


def _exam(name: str, patient: str, records: Sequence[Record]) -> Exam:
    views: dict[View, Record] = {}
    for record in sorted(records, key=_rank):
        view = (record.laterality, record.view)
        if view in STANDARD and not _is_special(record):
            views.setdefault(view, record)
    chosen = {record.image_id for record in views.values()}
    ordered = {view: views[view] for view in STANDARD if view in views}
    others = tuple(record for record in records if record.image_id not in chosen)
    return Exam(name, patient, MappingProxyType(ordered), others)


def _rank(record: Record) -> tuple[bool, bool]:
    return record.attributes.get("standard") != "yes", "retake" in record.attributes.get("flags", "").split(
        "+"
    )


def _is_special(record: Record) -> bool:
    return "special_view" in record.attributes.get("flags", "").split("+")
