"""VinDr-Mammo: boxes cut off at the edge, scores kept as scores, one record per image."""

import math

import pytest

from exam_tree import mammogram, save
from mammopath.errors import DataError
from mammopath.sources import vindr
from source_trees import split, vindr_tree


def test_findings_labels_and_split(tmp_path):
    (first, second), skipped = split(vindr.index(vindr_tree(tmp_path)))
    assert not skipped
    assert [f.box() for f in first.findings] == [(0, 9, 20, 30), (22.5, 40, 64, 60)]
    assert [f.name for f in first.findings] == ["nipple retraction+mass", "mass"]
    assert all(math.isnan(f.malignant) for f in first.findings)
    assert (first.malignant, first.attributes["birads"], first.attributes["density"]) == (1, "4", "C")
    assert (first.patient, first.official_split, first.spacing.um_x) == ("vindr_e0", "train", 100)
    assert (math.isnan(second.malignant), second.laterality, second.view, second.findings) == (
        True,
        "R",
        "MLO",
        (),
    )


def test_rows_that_cannot_be_used(tmp_path):
    root = vindr_tree(tmp_path)
    table = root / vindr.TABLE
    table.write_text(
        table.read_text().replace(",20,30,training", ",-9,30,training") + "e0,s,c3,R,CC,,,,,[],,,,,,test\n"
    )
    records, skipped = split(vindr.index(root))
    assert [r.path.stem for r in records] == ["b2"]
    assert [s.code for s in skipped] == ["annotation", "missing"]
    table.write_text("study_id\n1\n")
    with pytest.raises(DataError, match="image_id"):
        list(vindr.index(root))


@pytest.mark.filterwarnings("ignore")
def test_odd_headers_are_flagged(tmp_path):
    root = vindr_tree(tmp_path)
    odd = mammogram(WindowCenter="100", WindowWidth="0", ImagerPixelSpacing=["0", "0"])
    save(root / "images" / "e0" / "a1.dicom", odd)
    first, second = split(vindr.index(root))[0]
    assert first.attributes["flags"] == "no_spacing+window_ignored"
    assert "flags" not in second.attributes
