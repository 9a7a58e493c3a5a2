"""A cohort on the bench: which records are there, and under which names their activations are kept."""

from mammopath import features
from mammopath.bench import prepare_bench
from mammopath.cohort import manifest
from mammopath.config import parse
from mammopath.settings import RunSettings
from slide_trees import pcam_tree


def _settings(root):
    return parse(
        RunSettings,
        {
            "data": {"sources": [{"source": "pcam", "root": str(root), "partial": True}]},
            "prepare": {"pathology": {"height": 28, "width": 28}, "draws": 0},
            "model": {"readout": {"mammogram": [1], "pathology": [1]}},
            "workers": 1,
        },
    )


def test_patches_in_one_file_meet_a_frozen_trunk_and_the_file_is_hashed_once(tmp_path, monkeypatch):
    hashed = []
    hash_file = features.sha256
    monkeypatch.setattr(features, "sha256", lambda path: hashed.append(path) or hash_file(path))
    bench = prepare_bench(_settings(pcam_tree(tmp_path / "pcam")), cache=tmp_path / "cache")
    assert bench.skipped == []
    assert len(bench.records) > len(hashed) == len({r.path.parent for r in bench.records})
    assert len({names[0] for names in bench.keys}) == len(bench.records)


def test_a_file_that_went_away_is_listed(tmp_path):
    root = pcam_tree(tmp_path / "pcam")
    settings = _settings(root)
    whole = prepare_bench(settings, cache=tmp_path / "cache")
    manifest.write(manifest.collect(tuple(whole.records), source="pcam", root=root), tmp_path / "m.parquet")
    gone = whole.records[0].path.parent
    gone.unlink()
    data = settings.data.model_copy(update={"sources": (), "manifests": (tmp_path / "m.parquet",)})
    bench = prepare_bench(settings.model_copy(update={"data": data}), cache=tmp_path / "cache")
    assert {s.code for s in bench.skipped} == {"missing"}
    assert len(bench.skipped) == sum(r.path.parent == gone for r in whole.records)
