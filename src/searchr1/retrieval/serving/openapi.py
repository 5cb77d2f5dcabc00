"""The OpenAPI document of the search server: its schemas come from the very types that decode and encode the bodies."""

from __future__ import annotations

from typing import Any

import msgspec

from searchr1 import __version__
from searchr1.retrieval.serving.wire import (
    Document,
    Failure,
    Health,
    Limits,
    RetrieveRequest,
    ScoredDocument,
    SearchRequest,
    SearchResults,
)

OPEN_PATHS = frozenset({"/", "/health"})
"""What may be read without the token: nothing of the corpus."""
_TYPES = (RetrieveRequest, SearchRequest, Document, ScoredDocument, SearchResults, Health, Failure)
_STATUSES = {
    400: "The body is not what is expected; the error says what is.",
    401: "The token is missing or wrong.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    500: "A bug of the server.",
    503: "The search engine does not answer, or too many searches are under way (then with Retry-After).",
}


def describe(limits: Limits, *, secured: bool = False) -> dict[str, Any]:
    """The document for a server with these limits; ``secured`` for one that wants a token.

    >>> sorted(describe(Limits(topk=20))["paths"])
    ['/health', '/retrieve', '/search']
    >>> describe(Limits(topk=20))["components"]["schemas"]["RetrieveRequest"]["properties"]["topk"]["anyOf"][0]
    {'type': 'integer', 'minimum': 1, 'maximum': 20}
    """
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    _limit(schemas, limits)
    components: dict[str, Any] = {"schemas": schemas}
    if secured:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    asked: dict[str, Any] = {"security": [{"token": []}]} if secured else {}
    found = {"anyOf": [_lists_of("ScoredDocument"), _lists_of("Document")]}
    retrieved = {"type": "object", "required": ["result"], "properties": {"result": found}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "searchr1 search server", "version": __version__},
        "paths": {
            "/retrieve": {
                "post": {
                    "summary": "Passages for many queries, as Search-R1 asks for them.",
                    "operationId": "retrieve",
                    "requestBody": _body("RetrieveRequest"),
                    "responses": _responses("One list of passages for each query, best first.", retrieved, secured),
                    **asked,
                }
            },
            "/search": {
                "post": {
                    "summary": "One page of results, with snippets.",
                    "operationId": "search",
                    "requestBody": _body("SearchRequest"),
                    "responses": _responses("The results.", _named("SearchResults"), secured),
                    **asked,
                }
            },
            "/health": {
                "get": {
                    "summary": "What is searched, and whether it answers.",
                    "operationId": "health",
                    "responses": {
                        "200": _json("It answers.", _named("Health")),
                        "500": _json(_STATUSES[500], _named("Failure")),
                        "503": _json("It does not.", _named("Health")),
                    },
                }
            },
        },
        "components": components,
    }


def _limit(schemas: dict[str, Any], limits: Limits) -> None:
    """Write the limits into the schemas, which know only types."""
    text = {"type": "string", "maxLength": limits.query_characters}
    asked = schemas["RetrieveRequest"]["properties"]
    asked["queries"] = {"type": "array", "items": text, "maxItems": limits.queries}
    asked["topk"] = {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": limits.topk}, {"type": "null"}],
        "description": f"Passages for each query; {limits.default_topk} where it is missing or null.",
    }
    searched = schemas["SearchRequest"]["properties"]
    page = min(limits.page, limits.topk)
    searched["query"] = text
    searched["limit"].update(minimum=1, maximum=page)
    searched["offset"].update(minimum=0, maximum=limits.topk - 1, description=f"offset + limit: {limits.topk} at most")


def _responses(description: str, schema: dict[str, Any], secured: bool) -> dict[str, Any]:
    failures = {
        str(status): _json(meaning, _named("Failure"))
        for status, meaning in _STATUSES.items()
        if status != 401 or secured
    }
    failures["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return {"200": _json(description, schema), **failures}


def _named(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _lists_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "array", "items": _named(name)}}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _body(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": _named(name)}}}
