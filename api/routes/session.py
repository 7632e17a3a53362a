"""Signing in with a wallet, and out again."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import schemas
from api.deps import SessionDep, StateDep
from api.problems import PRIVATE, PROBLEMS
from api.reading import run

router = APIRouter(prefix="/v1/session", tags=["session"], responses=PROBLEMS)


@router.post("/nonce", summary="A nonce for the message to sign; used once, within ten minutes")
async def nonce(here: StateDep) -> schemas.Nonce:
    made, expires = await run(here, here.sessions.nonce)
    return schemas.Nonce(nonce=made, expires_at=expires)


@router.post("", summary="A session for a message of EIP-4361, signed by the wallet it names", responses=PRIVATE)
async def sign_in(here: StateDep, request: schemas.SignInRequest) -> schemas.NewSession:
    token, made = await run(here, lambda: here.sessions.open(request.message, request.signature))
    return schemas.NewSession(token=token, wallet=made.wallet, expires_at=made.expires_at)


@router.get("", summary="Who is signed in", responses=PRIVATE)
async def session(found: SessionDep) -> schemas.Session:
    return schemas.Session(wallet=found.wallet, expires_at=found.expires_at)


@router.delete("", summary="Sign out", status_code=204, responses=PRIVATE)
async def sign_out(here: StateDep, found: SessionDep, request: Request) -> Response:
    token = request.headers["authorization"][7:].strip()
    await run(here, lambda: here.sessions.close(token))
    return Response(status_code=204)
