"""pydantic's errors in this project's words."""

from __future__ import annotations

import inspect
import json
from typing import Any

from pydantic import BaseModel

from nnjit.errors import nearest
from nnjit.runconfig.schema import Config
from nnjit.runconfig.tomlfile import Path_

WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}
BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("more than", "gt"),
    "too_short": ("at least this many entries:", "min_length"),
}


def wording(error: Any) -> tuple[Path_, str, str]:
    """(path, what is wrong, what was given) of one pydantic error."""
    path, kind, context = tuple(error["loc"]), error["type"], error.get("ctx", {})
    given = shown(error["input"])
    if kind == "missing":
        return path, "missing", ""
    if kind == "extra_forbidden":
        return path, f"unknown key{nearest(str(path[-1]), _keys(path[:-1]))}", given
    if kind == "value_error":
        return path, str(context["error"]), given
    if kind == "literal_error":
        options = [t.strip(" '") for t in context["expected"].replace(" or ", ",").split(",")]
        return path, f"not one of its values{nearest(str(error['input']), options)}", given
    if kind in BOUNDS:
        words, key = BOUNDS[kind]
        return path, f"expected {words} {context[key]}", given
    if kind == "string_pattern_mismatch":
        return path, "expected letters, digits, '_', '-' and '.' only", given
    wanted = WANTED.get(kind)
    return path, f"expected {wanted}" if wanted else error["msg"].lower(), given


def _keys(path: Path_) -> list[str]:
    """The keys that a section may have."""
    section: Any = Config
    for part in path:
        kinds = getattr(section.model_fields[part].annotation, "__args__", None)
        section = section.model_fields[part].annotation
        if kinds:
            section = next(k for k in kinds if inspect.isclass(k) and issubclass(k, BaseModel))
    return list(section.model_fields)


def shown(value: Any) -> str:
    """A value as TOML would have it; nothing for tables and long lists."""
    if isinstance(value, dict):
        return ""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else ""
