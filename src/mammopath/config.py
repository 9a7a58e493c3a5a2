"""Reading a configuration: one YAML file, single keys changed on the command line, helpful errors.

An unknown key is an error that names the nearest known one. ``--set a.b=c`` changes one key; the resolved
configuration is saved with every run.
"""

import copy
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from mammopath.errors import ConfigError
from mammopath.settings import LodoSettings, RunSettings, Settings
from mammopath.slide_settings import BagSettings, SlideSettings

Model = TypeVar("Model", bound=Settings)

COMMANDS: dict[str, type[Settings]] = {
    "train": RunSettings,
    "lodo": LodoSettings,
    "slides": SlideSettings,
    "slides-stages": BagSettings,
}
"""Settings model per command that takes a configuration."""


def load(model: type[Model], path: Path | None, changes: Sequence[str] = ()) -> Model:
    """Read settings from YAML and apply ``a.b=c`` changes.

    Raises:
        ConfigError: file missing, not YAML, unknown key (with the nearest known one) or bad value.
    """
    values = _read_yaml(path) if path else {}
    for change in changes:
        _apply_change(values, change)
    return parse(model, values, where=str(path or "defaults"))


def parse(model: type[Model], values: dict[str, Any], *, where: str = "configuration") -> Model:
    """Check plain values against a settings model.

    Raises:
        ConfigError: unknown key (with the nearest known one) or bad value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors()]
        raise ConfigError(f"{where}:\n  " + "\n  ".join(lines)) from None


RETIRED = (("prepare", "styled"), ("adapt", "guard", "on"))
"""Keys that saved configurations may still hold; nothing that was computed depends on them."""


def parse_saved(model: type[Model], values: dict[str, Any], *, where: str = "configuration") -> Model:
    """As ``parse``, for a configuration saved with a run or a study: keys that are gone since are dropped.

    Raises:
        ConfigError: unknown key or bad value.
    """
    values = copy.deepcopy(values)
    for *parents, last in RETIRED:
        here: Any = values
        for parent in parents:
            here = here.get(parent) if isinstance(here, dict) else None
        if isinstance(here, dict):
            here.pop(last, None)
    return parse(model, values, where=where)


def dump(settings: Settings) -> dict[str, Any]:
    """Plain values for JSON or YAML; ``parse`` reads them back unchanged."""
    return settings.model_dump(mode="json")


def schema(command: str) -> str:
    """JSON Schema of a command's configuration.

    Raises:
        ConfigError: the command takes no configuration.
    """
    if command not in COMMANDS:
        raise ConfigError(f"{command} takes no configuration file; these do: {', '.join(COMMANDS)}")
    return json.dumps(COMMANDS[command].model_json_schema(), indent=2)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable YAML file: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{path}: the top level must be keys and values")
    return values or {}


def _apply_change(values: dict[str, Any], change: str) -> None:
    key, sign, text = change.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {change}: write it as key.key=value")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {change}: {parent} holds a value, not keys")
    values[last] = yaml.safe_load(text)


def _explain(model: type[Settings], problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg']} (got {problem['input']!r})"
    near = difflib.get_close_matches(str(problem["loc"][-1]), _keys_at(model, problem["loc"][:-1]), n=1)
    return f"unknown key {place}" + (f"; did you mean {near[0]!r}?" if near else "")


def _keys_at(model: type[Settings], location: tuple[int | str, ...]) -> list[str]:
    here: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        annotation = here.model_fields[part].annotation
        inner = [a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")]
        if not inner:
            return []
        here = inner[0]
    return list(here.model_fields)
