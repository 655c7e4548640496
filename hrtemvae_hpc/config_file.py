"""Reading a configuration: a YAML file, of which no more is read than needed, and options of the command line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from hrtemvae_hpc.config import Section
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.schemas import place, reason, short

_LARGEST = 2**16  # bytes of a file
_DEEPEST = 10  # sections within sections

C = TypeVar("C", bound=Section)


def load_config(path: Path | None, overrides: Mapping[str, Any], schema: type[C]) -> C:
    """The configuration of ``path`` (or the defaults) with ``overrides`` such as ``{"windows.step": 4}``.

    ``schema`` names in ``example`` the file that lists its keys. Raises InputError that names the file, the path of
    the key and what is allowed there.
    """
    example = schema.example
    values: dict[str, Any] = {}
    if path is not None:
        loaded = _read_yaml(path)
        if not isinstance(loaded, dict | None):
            first = next(iter(schema.model_fields))
            raise InputError(f"{path}: a configuration is made of sections such as `{first}:`; see {example}.")
        # A section whose keys are all commented out is null: it stands for its defaults.
        values = {key: {} if section is None else section for key, section in (loaded or {}).items()}
    for key, value in overrides.items():
        section, name = key.split(".")
        if isinstance(values.setdefault(section, {}), dict):
            values[section][name] = value
    try:
        return schema.model_validate(lists_to_tuples(values))
    except ValidationError as error:
        key = place(error)
        where = "--" + key.split(".")[-1].replace("_", "-") if key in overrides else f"{path}: `{short(key)}`"
        unknown = error.errors()[0]["type"] == "extra_forbidden"
        why = f"no such key; {example} lists all keys" if unknown else reason(error)
        raise InputError(f"{where}: {why}.") from error


def lists_to_tuples(value: Any) -> Any:
    """``value`` of YAML or JSON as the schemas want it: they hold no list that could be changed."""
    if isinstance(value, dict):
        return {k: lists_to_tuples(v) for k, v in value.items()}
    return tuple(lists_to_tuples(v) for v in value) if isinstance(value, list) else value


def _read_yaml(path: Path) -> Any:
    """The sections, lists and plain values in ``path``; keys are text, and none occurs twice in its section.

    Numbers are those of YAML 1.2: 1:4 is text, where YAML 1.1 reads minutes and seconds. Raises InputError if
    the file can't be read, is larger than 64 KiB, or holds anything else: anchors, aliases, tags.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is not a regular file; name a configuration file.")
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise InputError(f"{path}: is larger than a configuration can be ({_LARGEST // 2**10} KiB).")
        return yaml.load(text.decode(), _Loader)
    except OSError as error:
        raise InputError(f"{path}: the configuration can't be read ({error.strerror}).") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not a YAML file that can be used ({_what(error)}).") from error


def _what(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {short(error.problem)}"
    return short(error)


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise ComposerError(None, None, "anchors and aliases can't be used", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise ComposerError(None, None, "tags can't be used", event.start_mark)
        if self.depth == _DEEPEST:
            raise ComposerError(None, None, f"more than {_DEEPEST} levels", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise ConstructorError(None, None, "a key must be text", key.start_mark)
            if name in seen:
                raise ConstructorError(None, None, f"`{short(name)}` is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["", *"~nN"]),
    ("bool", r"(?i:yes|no|true|false|on|off)", list("yYnNtTfFoO")),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,17})", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), _first)
