"""Every route against its own description: no answer that is not described, none that says the server is at fault."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.exchange import Exchange, api, sign_in

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ALL = list(HealthCheck)
EXAMPLES = 12  # of each route

PUBLIC = re.compile(r"/v1/(codes|operations|deployment|health|session)|/health/|/metrics")


@pytest.fixture
def server(running: Exchange) -> Iterator[httpx.Client]:
    """With something in it of every kind a consumer may see, and signed in as the consumer."""
    terms = running.open()
    consumer = running.consumer(terms)
    for _ in range(3):
        consumer.use(running.version, "RESEARCH", {"limit": "5"})
    running.settle(terms, consumer.sign_head())
    running.follow()
    with api(running) as client:
        client.headers.update(sign_in(client, running.world.consumer))
        yield client


def test_every_route_keeps_to_its_description(server: httpx.Client) -> None:
    schema = schemathesis.openapi.from_url(f"{server.base_url}/openapi.json")
    headers = {"Authorization": server.headers["Authorization"]}
    tried: Counter[str] = Counter()
    wrong: list[str] = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        # A stream has no end: it has tests of its own. Signing out would leave the others without a session.
        if operation.label in ("GET /v1/events/stream", "DELETE /v1/session"):
            continue

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=ALL)
        @given(case=operation.as_strategy())
        def keeps(case: Case[Any]) -> None:
            tried[case.operation.label] += 1
            case.call_and_validate(headers=headers, checks=CHECKS, timeout=20)

        try:
            keeps()
        except BaseExceptionGroup as problem:
            wrong.append(str(problem.exceptions))
        except AssertionError as problem:
            wrong.append(str(problem))
    assert not wrong, "\n\n".join(wrong)
    assert len(tried) >= 45
    assert server.get("/v1/session").status_code == 200


def test_every_route_is_described_with_words_examples_and_problems(server: httpx.Client) -> None:
    document = server.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            where = f"{verb} {path}"
            assert operation["summary"], where
            for parameter in operation.get("parameters", []):
                described = parameter.get("description") or json.dumps(parameter["schema"])
                assert re.search(r"examples|description|enum|pattern|boolean|[a-z] [a-z]", described), (
                    where,
                    parameter,
                )
            for status, answer in operation["responses"].items():
                content = answer.get("content", {})
                if int(status) >= 400 and not path.startswith(("/health", "/v1/health")):
                    assert set(content) == {"application/problem+json"}, (where, status)
            if "401" in operation["responses"] and where != "post /v1/session":
                assert operation["security"] == [{"session": []}], where
            if verb == "get" and not PUBLIC.match(path) and not path.startswith("/v1/webhooks"):
                names = {p["name"] for p in operation["parameters"]}
                assert path.endswith("/stream") or {"at_block", "Ledger-Min-Block"} <= names, where


def test_every_model_that_is_sent_or_shown_has_examples(server: httpx.Client) -> None:
    """Every leaf that is text has an example, a pattern or its values, so that a page shows something real."""
    for name, model in server.get("/openapi.json").json()["components"]["schemas"].items():
        for field, shape in model.get("properties", {}).items():
            text = json.dumps(shape)
            if '"type": "string"' in text and name not in ("Problem",):
                assert re.search(r"examples|pattern|enum|const|maxLength|null|description", text), (name, field)
