"""The phantom: same seed, same files; formats are real; the truth is where the pixels say."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from mammopath.errors import ConfigError, DataError
from mammopath.images.read import read_image
from mammopath.phantom.cohort import PhantomSettings, draw_cases
from mammopath.phantom.generate import TRUTH, generate
from mammopath.phantom.mammogram import paint_mammogram
from mammopath.phantom.sites import SITES
from mammopath.phantom.tissue import paint_field
from mammopath.sources.phantom import index
from mammopath.types import Record, Skipped


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    generate(folder, PhantomSettings(patients=2, sites=tuple(SITES)))
    return folder


@pytest.fixture(scope="module")
def records(root: Path) -> list[Record]:
    listed = list(index(root))
    assert not any(isinstance(entry, Skipped) for entry in listed)
    return listed


def test_every_patient_is_in_both_modalities_at_one_site(records: list[Record]) -> None:
    assert len(records) == 4 * 2 * (2 + 2)
    for patient in {r.patient for r in records}:
        own = [r for r in records if r.patient == patient]
        assert Counter(r.modality for r in own) == {"mammogram": 2, "pathology": 2}
        assert {r.view for r in own} == {"CC", "MLO", ""}
        assert len({(r.domain, r.malignant, r.severity, r.pair_key) for r in own}) == 1


def test_labels_and_findings_agree(records: list[Record]) -> None:
    for record in records:
        assert record.malignant == (record.severity >= 2)
        assert bool(record.findings) == (record.severity > 0)
        assert record.attributes["annotated"] == "yes"
        assert record.spacing is not None
        for finding in record.findings:
            left, top, right, bottom = finding.box()
            height, width = read_image(record.path).pixels.shape[:2]
            assert 0 <= (left + right) / 2 < width
            assert 0 <= (top + bottom) / 2 < height


def test_every_file_and_row_says_that_it_is_a_phantom(root: Path, records: list[Record]) -> None:
    assert "PHANTOM" in json.loads((root / TRUTH).read_text())["notice"]
    for record in records:
        assert record.attributes["phantom"] == "yes"
        if record.path.suffix == ".dcm":
            header = pydicom.dcmread(record.path, stop_before_pixels=True)
            told = [header.PatientComments, header.ImageComments, header.SeriesDescription]
        elif record.path.suffix == ".png":
            with Image.open(record.path) as image:
                told = [image.text["Description"]]
        else:
            with tifffile.TiffFile(record.path) as tiff:
                told = [tiff.pages[0].description]
        assert all("SYNTHETIC PHANTOM" in text for text in told)


def test_dicom_files_are_what_sites_write(records: list[Record]) -> None:
    seen = {}
    for record in records:
        if record.modality == "mammogram":
            data = pydicom.dcmread(record.path)
            style = SITES[record.domain].mammogram
            assert (data.Modality, data.ImageLaterality, data.ViewPosition) == (
                "MG",
                record.laterality,
                record.view,
            )
            assert data.PatientID == record.patient
            assert data.BitsStored == style.bits
            assert data.pixel_array.max() < 2**style.bits
            assert list(data.ImagerPixelSpacing) == [style.mm, style.mm]
            assert record.spacing.um_x == pytest.approx(1000 * style.mm)
            seen[record.domain] = data.PhotometricInterpretation
            pixels = read_image(record.path).pixels.astype(float)
            assert np.median(pixels) < 0.2 * pixels.max(), "read with a dark background at every site"
    assert set(seen.values()) == {"MONOCHROME1", "MONOCHROME2"}


def test_fields_are_tiled_pyramids_with_resolution(records: list[Record]) -> None:
    tiffs = [r for r in records if r.path.suffix == ".tiff"]
    assert {r.domain for r in tiffs} == {"site_b", "site_c"}
    for record in tiffs[:3]:
        with openslide.OpenSlide(record.path) as slide:
            assert slide.level_count == 2
            region = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
            assert 1e4 / float(slide.properties["tiff.XResolution"]) == pytest.approx(record.spacing.um_x)
        np.testing.assert_array_equal(read_image(record.path).pixels, region)


def test_same_seed_same_bytes_and_another_seed_others(root: Path, tmp_path: Path) -> None:
    for seed, name in ((0, "again"), (1, "other")):
        generate(tmp_path / name, PhantomSettings(patients=2, sites=("site_b",), seed=seed, fields=1))
    files = [p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*_MLO.dcm")]
    files += [p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*.tiff")]
    assert len(files) == 4
    assert all((tmp_path / "again" / f).read_bytes() == (root / f).read_bytes() for f in files)
    one = (tmp_path / "other" / "site_b" / "tissue" / "site_b_0000_0.tiff").read_bytes()
    assert one != (root / "site_b" / "tissue" / "site_b_0000_0.tiff").read_bytes()


def test_lesions_lie_on_what_is_painted() -> None:
    cases = list(draw_cases(PhantomSettings(patients=30), "site_a", 1.0))
    for case in [c for c in cases if c.severity == 3][:3]:
        style = SITES["site_a"].mammogram
        made, without = (paint_mammogram(case, "CC", style, contrast=c) for c in (1.0, 0.0))
        added = made.pixels.astype(float) - without.pixels
        centre = np.mean(made.outline, axis=0)
        y, x = np.nonzero(added > 0.5 * added.max())
        assert (x.mean(), y.mean()) == pytest.approx(tuple(centre), abs=6)
        blue = paint_field(case, 0, SITES["site_a"].tissue)
        dark = np.argwhere(blue.pixels[..., 0] < 140)
        inside = np.linalg.norm(dark[:, ::-1] - np.mean(blue.outline, axis=0), axis=1) < 95
        assert inside.mean() > 0.6


@given(
    patients=st.integers(1, 60),
    prevalence=st.floats(0, 1),
    spurious=st.sampled_from([0.0, 0.5, 1.0]),
    site=st.sampled_from(["site_a", "site_c"]),
)
@settings(max_examples=40, deadline=None)
def test_cases_keep_their_promises(patients: int, prevalence: float, spurious: float, site: str) -> None:
    chosen = PhantomSettings(patients=patients, spurious=spurious)
    cases = list(draw_cases(chosen, site, prevalence))
    assert len({c.name for c in cases}) == patients
    assert sum(c.malignant for c in cases) == round(prevalence * patients)
    assert all(0 <= c.form <= 1 and 0 <= c.fibrosis <= 1 for c in cases)
    if spurious == 1:
        assert all(c.marked == (c.malignant ^ (site == "site_c")) for c in cases)


def test_the_mark_follows_the_label_as_strongly_as_asked() -> None:
    for spurious in (0.0, 0.6):
        cases = list(draw_cases(PhantomSettings(patients=600, spurious=spurious), "site_a", 0.5))
        agreeing = np.mean([c.marked == c.malignant for c in cases])
        assert agreeing == pytest.approx((1 + spurious) / 2, abs=0.06)
        assert abs(np.corrcoef([c.form for c in cases], [c.malignant for c in cases])[0, 1]) < 0.12


def test_the_mark_changes_pixels_a_little() -> None:
    plain = next(c for c in draw_cases(PhantomSettings(), "site_a", 0.5) if not c.marked)
    twin, style = replace(plain, marked=True), SITES["site_a"]
    for before, after, span in (
        (paint_mammogram(plain, "CC", style.mammogram), paint_mammogram(twin, "CC", style.mammogram), 4095),
        (paint_field(plain, 0, style.tissue), paint_field(twin, 0, style.tissue), 255),
    ):
        change = np.abs(after.pixels.astype(float) - before.pixels).mean() / span
        assert 0.001 < change < 0.05


def test_sites_record_differently(records: list[Record]) -> None:
    colour = {
        site: np.mean(
            [read_image(r.path).pixels.mean((0, 1)) for r in records if r.domain == site and not r.view],
            axis=0,
        )
        for site in SITES
    }
    distances = [np.linalg.norm(colour[a] - colour[b]) for a in SITES for b in SITES if a < b]
    assert min(distances) > 5
    assert len({r.spacing.um_x for r in records if r.view}) == 4
    assert len({r.spacing.um_x for r in records if not r.view}) >= 3


def elongation(rgb: np.ndarray) -> float:
    """Median ratio of the axes of the dark spots of a field."""
    spots, _ = ndimage.label(rgb[..., 0] < 150)
    ratios = []
    for place in ndimage.value_indices(spots, ignore_value=0).values():
        if 40 < len(place[0]) < 160:
            short, long = np.linalg.eigvalsh(np.cov(place))
            ratios.append((long / short) ** 0.5)
    return float(np.median(ratios))


def test_form_is_shared_by_both_modalities() -> None:
    cases = [c for c in draw_cases(PhantomSettings(patients=14), "site_a", 1.0) if c.severity == 3]
    style = SITES["site_a"]
    masses, nuclei = [], []
    for case in cases:
        outline = np.array(paint_mammogram(case, "CC", style.mammogram).outline)
        short, long = np.linalg.eigvalsh(np.cov(outline.T))
        masses.append((long / short) ** 0.5)
        nuclei.append(elongation(paint_field(case, 0, style.tissue).pixels))
    assert np.corrcoef(masses, [c.form for c in cases])[0, 1] > 0.99
    assert np.corrcoef(masses, nuclei)[0, 1] > 0.6


def test_what_is_there_is_not_written_over(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not empty"):
        generate(root, PhantomSettings(patients=1))
    with pytest.raises(ConfigError, match="site_x"):
        generate(tmp_path, PhantomSettings(sites=("site_x",)))
    with pytest.raises(DataError, match="not finished"):
        list(index(tmp_path))
    (tmp_path / TRUTH).write_text("{")
    with pytest.raises(DataError, match="not the truth"):
        list(index(tmp_path))


def test_a_missing_image_is_listed_as_skipped(tmp_path: Path) -> None:
    generate(tmp_path / "p", PhantomSettings(patients=1, sites=("site_a",)))
    gone = next((tmp_path / "p").rglob("*.png"))
    gone.unlink()
    listed = list(index(tmp_path / "p"))
    assert [e.code for e in listed if isinstance(e, Skipped)] == ["missing"]
    assert len(listed) == 4


def test_the_mark_can_follow_the_label_more_strongly_at_one_site() -> None:
    told = PhantomSettings(patients=200, spurious=0.2, spurious_at={"site_a": 1.0})
    shares = {
        site: np.mean([case.marked == case.malignant for case in draw_cases(told, site, 0.5)])
        for site in ("site_a", "site_b", "site_c")
    }
    assert shares["site_a"] == 1.0
    assert 0.5 < shares["site_b"] < 0.72
    assert 0.28 < shares["site_c"] < 0.5
