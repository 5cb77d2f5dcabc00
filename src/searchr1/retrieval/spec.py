"""From what the user wrote after ``--retriever`` to a retriever that is known to answer.

A spec is one of

    DIR                       an index folder
    http://A,http://B         one or several ``/retrieve`` servers
    KIND:key=value,...        a search engine of `SEARCH_ENGINES` with options, as ``random:index=wiki.bm25``
    FILE.toml                 the same as a table: ``kind = "rerank"``, and its options
    {"kind": ..., ...}        that table itself, as ``[retriever]`` of a recipe; its search engines are specs again

A kind of index (`BACKENDS`) is no search engine before it was built from a corpus: see `built_kind`.
"""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

from searchr1.errors import SearchUnavailable, UserError, nearest
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval import BACKENDS, SEARCH_ENGINES
from searchr1.retrieval.counting import ASKED
from searchr1.retrieval.index import open_index, read_manifest
from searchr1.retrieval.options import build_options, parse_value
from searchr1.retrieval.policy import Policy
from searchr1.types import Question

Spec: TypeAlias = str | Mapping[str, Any]
_PROBE = "capital of France"
_HOW_REACHED = ("policy", "token", "key_env", "batch_size", "cost")
_KIND = re.compile(r"([a-z][a-z0-9_-]*)(?::(.*))?", re.DOTALL)
_KEY = re.compile(r",(?=[a-z_.]+=)")


class SearchEngine(Protocol):
    """One kind of search engine: a frozen dataclass whose fields are its options."""

    def open(self) -> Retriever:
        """Nothing is contacted here: see `check_retriever`. Raises UserError."""


def open_retriever(spec: Spec, *, hasty: bool = False) -> Retriever:
    """The retriever that ``spec`` describes; a ``hasty`` one gives up within seconds, to find out whether it works.

    Haste is for the engine itself: those that it is made of (`fusion`, `rerank`, ...) keep their own policies. Raises
    UserError; no server is contacted.
    """
    table = _table(spec)
    if table is None:
        return open_index(str(spec))
    kind = str(table.get("kind", ""))
    if kind not in SEARCH_ENGINES:
        known = list(dict.fromkeys([*SEARCH_ENGINES, *BACKENDS]))
        if kind in BACKENDS:
            raise UserError(
                f"retriever: a {kind} index is built from a corpus first: "
                f"`searchr1 index build CORPUS --kind {kind} --out DIR`, then give DIR"
            )
        raise UserError(f"retriever: there is no kind of search engine {kind!r}{nearest(kind, known)}")
    module, _, name = SEARCH_ENGINES[kind].partition(":")
    cls = getattr(importlib.import_module(module), name)
    options = {key: value for key, value in table.items() if key != "kind"}
    engine: SearchEngine = build_options(cls, options, f"a {kind} search engine")
    policy = getattr(engine, "policy", None)
    if hasty and isinstance(policy, Policy):
        hurried = replace(policy, timeout=min(policy.timeout, 10.0), retries=min(policy.retries, 1))
        engine = replace(cast(Any, engine), policy=hurried)
    return engine.open()


def is_server(spec: Spec) -> bool:
    """Whether it is a ``/retrieve`` server, which may be asked for nothing to see whether it is up."""
    table = _table(spec)
    return table is not None and table.get("kind") == "http"


def identity(spec: Spec) -> str:
    """What tells an engine from others over the same corpus, as JSON: its options, without how it is reached.

    >>> identity({"kind": "http", "url": "http://127.0.0.1:8000", "policy": {"retries": 1}})
    '{"kind": "http"}'
    >>> identity("web:provider=serper,pages=true")
    '{"kind": "web", "pages": true, "provider": "serper"}'
    """
    table = _table(spec)
    if table is None:
        manifest = read_manifest(str(spec))
        table = {"kind": manifest.kind, **manifest.options}
    reached = {*_HOW_REACHED, *(["url"] if table.get("kind") == "http" else [])}
    return json.dumps({key: value for key, value in table.items() if key not in reached}, sort_keys=True)


def built_kind(spec: Spec) -> tuple[str, dict[str, Any]] | None:
    """Kind and options, where ``spec`` is a kind of index to be built from a corpus; None where it can be opened.

    >>> built_kind("bm25")
    ('bm25', {})
    >>> built_kind("bm25:title_weight=0.2")
    ('bm25', {'title_weight': 0.2})
    >>> built_kind("http://127.0.0.1:8000") is None
    True
    """
    table = None if isinstance(spec, str) and Path(spec).is_dir() else _table(spec)
    if table is None or table.get("kind") not in BACKENDS or table.get("kind") in SEARCH_ENGINES:
        return None
    return str(table["kind"]), {key: value for key, value in table.items() if key != "kind"}


async def check_retriever(retriever: Retriever) -> RetrieverInfo:
    """Search once, so that a run fails when it starts and not an hour later; what it searches in.

    Raises UserError when the search engine is down or answers garbage.
    """
    asked = ASKED.set(Question("probe", _PROBE, ("Paris",)))
    try:
        found = await retriever.search([_PROBE], 1)
        info = await retriever.info()
    except SearchUnavailable as error:
        raise UserError(f"the search engine does not work: {error}; start it, or correct `retriever`") from error
    finally:
        ASKED.reset(asked)
    if len(found) != 1 or len(found[0]) > 1:
        counts = [len(hits) for hits in found]
        raise UserError(f"the search engine does not work: asked one query for one passage, got {counts} passages")
    return info


def check_corpus(info: RetrieverInfo, corpus_hash: str) -> None:
    """Raises UserError when the retriever is known to search in another corpus than the one with this hash."""
    if info.corpus_hash and corpus_hash and info.corpus_hash != corpus_hash:
        raise UserError(
            f"the {info.kind} index was built from another corpus (its hash is {info.corpus_hash[:12]}..., the corpus "
            f"has {corpus_hash[:12]}...); build it again from this corpus, or correct `data.corpus`"
        )


def _table(spec: Spec) -> dict[str, Any] | None:
    """The table that a spec stands for; None for a folder. Raises UserError for what is neither."""
    if not isinstance(spec, str):
        return dict(spec)
    if spec.startswith(("http://", "https://")):
        return {"kind": "http", "url": spec}
    path = Path(spec)
    if spec and path.is_dir():
        return None
    if path.suffix == ".toml" and path.is_file():
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: expected a search engine in TOML: {error}") from error
    written = _KIND.fullmatch(spec)
    known = [*SEARCH_ENGINES, *BACKENDS]
    if (spec and path.exists()) or not written or written[1] not in known:
        raise UserError(
            "retriever: expected an index folder, a URL (http://HOST:PORT), KIND:key=value or a .toml file, got "
            f"{spec!r}{nearest(written[1], known) if written and written[1] else ''}"
        )
    return {"kind": written[1], **_inline(written[2] or "", spec)}


def _inline(text: str, spec: str) -> dict[str, Any]:
    """``key=value,key.inner=value`` as a table; a comma is part of a value unless a key follows."""
    table: dict[str, Any] = {}
    for pair in _KEY.split(text) if text else []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"retriever: expected KIND:key=value,key=value, got {spec!r}")
        *outer, last = key.split(".")
        inner = table
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = parse_value(value)
    return table
