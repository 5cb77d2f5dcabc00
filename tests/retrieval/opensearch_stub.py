"""A stand-in for an OpenSearch cluster: a few calls of its REST API, checked strictly, answered from memory.

Whatever a request holds that is not known here to be documented (a path, a parameter, a key of a body) is answered
with 400 and kept in ``complaints``, which the fixture expects to be empty. Words are scored by BM25, vectors exactly.
Faults can be planned. Documents are seen by searches after a refresh only, as on a cluster that does not refresh by
itself.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import socket
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

Json = dict[str, Any]
STOP = {
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of",
    "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
}  # fmt: skip
SETTINGS = {"number_of_shards", "number_of_replicas", "refresh_interval", "similarity", "analysis", "knn"}
FIELD_PARAMETERS = {
    "keyword": {"type", "index", "doc_values"},
    "long": {"type"},
    "text": {"type", "analyzer"},
    "knn_vector": {"type", "dimension", "method"},
}
METHOD = {"name", "engine", "space_type", "parameters"}
FILTERS = {"lowercase", "asciifolding", "stop"}
MAPPING = {"dynamic", "_meta", "_source", "properties"}
SEARCH = {"query", "size", "_source", "track_total_hits", "sort", "track_scores"}
MULTI_MATCH = {"query", "type", "fields"}
KNN = {"vector", "k"}
BULK_ACTION = {"_id"}
MAX_CLAUSES = 1024


class Bad(Exception):
    """What the cluster answers with an error; ``documented`` errors are no fault of the request's form."""

    def __init__(self, kind: str, reason: str, status: int = 400, documented: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.documented = documented
        self.body = {"error": {"root_cause": [], "type": kind, "reason": reason}, "status": status}


@dataclass
class Index:
    settings: Json
    mappings: Json
    written: dict[str, Json] = field(default_factory=dict)
    visible: dict[str, Json] = field(default_factory=dict)


@dataclass
class Fault:
    """What happens to the next ``times`` requests whose path ends so."""

    path: str
    status: int = 503
    body: bytes = b'{"error": {"type": "unavailable", "reason": "planned"}, "status": 503}'
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    times: int = 1


class Stub:
    def __init__(self, url: str = "") -> None:
        self.url = url
        self.open_requests = 0
        self.reset()

    def reset(self) -> None:
        self.indices: dict[str, Index] = {}
        self.complaints: list[str] = []
        self.requests: list[tuple[str, str, bytes]] = []
        self.faults: list[Fault] = []
        self.busy: Counter[str] = Counter()
        """How often each ``_id`` will still be rejected with 429."""
        self.poison: set[str] = set()
        """Titles of documents that the cluster never takes."""
        self.password = ""
        """``user:password``; without one nobody is asked for it."""
        self.seconds = 0.0
        """What every request takes."""
        self.bulk = self._bulk
        """What a bulk request does."""
        self.most_open_requests = 0

    def paths(self, suffix: str) -> list[bytes]:
        """The bodies of the requests whose path ends so."""
        return [body for _, path, body in self.requests if path.endswith(suffix)]

    async def __call__(self, scope: Json, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.open_requests += 1
        self.most_open_requests = max(self.most_open_requests, self.open_requests)
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
            status, headers, answer = await self._answer(scope, body)
        finally:
            self.open_requests -= 1
        names = [(b"content-type", b"application/json"), *headers]
        await send({"type": "http.response.start", "status": status, "headers": names})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, scope: Json, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        method, path = scope["method"], scope["path"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((method, path, body))
        if self.password:
            expected = "Basic " + base64.b64encode(self.password.encode()).decode()
            if headers.get("authorization") != expected:
                return 401, [], b"Unauthorized"
        for fault in self.faults:
            if path.endswith(fault.path) and fault.times:
                fault.times -= 1
                await asyncio.sleep(fault.seconds)
                return fault.status, [(name.encode(), value.encode()) for name, value in fault.headers], fault.body
        try:
            need(not scope["query_string"], f"unknown parameters {scope['query_string']!r}")
            return 200, [], json.dumps(self._route(method, path, body, headers)).encode()
        except Bad as bad:
            if not bad.documented:
                self.complaints.append(f"{method} {path}: {bad}")
            return bad.status, [], json.dumps(bad.body).encode()

    def _route(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Json:
        _, name, *rest = path.split("/")
        need(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) is not None, f"bad index name {name!r}")
        match (method, *rest):
            case ("PUT",):
                return self._create(name, read_json(body, headers))
            case ("DELETE",):
                self._index(name)
                del self.indices[name]
                return {"acknowledged": True}
            case ("GET", "_mapping"):
                need(not body, "a body that is not expected")
                return {name: {"mappings": self._index(name).mappings}}
            case ("PUT", "_mapping"):
                return self._put_mapping(self._index(name), read_json(body, headers))
            case ("PUT", "_settings"):
                return self._put_settings(self._index(name), read_json(body, headers))
            case ("POST", "_refresh"):
                need(not body, "a body that is not expected")
                index = self._index(name)
                index.visible = dict(index.written)
                return {"_shards": {"total": 1, "successful": 1, "failed": 0}}
            case ("GET" | "POST", "_count"):
                need(not body, "a body that is not expected")
                return {"count": len(self._index(name).visible), "_shards": shards()}
            case ("POST", "_bulk"):
                return self.bulk(name, lines(body, headers))
            case ("POST", "_msearch"):
                return self._msearch(name, lines(body, headers))
        raise Bad("illegal_argument_exception", f"no handler for {method} {path}")

    def _index(self, name: str) -> Index:
        if name not in self.indices:
            raise Bad("index_not_found_exception", f"no such index [{name}]", 404, documented=True)
        return self.indices[name]

    def _create(self, name: str, body: Json) -> Json:
        if name in self.indices:
            raise Bad("resource_already_exists_exception", f"index [{name}] already exists", 400, documented=True)
        known(body, {"settings", "mappings"}, "body")
        known(body["settings"], {"index"}, "settings")
        settings = body["settings"]["index"]
        known(settings, SETTINGS, "settings.index")
        for similarity in settings.get("similarity", {}).values():
            known(similarity, {"type", "k1", "b"}, "similarity")
            need(similarity["type"] == "BM25", "similarity")
        analyzers = check_analysis(settings.get("analysis", {}))
        known(body["mappings"], MAPPING, "mappings")
        known(body["mappings"].get("_source", {}), {"excludes"}, "_source")
        for field_name, parameters in body["mappings"]["properties"].items():
            need(parameters.get("type") in FIELD_PARAMETERS, f"type of {field_name}")
            known(parameters, FIELD_PARAMETERS[parameters["type"]], field_name)
            if parameters["type"] == "text" and parameters["analyzer"] not in {
                "standard",
                "english",
                "cjk",
                *analyzers,
            }:
                reason = f"analyzer [{parameters['analyzer']}] has not been configured in mappings"
                raise Bad("mapper_parsing_exception", reason, documented=True)
            if parameters["type"] == "knn_vector":
                need(settings.get("knn") is True, "knn_vector without index.knn")
                need(1 <= parameters["dimension"] <= 16_000, "dimension")
                known(parameters["method"], METHOD, "method")
                need(parameters["method"]["engine"] in ("faiss", "lucene"), "engine")
                need(parameters["method"]["space_type"] in ("l2", "innerproduct", "cosinesimil"), "space_type")
        self.indices[name] = Index(settings, body["mappings"])
        return {"acknowledged": True, "shards_acknowledged": True, "index": name}

    def _put_mapping(self, index: Index, body: Json) -> Json:
        known(body, {"_meta"}, "mapping")
        index.mappings = {**index.mappings, **body}
        return {"acknowledged": True}

    def _put_settings(self, index: Index, body: Json) -> Json:
        known(body, {"index"}, "settings")
        known(body["index"], {"refresh_interval", "number_of_replicas"}, "settings.index")
        index.settings = {**index.settings, **body["index"]}
        return {"acknowledged": True}

    def _bulk(self, name: str, rows: list[Json]) -> Json:
        if name not in self.indices:  # a cluster makes a missing index, of whatever the documents look like
            self.indices[name] = Index({}, {"properties": {}})
        need(len(rows) % 2 == 0, "an odd number of lines")
        items = [self._write(self.indices[name], rows[i], rows[i + 1]) for i in range(0, len(rows), 2)]
        return {"took": 1, "errors": any("error" in item["index"] for item in items), "items": items}

    def _write(self, index: Index, action: Json, document: Json) -> Json:
        known(action, {"index"}, "action")
        known(action["index"], BULK_ACTION, "action.index")
        key = action["index"]["_id"]
        need(isinstance(key, str) and 0 < len(key.encode()) <= 512, "_id")
        if self.busy[key] > 0:
            self.busy[key] -= 1
            reason = {"type": "rejected_execution_exception", "reason": "rejected execution of coordinating operation"}
            return {"index": {"_id": key, "status": 429, "error": reason}}
        properties = index.mappings["properties"]
        if index.mappings.get("dynamic") == "strict":
            need(set(document) <= set(properties), f"strict_dynamic_mapping_exception: {sorted(document)}")
        for field_name, parameters in properties.items():
            if parameters["type"] == "knn_vector":
                vector = document[field_name]
                need(len(vector) == parameters["dimension"], "vector of another dimension")
        if document.get("title") in self.poison:
            error = {
                "type": "mapper_parsing_exception",
                "reason": "failed to parse field [title]",
                "caused_by": {"type": "illegal_argument_exception", "reason": "planned"},
            }
            return {"index": {"_id": key, "status": 400, "error": error}}
        status = 200 if key in index.written else 201
        index.written[key] = document
        return {"index": {"_index": "x", "_id": key, "_version": 1, "result": "created", "status": status}}

    def _msearch(self, name: str, rows: list[Json]) -> Json:
        need(len(rows) % 2 == 0, "an odd number of lines")
        need(all(not header for header in rows[::2]), "headers that are not expected")
        responses = []
        for body in rows[1::2]:
            try:
                responses.append(search(self._index(name), body))
            except Bad as bad:
                if not bad.documented:
                    self.complaints.append(f"msearch: {bad}")
                responses.append(bad.body)
        return {"took": 1, "responses": responses}


def search(index: Index, body: Json) -> Json:
    known(body, SEARCH, "search")
    need(type(body["size"]) is int and 0 <= body["size"] <= 10_000, "size")
    need(all(isinstance(name, str) for name in body["_source"]), "_source")
    sort = body.get("sort", [{"_score": {"order": "desc"}}])
    for clause in sort:
        (name, order), *rest = clause.items()
        need(not rest and order["order"] in ("asc", "desc") and set(order) == {"order"}, "sort")
        need(name == "_score" or index.mappings["properties"][name]["type"] == "long", "sort")
    need(len(body["query"]) == 1, "a query of one kind")
    ((kind, query),) = body["query"].items()
    need(kind in ("multi_match", "knn"), f"query {kind}")
    scores = match_scores(index, query) if kind == "multi_match" else knn_scores(index, query)
    order = {key: place for place, key in enumerate(index.visible)}

    def rank(key: str) -> tuple[float, ...]:
        values = [scores[key] if name == "_score" else index.visible[key][name] for clause in sort for name in clause]
        signs = [-1 if way["order"] == "desc" else 1 for clause in sort for way in clause.values()]
        return (*(sign * value for sign, value in zip(signs, values, strict=True)), order[key])

    hits = []
    for key in sorted(scores, key=rank)[: body["size"]]:
        source = {name: value for name, value in index.visible[key].items() if name in body["_source"]}
        scored = "sort" not in body or body.get("track_scores") is True
        hits.append({"_index": "x", "_id": key, "_score": scores[key] if scored else None, "_source": source})
    total = {} if body.get("track_total_hits") is False else {"total": {"value": len(scores), "relation": "eq"}}
    found = {**total, "max_score": None, "hits": hits}
    return {"took": 1, "timed_out": False, "_shards": shards(), "hits": found, "status": 200}


def match_scores(index: Index, query: Json) -> dict[str, float]:
    """``most_fields``: the BM25 scores of the fields added; documents without a word of the query are left out."""
    known(query, MULTI_MATCH, "multi_match")
    need(isinstance(query["query"], str), "multi_match.query")
    need(query["type"] == "most_fields", "multi_match.type")
    words = analyze(query["query"])
    if len(words) * len(query["fields"]) > MAX_CLAUSES:
        raise Bad("search_phase_execution_exception", "too_many_nested_clauses", documented=True)
    constants = index.settings.get("similarity", {}).get("default", {"k1": 1.2, "b": 0.75})
    scores: dict[str, float] = {}
    for written in query["fields"]:
        name, _, boost = written.partition("^")
        texts = {key: Counter(analyze(str(document.get(name, "")))) for key, document in index.visible.items()}
        average = sum(text.total() for text in texts.values()) / max(1, len(texts)) or 1.0
        for word in words:
            having = [key for key, text in texts.items() if word in text]
            idf = math.log(1 + (len(texts) - len(having) + 0.5) / (len(having) + 0.5))
            for key in having:
                count, length = texts[key][word], texts[key].total()
                norm = constants["k1"] * (1 - constants["b"] + constants["b"] * length / average)
                scores[key] = scores.get(key, 0.0) + float(boost or 1) * idf * count / (count + norm)
    return scores


def knn_scores(index: Index, query: Json) -> dict[str, float]:
    """Every document, scored as the ``innerproduct`` space is: 1 + x, or 1 / (1 - x) below zero."""
    ((name, near),) = query.items()
    known(near, KNN, "knn")
    field_type = index.mappings["properties"].get(name, {})
    if field_type.get("type") != "knn_vector" or field_type["dimension"] != len(near["vector"]):
        raise Bad("query_shard_exception", f"field {name} is no vector of this dimension", documented=True)
    need(type(near["k"]) is int and 1 <= near["k"] <= 10_000, "k")
    products = {
        key: sum(a * b for a, b in zip(near["vector"], document[name], strict=True))
        for key, document in index.visible.items()
    }
    scores = {key: 1 + x if x >= 0 else 1 / (1 - x) for key, x in products.items()}
    return dict(sorted(scores.items(), key=lambda item: -item[1])[: near["k"]])


def analyze(text: str) -> list[str]:
    folded = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    return [word for word in re.findall(r"\w+", folded) if word not in STOP]


def check_analysis(analysis: Json) -> set[str]:
    """The names of the analyzers that it defines."""
    known(analysis, {"analyzer", "filter"}, "analysis")
    own = analysis.get("filter", {})
    for made in own.values():
        known(made, {"type", "language"}, "filter")
        need(made["type"] == "stemmer" and made["language"] in ("english", "porter2"), "filter")
    for analyzer in analysis.get("analyzer", {}).values():
        known(analyzer, {"type", "tokenizer", "filter"}, "analyzer")
        need((analyzer["type"], analyzer["tokenizer"]) == ("custom", "standard"), "analyzer")
        need(set(analyzer["filter"]) <= {*FILTERS, *own}, "analyzer.filter")
    return set(analysis.get("analyzer", {}))


def shards() -> Json:
    return {"total": 1, "successful": 1, "skipped": 0, "failed": 0}


def need(condition: bool, what: str) -> None:
    if not condition:
        raise Bad("illegal_argument_exception", what)


def known(table: Json, keys: set[str], what: str) -> None:
    need(isinstance(table, dict) and set(table) <= keys, f"unknown keys of {what}: {sorted(set(table) - keys)}")


def read_json(body: bytes, headers: dict[str, str]) -> Json:
    need(headers.get("content-type") == "application/json", "Content-Type header is not supported")
    return json.loads(body)


def lines(body: bytes, headers: dict[str, str]) -> list[Json]:
    need(headers.get("content-type") in ("application/x-ndjson", "application/json"), "Content-Type is not supported")
    need(body.endswith(b"\n"), "The bulk request must be terminated by a newline [\\n]")
    return [json.loads(line) for line in body.removesuffix(b"\n").split(b"\n")]


@contextmanager
def running() -> Iterator[Stub]:
    """A stand-in that listens on this machine until the block is left."""
    stub = Stub()
    # Told that it is TCP, asyncio switches Nagle's algorithm off, which would cost 40 ms a request.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        stub.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(stub, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.002)
        try:
            yield stub
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
