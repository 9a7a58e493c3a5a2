"""Contact sheets show what the model sees; a painted marker stays where it is through the whole chain."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.uid import UID
from typer.testing import CliRunner

from exam_tree import breast, exam, mammogram, save
from mammopath.cli.app import app
from mammopath.cohort import manifest
from mammopath.contact import draw, tiles, write_sheet
from mammopath.errors import ConfigError
from mammopath.prepare.sample import load_sample
from mammopath.settings import MammogramSettings, PrepareSettings
from mammopath.sources import exams
from mammopath.sources.slides import SLIDE
from mammopath.types import Finding, Record, Spacing

SMALL = PrepareSettings(mammogram=MammogramSettings(height=192, width=128))


@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("crop", [True, False])
def test_a_painted_marker_stays_where_it_is(tmp_path, side, photometric, crop):
    """DICOM file -> reader -> crop, mirror, resize: the marker lies where the finding says, and is bright."""
    pixels = breast(side, shape=(400, 300))
    left = 90 if side == "L" else 198
    pixels[120:132, left : left + 12] = 4000
    stored = 4095 - pixels if photometric == "MONOCHROME1" else pixels
    data = mammogram(stored, ImageLaterality=side, PhotometricInterpretation=photometric)
    path = save(tmp_path / "a.dcm", data)
    marker = Finding("box", ((float(left), 120.0), (left + 12.0, 132.0)), malignant=1.0)
    record = Record("x/a.dcm", path, "p", "x", "mammogram", 1.0, laterality=side, findings=(marker,))
    settings = PrepareSettings(mammogram=MammogramSettings(height=192, width=128, crop=crop))
    prepared = load_sample(record, settings, multiple=1)
    image, lesion = prepared.sample.image[0].numpy(), prepared.sample.lesion.numpy() == 1
    bright = image > 0.98
    assert lesion.any()
    assert (bright & lesion).sum() > 0.6 * lesion.sum()
    rows, columns = np.nonzero(bright)
    where = np.median(columns) + 0.5, np.median(rows) + 0.5
    x, y = prepared.frame.inverse().point(*where)
    assert abs(x - (left + 6)) < 3
    assert abs(y - 126) < 3
    assert (prepared.frame.scale_x < 0) == (side == "R")
    assert prepared.sample.valid[:, :20].any()
    assert not prepared.sample.valid[:, -1].any() or not crop


def cohort(root):
    (root / "exams.csv").write_text("patient,side,label,birads\n4711,L,malignant,5\n4711,R,benign,2\n")
    exam(root)
    save(root / "1.2.3" / "spot.dcm",
         mammogram(SOPInstanceUID=UID("1.2.9"), EstimatedRadiographicMagnificationFactor="1.8"))  # fmt: skip
    return manifest.collect(exams.index(root), source="exams", root=root)


def test_tiles_say_side_view_label_and_flags(tmp_path):
    records = draw(cohort(tmp_path).records, number=5, seed=0)
    found = {t.lines[-1]: t for t in tiles(records, SMALL, multiple=1)}
    assert found["LCC.dcm"].lines == ("L CC", "malignant BI-RADS 5", "North", "LCC.dcm")
    assert found["RMLO.dcm"].lines[0] == "R MLO mirrored"
    assert found["spot.dcm"].lines[3] == "! special_view"


def test_findings_are_drawn_in_the_colour_of_their_label(tmp_path):
    path = save(tmp_path / "a.dcm", mammogram(breast("R"), ImageLaterality="R"))
    shapes = (
        Finding("box", ((30.0, 30.0), (40.0, 40.0)), malignant=1.0),
        Finding("polygon", ((45.0, 50.0), (55.0, 50.0), (50.0, 60.0)), malignant=0.0),
        Finding("circle", ((50.0, 40.0),), radius=3.0),
    )
    record = Record("x/a.dcm", path, "p", "x", "mammogram", laterality="R", findings=shapes)
    (tile,) = tiles([record], SMALL, multiple=1)
    colours = {tuple(c) for c in tile.picture.reshape(-1, 3).tolist()}
    assert {(255, 86, 86), (95, 205, 120), (255, 200, 60)} <= colours


def test_a_slide_is_shown_as_a_whole_with_its_findings_in_place(tmp_path):
    """Its level 0 is larger than what is shown, and its spacing is given, as its header tells none."""
    rgb = np.full((900, 1200, 3), 235, np.uint8)
    rgb[300:420, 800:980] = (150, 20, 150)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb, tile=(64, 64), photometric="rgb", compression="jpeg")
    corners = ((800.0, 300.0), (980.0, 300.0), (980.0, 420.0), (800.0, 420.0))
    record = Record(
        "x/a.tif", path, "p", "x", "pathology", malignant=1.0, spacing=Spacing.square(0.5),
        spacing_source="override", attributes=SLIDE, findings=(Finding("polygon", corners, malignant=1.0),),
    )  # fmt: skip
    (plain,) = tiles([replace(record, findings=())], SMALL, multiple=1)
    (drawn,) = tiles([record], SMALL, multiple=1)
    assert plain.lines[:2] == ("slide", "malignant")
    height, width = plain.picture.shape[:2]
    assert width / height == pytest.approx(1200 / 900, rel=0.01)
    scale = height / 900
    seen = np.argwhere(plain.picture[..., 1] < 120)
    line = np.argwhere((drawn.picture == (255, 86, 86)).all(axis=-1))
    for found in (seen, line):
        assert found.min(axis=0) == pytest.approx((300 * scale, 800 * scale), abs=2)
        assert found.max(axis=0) == pytest.approx((420 * scale, 980 * scale), abs=2)


def test_sheets_as_picture_and_page_with_an_unreadable_file(tmp_path):
    found = cohort(tmp_path)
    manifest.write(found, tmp_path / "m.parquet")
    (tmp_path / "1.2.3" / "RCC.dcm").write_bytes(b"no")
    for name in ("s.png", "s.html"):
        arguments = ["show", str(tmp_path / "m.parquet"), "--sample", "4", "--out", str(tmp_path / name)]
        result = CliRunner().invoke(app, [*arguments, "--set", "mammogram.height=192"])
        assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size[0] > 500
    page = (tmp_path / "s.html").read_text()
    assert page.count("<figure>") == 4
    assert "For research use only" in page
    with pytest.raises(ConfigError, match="png"):
        write_sheet([], tmp_path / "s.pdf")


def test_draws_are_spread_and_repeat(tmp_path):
    records = [
        Record(f"{s}/{i}", tmp_path, f"p{i}", s, "mammogram", float(i % 2)) for s in "ab" for i in range(50)
    ]
    first = draw(records, number=8, seed=1)
    assert [r.image_id for r in first] == [r.image_id for r in draw(records[::-1], number=8, seed=1)]
    assert {(r.domain, r.malignant) for r in first} == {(s, m) for s in "ab" for m in (0.0, 1.0)}
    assert [r.image_id for r in first] != [r.image_id for r in draw(records, number=8, seed=2)]
    assert draw([], number=8, seed=1) == []
