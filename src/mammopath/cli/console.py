"""What commands have in common: arguments that mean the same everywhere, and how they print."""

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[Path, typer.Argument(help="YAML file; `mammopath config schema lodo` lists its keys.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change one key: a.b=c. May be repeated.")]
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
