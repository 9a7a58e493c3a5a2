"""Which files of a folder are slides, and which are pictures that lie beside them."""

from pathlib import Path

import pytest

from mammopath.errors import DataError
from mammopath.images.slide_files import find_slides


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_pictures_that_a_scanner_or_viewer_puts_beside_a_slide_are_no_slides(tmp_path: Path) -> None:
    pictures = ("A01.png", "A01_he.jpg", "A01 (1,0).jpeg", "B02.jpg", "macro.png", "A03-Label.JPG")
    folders = ("thumbnails/x.png", "Heatmaps/y.jpg", "masks/B02.png")
    make(tmp_path, "A01.svs", "sub/B02.vms", *pictures, *folders)
    assert [path.name for path in find_slides([tmp_path])] == ["A01.svs", "B02.vms"]


def test_fields_are_found_also_beside_slides_of_other_names(tmp_path: Path) -> None:
    """b1 is no part of b10, nor is an armlabeled field a label."""
    make(tmp_path, "b1.svs", "b10.png", "field_1.jpg", "armlabeled.png", ".b2.png")
    assert [path.name for path in find_slides([tmp_path])] == [
        "armlabeled.png",
        "b1.svs",
        "b10.png",
        "field_1.jpg",
    ]


def test_a_picture_that_is_given_by_itself_is_taken(tmp_path: Path) -> None:
    make(tmp_path, "A01.svs", "A01.png")
    assert find_slides([tmp_path / "A01.png"]) == [tmp_path / "A01.png"]


def test_a_folder_of_nothing_but_pictures_of_slides_has_no_slide(tmp_path: Path) -> None:
    make(tmp_path, "thumbnail.png")
    with pytest.raises(DataError, match="no slide here"):
        find_slides([tmp_path])
