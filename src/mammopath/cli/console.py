"""What commands have in common: arguments that mean the same everywhere, and how they print."""

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[Path, typer.Argument(help="YAML file; `mammopath config schema lodo` lists its keys.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change one key: a.b=c. May be repeated.")]
Spacings = Annotated[
    Path | None, typer.Option("--spacings", help="CSV slide,um for slides whose header is silent or wrong.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad file instead of listing it.")]


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table on standard output; fractions with three decimals."""
    from rich.console import Console
    from rich.table import Table

    printed = Table(*columns, title=title)
    for row in rows:
        printed.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row))
    Console().print(printed)


def say(text: str) -> None:
    """Print a line on standard error."""
    typer.echo(text, err=True)


def listed(source: str, root: Path, spacings: Path | None) -> Any:
    """Entries of a source, with spacings of a table where one is given; names that no file has are told."""
    from mammopath.errors import ConfigError
    from mammopath.images.slide_spacing import read_spacings
    from mammopath.sources import SOURCES
    from mammopath.types import Record

    if spacings is None:
        yield from SOURCES[source].index(root)
        return
    index_spaced = SOURCES[source].index_spaced
    if index_spaced is None:
        able = ", ".join(name for name, one in SOURCES.items() if one.index_spaced)
        raise ConfigError(f"{source} does not read the headers of slides; --spacings is for {able}")
    told = read_spacings(spacings)
    names = set(told)
    for entry in index_spaced(root, told):
        path = entry.path if isinstance(entry, Record) else Path(entry.where)
        names -= {path.name, path.stem}
        yield entry
    for name in sorted(names):
        say(f"{spacings}: no slide is called {name}")
