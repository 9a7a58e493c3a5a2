"""Which file a row of a laboratory's table means, whatever part of its name it gives."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mammopath.types import Skipped

_DRAWINGS = (".xml", ".geojson", ".json")


def name_slides(slides: Sequence[Path], root: Path) -> Mapping[str, Sequence[Path]]:
    """Slides by relative path, by name and by stem; a DICOM slide also by its folder."""
    names: defaultdict[str, list[Path]] = defaultdict(list)
    for path in slides:
        whole = path.relative_to(root)
        told = {whole.as_posix(), path.name, path.stem}
        if path.suffix.lower() == ".dcm" and path.parent != root:
            told |= {whole.parent.as_posix(), path.parent.name}
        for name in told:
            names[name].append(path)
    return names


def slide_named(name: str, names: Mapping[str, Sequence[Path]], where: str) -> Path | Skipped:
    """The slide of a name, or why there is none.

    Args:
        name: as the row has it, with slashes of either kind.
        names: of ``name_slides``.
        where: the row.
    """
    paths = names.get(name.replace("\\", "/").removeprefix("./").rstrip("/"), ())
    if not name:
        return Skipped(where, "annotation", "the column slide is empty")
    if not paths:
        return Skipped(where, "missing", f"no slide {name!r} in the folder of the table")
    if len(paths) > 1:
        why = f"{name!r} fits {len(paths)} slides, the first: {paths[0]}; give its path"
        return Skipped(where, "annotation", why)
    return paths[0]


def drawing_of(slide: Path, name: str, root: Path) -> Path | None:
    """The file of outlines of a slide; None where there is none.

    Args:
        slide: its file.
        name: of the file of outlines relative to ``root``; empty for one with the name of the slide, beside
            it or in the folder ``annotations``.
        root: folder of the table, which the file must lie in.

    Raises:
        ValueError: there is no file of that name.
    """
    if name:
        file = root / name.replace("\\", "/")
        if not file.resolve().is_relative_to(root.resolve()) or not file.is_file():
            raise ValueError(f"there is no file of outlines {name!r} in the folder of the table")
        return file
    folders = (slide.parent, root / "annotations")
    files = (folder / f"{slide.stem}{suffix}" for folder in folders for suffix in _DRAWINGS)
    return next((file for file in files if file.is_file()), None)
