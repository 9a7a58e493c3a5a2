"""The files of a case as the network takes them: prepared images, opened slides, and what is not used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mammopath.case.scan import WholeSlide
from mammopath.case.values import Case
from mammopath.cohort.views import not_standard
from mammopath.errors import ImageReadError
from mammopath.images.slide import is_whole_slide, open_slide
from mammopath.prepare.mosaic import mosaic
from mammopath.prepare.sample import Prepared, load_sample
from mammopath.prepare.tissue import find_tissue
from mammopath.runs import Run
from mammopath.types import Record, Skipped

_OF_SLIDES: Mapping[str, str] = {
    "geometry": "tell it with --spacing-um, or in the manifest",
    "too_large": "a slide is read in fields where the run's have a scale (prepare.pathology.um);"
    " `mammopath slides predict` reads it by patches with a run of `mammopath slides train`",
}
"""What to do about tissue that cannot be read, by the code of the error."""

Read = tuple[Record, Prepared]
"""A record of the case, and its prepared image."""


@dataclass(frozen=True)
class Files:
    """What could be read of a case: images read whole, and slides, whose fields are not read yet."""

    images: Sequence[Read]
    slides: Sequence[WholeSlide]
    skipped: Sequence[Skipped]


def read_case(case: Case, run: Run) -> Files:
    """Read and prepare the files of a case as the run's training images were.

    Tissue is a slide where its file is one (``is_whole_slide``) and the run's fields have a scale
    (``prepare.pathology.um``), which tells how to cut it; any other picture is one field.
    """
    has_scale = run.settings.prepare.pathology.um > 0
    images: list[Read] = []
    slides: list[WholeSlide] = []
    skipped: list[Skipped] = []
    for record in case.records:
        own = replace(record, patient=case.name, pair_key=case.name)
        if why := _unused(record, run):
            skipped.append(why)
            continue
        try:
            if record.modality == "pathology" and has_scale and is_whole_slide(record.path):
                slides.append(_opened(own, run))
            else:
                multiple = run.network.cell(record.modality)
                images.append((own, load_sample(own, run.settings.prepare, multiple=multiple)))
        except ImageReadError as error:
            skipped.append(not_read(record, error))
    return Files(images, slides, skipped)


def not_read(record: Record, error: ImageReadError) -> Skipped:
    """A file of a case that cannot be used, and what to do about it."""
    hint = _OF_SLIDES.get(error.code, error.hint) if record.modality == "pathology" else error.hint
    return Skipped(record.image_id, error.code, f"{error.why}; {hint}" if hint else error.why)


def _unused(record: Record, run: Run) -> Skipped | None:
    if record.modality not in run.network.modalities:
        return Skipped(record.image_id, "unsupported", f"the run reads no {record.modality}")
    if run.settings.data.standard_views and (why := not_standard(record)):
        return Skipped(record.image_id, "view", f"{why}; the run knows standard views only")
    return None


def _opened(record: Record, run: Run) -> WholeSlide:
    """A slide with its fields over tissue, closed: reading opens it again.

    Raises:
        ImageReadError: it cannot be opened, has no spacing, or shows no tissue.
    """
    settings, multiple = run.settings.prepare.pathology, run.network.cell("pathology")
    with open_slide(record.path, record.spacing) as slide:
        laid = mosaic(slide, find_tissue(slide), settings, multiple=multiple)
    if not len(laid):
        raise ImageReadError(record.path, "no tissue was found on this slide", code="pixels")
    source = record.spacing_source if record.spacing else slide.spacing_source
    return WholeSlide(replace(record, spacing=slide.spacing, spacing_source=source), slide, laid)
