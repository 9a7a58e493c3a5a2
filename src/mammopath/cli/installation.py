"""Commands about this installation: doctor, configurations, weights of encoders."""

from pathlib import Path
from typing import Annotated

import typer

from mammopath.cli.console import Changes, ConfigFile, table


def doctor() -> None:
    """Show versions, image decoders, device and known encoders: what to send with a question."""
    from mammopath.doctor import facts

    table("mammopath doctor", ["what", "found"], [[k, v] for k, v in facts().items()])


def config_schema(command: Annotated[str, typer.Argument(help="train or lodo.")]) -> None:
    """Print the JSON Schema of a command's configuration."""
    from mammopath.config import schema

    typer.echo(schema(command))


def config_keys() -> None:
    """Print every key with its default and meaning, as Markdown."""
    from mammopath.keys import reference

    typer.echo(reference(), nl=False)


def config_show(config: ConfigFile, changes: Changes = None) -> None:
    """Print a configuration as it will run, with every default filled in."""
    import yaml

    from mammopath.config import dump, load
    from mammopath.settings import LodoSettings

    typer.echo(yaml.safe_dump(dump(load(LodoSettings, config, changes or [])), sort_keys=False))


def weights_list() -> None:
    """List the encoders whose weights can be used: name, licence, where to get them."""
    from mammopath.model.encoders import ENCODERS

    rows = [[name, e.licence, e.source or "trains from scratch"] for name, e in ENCODERS.items()]
    table("Encoders", ["name", "licence", "where (Hugging Face hub)"], rows)


def weights_check(
    path: Annotated[Path, typer.Argument(help="A safetensors file.")],
    encoder: Annotated[
        str, typer.Option("--encoder", help="Encoder that it should be: a name of `mammopath weights list`.")
    ],
) -> None:
    """Say whether a weights file fits an encoder: missing, unexpected and misshapen tensors.

    Ends with exit code 1 if it does not fit.
    """
    from mammopath.model.weights import check_weights

    found = check_weights(path, encoder)
    typer.echo(str(found))
    raise typer.Exit(0 if found.fits else 1)


def weights_get(
    name: Annotated[str, typer.Argument(help="An encoder of `mammopath weights list`.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write [weights/NAME.safetensors].")
    ] = None,
) -> None:
    """Download an encoder's weights from the Hugging Face hub. This command uses the network."""
    from mammopath.model.weights import get_weights

    path = out or Path("weights") / f"{name}.safetensors"
    typer.echo(f"{path}: SHA-256 {get_weights(name, path)}")
