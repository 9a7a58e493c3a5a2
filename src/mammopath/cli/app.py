"""The command line. Every command imports what it needs inside itself, so that --help is quick."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from mammopath import RESEARCH_USE_ONLY, __version__
from mammopath.cli import challenges, data, images, installation, patient, slides, study
from mammopath.cli.console import say
from mammopath.errors import MammopathError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=f"Models that read mammograms and breast histopathology together. {RESEARCH_USE_ONLY}",
    epilog="Start with `mammopath demo`, which needs no data. Then: index, check, lodo, report.",
)
config_app = typer.Typer(no_args_is_help=True, help="Look at configurations.")
weights_app = typer.Typer(no_args_is_help=True, help="Pretrained encoders: list, check, get.")
app.add_typer(config_app, name="config")
app.add_typer(weights_app, name="weights")
slides_app = typer.Typer(no_args_is_help=True, help="Whole slides: features, train, predict, stages, demo.")
app.add_typer(slides_app, name="slides")
score_app = typer.Typer(no_args_is_help=True, help="Judge a submission to a challenge by its rules.")
submit_app = typer.Typer(no_args_is_help=True, help="Write a submission to a challenge from what a run said.")
app.add_typer(score_app, name="score")
app.add_typer(submit_app, name="submit")

COMMANDS: dict[str, list[Callable[..., None]]] = {
    "Data": [data.index, data.phantom, data.check, images.show, images.deidentify],
    "Studies": [study.demo, study.train, study.lodo, study.adapt, study.accept, study.report],
    "Patients": [patient.predict, patient.explain_audit],
    "Installation": [installation.doctor],
}
"""Commands by the panel of ``--help`` that shows them; a command is called as its function is."""

for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)

config_app.command("schema")(installation.config_schema)
config_app.command("keys")(installation.config_keys)
config_app.command("show")(installation.config_show)
weights_app.command("list")(installation.weights_list)
weights_app.command("check")(installation.weights_check)
weights_app.command("get")(installation.weights_get)
score_app.command("camelyon16")(challenges.score_camelyon16)
score_app.command("camelyon17")(challenges.score_camelyon17)
score_app.command("bach")(challenges.score_bach)
submit_app.command("camelyon16")(challenges.submit_camelyon16)
submit_app.command("bach")(challenges.submit_bach)
slides_app.command("features")(slides.slides_features)
slides_app.command("train")(slides.slides_train)
slides_app.command("predict")(slides.slides_predict)
slides_app.command("stages")(slides.slides_stages)
slides_app.command("demo")(slides.slides_demo)


def main() -> None:
    """Run the command line; errors that a user can act on are printed without a traceback."""
    try:
        app()
    except MammopathError as error:
        say(f"mammopath: {error}")
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"mammopath {__version__}")
        raise typer.Exit
