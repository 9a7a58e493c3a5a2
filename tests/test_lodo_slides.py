"""Whole slides and fields in one study: what each is served as, and that no data set is lost on the way."""

from pathlib import Path

import pytest

from mammopath.bench import prepare_bench
from mammopath.cohort import manifest
from mammopath.config import parse
from mammopath.errors import DataError
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.settings import LodoSettings
from mammopath.sources import SOURCES
from source_trees import bach_tree

SMALL = {
    "prepare": {
        "mammogram": {"height": 64, "width": 32},
        "pathology": {"height": 32, "width": 32},
        "draws": 1,
    },
    "model": {"readout": {"mammogram": [2], "pathology": [2]}, "cut": {"mammogram": 1, "pathology": 1}},
    "train": {"steps": 3, "batch": 2, "validate_every": 2},
    "bootstrap": 100,
    "workers": 1,
}


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "cohort"
    generate(root, PhantomSettings(patients=8, fields=1))
    return root


def study(*sources: tuple[str, Path]) -> LodoSettings:
    named = [{"source": name, "root": str(root), "partial": True} for name, root in sources]
    return parse(LodoSettings, SMALL | {"data": {"sources": named}})


def test_a_source_without_a_usable_image_stops_a_study(fields: Path, tmp_path: Path) -> None:
    """It went on with the other data sets, and its table looked like one of all of them."""
    root = bach_tree(tmp_path / "bach")
    listed = manifest.collect(SOURCES["bach"].index(root), source="bach", root=root)
    manifest.write(listed, tmp_path / "bach.parquet")
    for path in root.rglob("*.png"):
        path.unlink()
    settings = study(("phantom", fields))
    data = settings.data.model_copy(update={"manifests": (tmp_path / "bach.parquet",)})
    with pytest.raises(DataError, match="no image of bach can be used; the first: bach/"):
        prepare_bench(settings.model_copy(update={"data": data}), cache=tmp_path / "cache")
