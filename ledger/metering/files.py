"""Published files as an application to be metered: ranges of rows, or the file itself, in pieces if asked.

Every file is compared with the digests of its version before it is served.
"""

import re
from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ledger.core.errors import InputInvalid, NotFound, SluiceError
from ledger.core.ids import Hash32, parse_hash
from ledger.metering.middleware import Metered
from ledger.metering.problems import problem_of
from ledger.metering.sources import Source

PATH = "/v1/data/{version}"
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})\Z")


class Files:
    """ASGI: `GET /v1/data/{version}`, of rows with `from` and `limit`, of a file with `Range: bytes=first-last`."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources: Mapping[Hash32, Source] = {source.version: source for source in sources}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            response = self._answer(request)
        except SluiceError as problem:
            response = problem_of(problem)
        await response(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        prefix, _, version = request.url.path.rpartition("/")
        if request.method != "GET" or not prefix.endswith("/v1/data"):
            raise NotFound(f"there is no {request.method} {request.url.path}")
        source = self._sources.get(parse_hash(version, "version"))
        if source is None:
            raise NotFound(f"this gateway does not serve version {version}")
        if source.kind == "rows":
            return Response(source.select(dict(request.query_params)), media_type="application/json")
        if request.url.query:
            raise InputInvalid("a file has no parameters; ask for a piece with Range", field="query")
        length, asked = len(source.content), request.headers.get("range")
        headers = {"accept-ranges": "bytes"}
        if asked is None:
            return Response(source.piece(0, length), 200, headers, source.media_type)
        first, last = _range(asked, length)
        headers["content-range"] = f"bytes {first}-{last}/{length}"
        return Response(source.piece(first, last + 1), 206, headers, source.media_type)


def _range(asked: str, length: int) -> tuple[int, int]:
    """The one form of RFC 9110's ranges that is served: bytes=first-last, or bytes=first-."""
    found = _RANGE.match(asked)
    if not found:
        raise InputInvalid(f"a range is bytes=first-last, not {asked[:60]!r}", field="Range")
    first = int(found[1])
    last = min(int(found[2]) if found[2] else length - 1, length - 1)
    if first > last:
        raise InputInvalid(f"the file has {length} bytes; {asked} is none of them", field="Range")
    return first, last


def metered(sources: Sequence[Source]) -> list[Metered]:
    """One rule for each source: its modality is that of its kind."""
    return [
        Metered(PATH.format(version=source.version), version=source.version, modality=source.modality)
        for source in sources
    ]
