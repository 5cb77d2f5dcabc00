"""A thousand requests that schemathesis makes of the server's own OpenAPI document, most of them wrong."""

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.serving.server import create_app
from searchr1.types import Passage

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")

PASSAGES = [Passage(str(row), "Dune", "A novel. \u202e小説 <b>&amp;", 2.5 - row) for row in range(4)]
REQUESTS = 250  # of each kind
# What a description cannot say: 5.0 is an integer to JSON Schema, and offset + limit has a limit of its own.
UNSAYABLE = re.compile(r"got `float`|\"offset\": expected a number from 0 to 1000 - limit")


@pytest.fixture(scope="module")
def schema() -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(DictionaryRetriever({}, PASSAGES)))


@pytest.mark.parametrize("mode", ["negative", "positive"])
@pytest.mark.parametrize("path", ["/retrieve", "/search"])
def test_no_request_breaks_the_server_and_every_answer_is_as_described(schema: Any, path: str, mode: str) -> None:
    from schemathesis.generation.modes import GenerationMode
    from schemathesis.python import asgi
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    statuses = []
    generated = schema[path]["POST"].as_strategy(generation_mode=GenerationMode(mode))

    @settings(max_examples=REQUESTS, database=None, suppress_health_check=list(HealthCheck))
    @given(case=generated)
    def ask(case: Any) -> None:
        response = case.call(session=client)
        statuses.append(response.status_code)
        refused_rightly = response.status_code == 400 and UNSAYABLE.search(response.json()["error"])
        case.validate_response(response, excluded_checks=[positive_data_acceptance] if refused_rightly else None)
        assert response.status_code in (200, 400)

    with asgi.get_client(schema.app) as client:
        ask()
    assert len(statuses) >= REQUESTS
    assert set(statuses) == {200, 400} if mode == "positive" else statuses.count(400) > 200
