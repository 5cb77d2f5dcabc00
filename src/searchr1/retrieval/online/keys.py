"""What engines behind somebody's API share: keys that stay secret, and several requests at one moment."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar

import httpx

from searchr1.errors import SearchUnavailable, UserError

_T = TypeVar("_T")
_SHORTEST_SECRET = 8  # characters of a key that are hidden even where a message was cut in its midst
_KEY_IN_URL = re.compile(r"([?&](?:api_key|key|cx)=)[^&\s\"']+")


def key_from(variable: str, what: str) -> str:
    """The environment variable's value. Raises UserError, which names it, where it is unset, empty or no header."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"{what} needs an API key: set the environment variable {variable}")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{what}: expected a key of printable ASCII in {variable}, got other characters; set it again")
    return key


def hide(text: str, secrets: Iterable[str]) -> str:
    """``text`` without the secrets, also where only their first characters (8 or more) stand in it.

    >>> hide("GET /?key=s3cr3t-0123: bad key s3cr3t-01...", ["s3cr3t-0123"])
    'GET /?key=***: bad key ***...'
    """
    for secret in secrets:
        for length in range(len(secret), min(_SHORTEST_SECRET, len(secret)) - 1, -1):
            if secret:
                text = text.replace(secret[:length], "***")
    return text


async def secretly(asked: Awaitable[_T], secrets: Sequence[str]) -> _T:
    """The result of ``asked``; its SearchUnavailable is raised anew without secrets and without causes."""
    try:
        return await asked
    except SearchUnavailable as error:
        failure = type(error)(hide(str(error), secrets))
    raise failure  # outside of the handler: the causes, which a traceback prints, hold the secrets too


def hide_keys_in_logs() -> None:
    """Make httpx, which logs every URL, leave out the keys that some APIs want in theirs."""
    logging.getLogger("httpx").addFilter(_without_keys)  # adding it twice adds it once


def _without_keys(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            _KEY_IN_URL.sub(r"\1***", str(value)) if isinstance(value, httpx.URL | str) else value
            for value in record.args
        )
    return True


def is_local(url: str) -> bool:
    """Whether the URL names this machine, towards which no proxy is used.

    >>> is_local("http://127.0.0.1:8000/v1"), is_local("https://api.example.com/v1")
    (True, False)
    """
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


async def together(awaited: Iterable[Awaitable[_T]]) -> list[_T]:
    """All results, in order; at the first error, which is raised, what still runs is cancelled."""
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(one) for one in awaited]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
