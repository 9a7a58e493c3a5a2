"""A cohort is of standard views where its source tells them apart; what is left out is counted."""

from exam_tree import exam, mammogram, save
from mammopath.bench import prepare_bench, read_cohort
from mammopath.settings import (
    DataSettings,
    MammogramSettings,
    PrepareSettings,
    RunSettings,
    SourceSettings,
)


def data(root, **settings):
    root.mkdir(exist_ok=True)
    (root / "exams.csv").write_text("patient,label\n4711,benign\n")
    exam(root)
    save(root / "1.2.3" / "later.dcm", mammogram(SOPInstanceUID="1.2.9", AcquisitionTime="110000"))
    spot = mammogram(SOPInstanceUID="1.2.8", EstimatedRadiographicMagnificationFactor="1.8")
    save(root / "1.2.3" / "spot.dcm", spot)
    return DataSettings(sources=(SourceSettings(source="exams", root=root),), **settings)


def test_spot_views_and_retakes_do_not_train_as_normal_views(tmp_path):
    found = read_cohort(data(tmp_path))
    assert {r.path.stem for r in found.records} == {"later", "LMLO", "RCC", "RMLO"}
    assert len(found.sizes) == 4
    told = {(s.where.rpartition("/")[2], s.code, s.why.split(";")[0]) for s in found.skipped}
    assert told == {("LCC.dcm", "view", "is flagged retake"), ("spot.dcm", "view", "is flagged special_view")}


def test_all_images_are_used_where_that_is_wished(tmp_path):
    found = read_cohort(data(tmp_path, standard_views=False))
    assert len(found.records) == len(found.sizes) == 6
    assert not found.skipped


def test_what_is_left_out_on_purpose_does_not_stop_a_strict_study(tmp_path):
    small = PrepareSettings(mammogram=MammogramSettings(height=64, width=32), draws=0)
    settings = RunSettings(data=data(tmp_path / "exams"), prepare=small, workers=1, device="cpu")
    bench = prepare_bench(settings, cache=tmp_path / "cache", strict=True)
    assert (len(bench.records), [s.code for s in bench.skipped]) == (4, ["view", "view"])
