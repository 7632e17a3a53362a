"""`make client`: writes `ledger/client/routes.py` and `types.py` from the API's own description.

Example:  python -m api.generate_client --check
"""

import argparse
import json
import keyword
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from api.app import describe

TARGET = Path(__file__).parents[1] / "ledger" / "client"
BY_HAND = {"stream"}  # what is not one request and one answer
RENAMED = {"sign_in": "open_session", "sign_out": "close_session"}  # what is more than this request in the client

TYPES = '''"""What the API sends and takes, as types. Written by `make client`: do not edit."""

from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

T = TypeVar("T")


class Page(TypedDict, Generic[T]):
    """`next` is what to pass as `after` for the next page; None at the end."""

    items: list[T]
    next: str | None
'''

ROUTES = '''"""Every request of the API as a method. Written by `make client`: do not edit."""

from typing import Any, Literal, cast
from urllib.parse import quote

from ledger.client import types


def _headers(min_block: int | None) -> dict[str, str] | None:
    return None if min_block is None else {"Ledger-Min-Block": str(min_block)}


def _params(**asked: Any) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


class Routes:
    """What the client can ask for; `request` is the client's."""

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any) -> Any:
        raise NotImplementedError
'''


def kind(shape: dict[str, Any], prefix: str = "") -> str:
    """A JSON schema as a Python type."""
    if "$ref" in shape:
        return _name(shape["$ref"].rsplit("/", 1)[1], prefix)
    if "anyOf" in shape:
        return " | ".join(dict.fromkeys(kind(one, prefix) for one in shape["anyOf"]))
    if "const" in shape:
        return f"Literal[{shape['const']!r}]"
    if "enum" in shape:
        return f"Literal[{', '.join(repr(value) for value in shape['enum'])}]"
    match shape.get("type"):
        case "array":
            return f"list[{kind(shape.get('items', {}), prefix)}]"
        case "object":
            inner = shape.get("additionalProperties", True)
            return f"dict[str, {kind(inner, prefix) if isinstance(inner, dict) else 'Any'}]"
        case "string" | "integer" | "number" | "boolean" | "null" as plain:
            return {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}[plain]
    return "Any"


def _name(component: str, prefix: str) -> str:
    if component.startswith("Page_"):
        return f"{prefix}Page[{prefix}{component[5:].strip('_')}]"
    return prefix + component


def types(document: dict[str, Any]) -> str:
    text = [TYPES]
    for name, model in _in_order(document["components"]["schemas"]):
        required = set(model.get("required", ()))
        text.append(f"\n\nclass {name}(TypedDict):\n")
        if "description" in model:
            text.append(f"    {_words(model['description'])}\n\n")
        for field, shape in model["properties"].items():
            written = kind(shape)
            written = written if field in required else f"NotRequired[{written}]"
            text.append(f"    {field}: {written}\n")
    return "".join(text)


def _in_order(models: dict[str, Any]) -> list[tuple[str, Any]]:
    """By name, but what a model is made of before it."""
    found: dict[str, Any] = {}

    def add(name: str) -> None:
        model = models[name]
        if name in found or name.startswith("Page_") or model.get("type") != "object":
            return
        for inner in re.findall(r"#/components/schemas/(\w+)", json.dumps(model)):
            add(inner)
        found[name] = model

    for name in sorted(models):
        add(name)
    return list(found.items())


def _words(description: str) -> str:
    return f'"""{" ".join(description.split())}"""'


def routes(document: dict[str, Any]) -> str:
    text = [ROUTES]
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            if operation["operationId"] not in BY_HAND:
                text.append(_method(path, verb.upper(), operation))
    return "".join(text)


def _method(path: str, verb: str, operation: dict[str, Any]) -> str:
    name = RENAMED.get(operation["operationId"], operation["operationId"])
    parameters = operation.get("parameters", [])
    in_path = [p["name"] for p in parameters if p["in"] == "path"]
    asked = [p for p in parameters if p["in"] == "query" and p["name"] != "format"]
    waits = any(p["name"] == "Ledger-Min-Block" for p in parameters)
    signature, options = ["self"], []
    signature += [f"{parameter}: str" for parameter in in_path]
    if "requestBody" in operation:
        signature.append(f"body: {kind(operation['requestBody']['content']['application/json']['schema'], 'types.')}")
        options.append("json=body")
    if asked or waits:
        signature.append("*")
    signature += [_parameter(p) for p in sorted(asked, key=lambda p: not p.get("required", False))]
    if waits:
        signature.append("min_block: int | None = None")
        options.append("headers=_headers(min_block)")
    if asked:
        options.append("params=_params({})".format(", ".join(f"{p['name']}={_safe(p['name'])}" for p in asked)))
    where = "".join(f"{{quote({part[1:-1]}, safe='')}}" if part.startswith("{") else part for part in _parts(path))
    quoted = f'f"{where}"' if in_path else f'"{path}"'
    result = _result(operation["responses"])
    call = f"self.request({', '.join([repr(verb), quoted, *options])})"
    body = call if result == "None" else f"return cast({result!r}, {call})"
    doc = _words(operation["summary"])
    return f"\n    def {name}({', '.join(signature)}) -> {result}:\n        {doc}\n        {body}\n"


def _parts(path: str) -> list[str]:
    return [part for piece in path.replace("}", "}\0").split("\0") for part in _cut(piece) if part]


def _cut(piece: str) -> list[str]:
    before, brace, name = piece.partition("{")
    return [before, brace + name]


def _safe(name: str) -> str:
    return name + "_" if keyword.iskeyword(name) else name


def _parameter(parameter: dict[str, Any]) -> str:
    name, shape = _safe(parameter["name"]), parameter["schema"]
    written = kind(shape)
    if parameter.get("required"):
        return f"{name}: {written}"
    if "None" not in written.split(" | "):
        written += " | None"
    return f"{name}: {written} = None"


def _result(responses: dict[str, Any]) -> str:
    for status in ("200", "201", "202"):
        content = responses.get(status, {}).get("content", {})
        if "application/json" in content:
            return kind(content["application/json"]["schema"], "types.")
    return "None"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not what it should be")
    options = parser.parse_args()
    document = describe(FastAPI())
    stale = []
    for file, text in (("types.py", types(document)), ("routes.py", routes(document))):
        command = ["ruff", "format", "-q", "--stdin-filename", str(TARGET / file), "-"]
        made = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout  # noqa: S603
        path = TARGET / file
        if not path.exists() or path.read_text() != made:
            stale.append(file)
            if not options.check:
                path.write_text(made)
                print(f"wrote {path}")
    if stale and options.check:
        print(f"✗ {', '.join(stale)}: not what the API is described as; run `make client`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
