"""The documents say what the program does: commands, keys, examples that run, links that lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mammopath.cli.app import app
from mammopath.keys import reference

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS = [c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands if c.callback]
GROUPS = [
    f"{g.name} {c.name}"
    for g in app.registered_groups
    if g.typer_instance
    for c in g.typer_instance.registered_commands
]


@pytest.mark.parametrize("command", COMMANDS + GROUPS)
def test_every_command_is_documented_and_explains_itself(command: str) -> None:
    assert f"mammopath {command}" in (ROOT / "docs/reference/cli.md").read_text()
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 200


def test_the_reference_of_keys_is_what_the_program_prints() -> None:
    assert (ROOT / "docs/reference/configuration.md").read_text() == reference()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_the_start_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of commands under "The same by hand", in order, in an empty folder."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/start.md").read_text().split("## 2.")[1]
    block = re.search(r"```bash\n(.*?)```", text, re.S)
    assert block
    for line in block[1].strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "mammopath"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    assert (tmp_path / "runs" / "first" / "model.safetensors").exists()


def test_the_changelog_has_this_version() -> None:
    from mammopath import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()
