"""An issuer's key set, and a service that accepts its tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from responder.dev.tokens import ISSUER, Mint
from tests.key_sets import Endpoint, listening, published


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with listening(Endpoint()) as found:
        yield found


@pytest.fixture
def request_timeout() -> str:
    """Seconds that a request may take."""
    return "10"


@pytest.fixture
async def keyed_service(endpoint, tmp_path, *, template, create_database, start, request_timeout):
    mint = Mint()
    endpoint.body = published(mint, path=tmp_path / "x")
    service = await start(
        await create_database(template=template[0]),
        RESPONDER_JWKS_URL=endpoint.url,
        RESPONDER_JWT_ISSUER=ISSUER,
        RESPONDER_JWT_AUDIENCE=ISSUER,
        RESPONDER_HTTP_AUTH="required",
        RESPONDER_TIMEOUT=request_timeout,
    )
    return service, mint
