"""From tables of options to the frozen dataclasses that declare them."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from searchr1.errors import UserError, nearest

_T = TypeVar("_T")


def build_options(cls: type[_T], table: Mapping[str, Any], what: str) -> _T:
    """An instance of the dataclass ``cls``, tables within ``table`` becoming the dataclasses within it.

    Raises UserError, which names ``what``, for an unknown option, a missing one, and one of another type.
    """
    _check_known(cls, table, what)
    try:
        return msgspec.convert(dict(table), cls)
    except msgspec.ValidationError as error:
        raise UserError(f"options of {what}: {error}") from error


def parse_value(text: str) -> Any:
    """A TOML value where it is one, else the text itself.

    >>> parse_value("3"), parse_value("some/path")
    (3, 'some/path')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _check_known(cls: type[Any], table: Mapping[str, Any], what: str) -> None:
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cast(Any, cls))]
    for option, value in table.items():
        if option not in known:
            raise UserError(f"option {option!r} of {what} is unknown{nearest(option, known)}")
        if dataclasses.is_dataclass(hints[option]) and isinstance(value, Mapping):
            _check_known(cast(type[Any], hints[option]), value, f"{what}, {option}")
