"""Settings that people write in YAML: how they are read, checked and explained."""

from __future__ import annotations

import copy
import difflib
import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fer_batch.errors import ConfigError

COMMENT_WIDTH = 100
_HERE = Path(__file__).parent
CONFIGS = next(path for path in (_HERE / "configs", _HERE.parent / "configs") if path.is_dir())
"""Settings files that come with fer_batch: inside its wheel, or beside it in the repository."""


class Settings(BaseModel):
    """Settings that cannot change; the docstring of a field explains it to the user."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


AnySettings = TypeVar("AnySettings", bound=Settings)


def find_shipped(file: Path, kind: str) -> Path:
    """The settings file that a user means: a path, or the bare name of one of fer_batch's own.

    Args:
        file: The path or name.
        kind: Folder of `CONFIGS` that the names belong to.

    Raises:
        ConfigError: There is neither a file nor a name like this.
    """
    shipped = {path.stem: path for path in sorted((CONFIGS / kind).glob("*.yaml"))}
    path = shipped.get(str(file), file)
    if not path.is_file():
        raise ConfigError(f"no file {file}: give a YAML file or one of {', '.join(shipped)}")
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds keys with values.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys with values, found a {type(values).__name__}")
    return values


def merge(
    base: dict[str, Any],
    *,
    path: Path | None = None,
    overrides: Sequence[str] | Mapping[str, object] = (),
) -> dict[str, Any]:
    """Replace values by those of a YAML file, and then by those of overrides.

    Args:
        base: The values.
        path: The file, if any.
        overrides: Texts ``key=value``, or a dict. A key may have dots: ``section.name``.

    Raises:
        ConfigError: The file or an override cannot be read.
    """
    values = copy.deepcopy(base)
    _update(values, read_yaml(path) if path else {})
    changes = [overrides] if isinstance(overrides, Mapping) else map(_parse, overrides)
    for change in changes:
        _update(values, change)
    return values


def validate(model: type[AnySettings], values: dict[str, Any]) -> AnySettings:
    """Check values and make settings of them.

    Raises:
        ConfigError: A key is unknown or a value is wrong; every problem is named.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_describe(problem, model) for problem in error.errors()]
        raise ConfigError("; ".join(problems)) from error


def commented_yaml(settings: Settings, *, head: str) -> str:
    """Write settings as YAML, with `head` and the docstrings of sections and fields as comments."""
    return "\n".join([*_comment(head, ""), *_commented_lines(settings, ""), ""])


def _commented_lines(settings: Settings, indent: str) -> Iterator[str]:
    plain = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            if not indent:
                yield ""
            yield from _comment(type(value).__doc__, indent)
            yield f"{indent}{name}:"
            yield from _commented_lines(value, f"{indent}  ")
        else:
            yield from _comment(field.description, indent)
            text = yaml.safe_dump({name: plain[name]}, width=math.inf).rstrip()
            yield indent + (f"{name}:" if value is None else text)


def _comment(text: str | None, indent: str) -> list[str]:
    start = f"{indent}# "
    return textwrap.wrap(text or "", COMMENT_WIDTH, initial_indent=start, subsequent_indent=start)


def _describe(problem: ErrorDetails, model: type[Settings]) -> str:
    """What is wrong with one value, in words for the user."""
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        similar = " or ".join(_similar_keys(key, model))
        return f"{key}: unknown setting" + (f" (did you mean {similar}?)" if similar else "")
    if problem["type"] == "missing":
        return f"{key}: is missing"
    if problem["type"] == "model_type":
        return f"{key}: is a section: write its settings below it (found {problem['input']!r})"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    is_section = isinstance(problem["input"], dict | list)  # too long to be repeated
    found = "" if is_section else f" (found {problem['input']!r})"
    return f"{key}: {message}{found}" if key else message


def _similar_keys(key: str, model: type[Settings]) -> list[str]:
    """Settings that may be meant: of the same name elsewhere, or of a similar one beside it."""
    keys = [(*each.rpartition("."), each) for each in _keys(model)]
    section, _, name = key.rpartition(".")
    same_name = [each for _, _, other, each in keys if other == name]
    beside = {other: each for where, _, other, each in keys if where == section}
    return same_name or [beside[other] for other in difflib.get_close_matches(name, beside, n=1)]


def _keys(model: type[Settings], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        section = _section(field)
        if section:
            yield from _keys(section, f"{prefix}{name}.")


def _section(field: FieldInfo) -> type[Settings] | None:
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Settings):
            return kind
    return None


def _update(values: dict[str, Any], changes: Mapping[str, object]) -> None:
    for key, value in changes.items():
        name, dot, rest = str(key).partition(".")
        if dot:
            value = {rest: value}
        if isinstance(value, Mapping):
            if not isinstance(values.get(name), dict):
                values[name] = {}
            _update(values[name], value)
        else:
            values[name] = os.fspath(value) if isinstance(value, os.PathLike) else value


def _parse(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: expected key=value")
    try:
        return {key.strip(): yaml.safe_load(text)}
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {error}") from error
