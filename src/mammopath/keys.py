"""Every key of a configuration with its default and meaning, as Markdown."""

import json
from collections.abc import Iterator

from pydantic_core import PydanticUndefined, to_jsonable_python

from mammopath.config import COMMANDS
from mammopath.settings import Settings


def reference() -> str:
    """One table per command that takes a configuration."""
    parts = ["# Keys of a configuration", "", "Made by `mammopath config keys`; a test keeps it up to date."]
    for command, model in COMMANDS.items():
        parts += ["", f"## `mammopath {command}`", "", "| key | default | meaning |", "| --- | --- | --- |"]
        parts += [f"| `{key}` | {default} | {meaning} |" for key, default, meaning in keys(model)]
    return "\n".join(parts) + "\n"


def keys(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted name, default and meaning of every key, nested ones included."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield (
                f"{prefix}{name}",
                _default(field.get_default(call_default_factory=True)),
                _meaning(field.description),
            )


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    return f"`{json.dumps(to_jsonable_python(value))}`"


def _meaning(description: str | None) -> str:
    return " ".join((description or "").split()).replace("|", "\\|")
