"""A token of a shared secret speaks for its user, and nothing else that may look like one does."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from responder.errors import UnauthenticatedError
from responder.tokens.identity import _OTHER_ENDS, MAX_TOKEN, verify
from responder.tokens.key_source import KeySource
from responder.tokens.shared_secret import SharedSecrets, parse
from responder.tokens.verifier import TokenVerifier
from tests.signing import (
    CLAIMS,
    ED,
    ISSUER,
    KEYS,
    KID,
    NOW,
    RSA,
    header,
    sign,
    sign_by_secret,
    trusted,
)

SECRET, NEWER = "the secret of an application; not short", "the next secret: ünd länger als 32"
USER = "KbO8WbOTItGbdi0KY5YfJyfimmurNJra"
DAY = 24 * 60 * 60
BOTH = trusted(secrets=SharedSecrets([SECRET, NEWER]))


def own(*without: str, now: float = NOW, **more: Any) -> dict[str, Any]:
    """Return the claims that an application writes, without some and with others."""
    every = {
        "userId": USER,
        "email": "zoe.lindqvist@lumen.example.com",
        "name": "Zoë Lindqvist",
        "role": "user",
        "emailVerified": True,
        "isAnonymous": False,
        "organizationId": "9RBGxYHOUXWoEsPAMPIvebNnIeXT3iud",
        "orgRole": "owner",
        "isActive": True,
        "iat": int(now),
        "exp": int(now) + DAY,
    }
    return {name: value for name, value in {**every, **more}.items() if name not in without}


def check(token: str, **changed: Any) -> Any:
    return verify(token, KEYS, trusted(secrets=BOTH.secrets, **changed), now=NOW)


def test_a_token_of_the_application_becomes_an_identity():
    """The identity has what the token says; what it does not say is null."""
    assert {
        "userId": USER,
        "email": "zoe.lindqvist@lumen.example.com",
        "name": "Zoë Lindqvist",
        "role": "user",
        "organizationId": "9RBGxYHOUXWoEsPAMPIvebNnIeXT3iud",
        "orgRole": "owner",
        "issuer": None,
        "audience": [],
        "issuedAt": "2027-01-15T08:00:00.000Z",
        "expiresAt": "2027-01-16T08:00:00.000Z",
    } == json.loads(check(sign_by_secret(own(), SECRET)).model_dump_json(by_alias=True))


GOOD: dict[str, tuple[Any, ...]] = {
    "the other secret": (own(), NEWER),
    "sub": (own("userId", "role", sub=USER), SECRET),
    "sub and userId": (own("role", sub=USER), SECRET),
    "a role that is null": (own(role=None), SECRET),
    "typ JWT": (own(), SECRET, {"typ": "JWT", "alg": "HS256"}),
    "a kid that means nothing": (own(), SECRET, {"alg": "HS256", "kid": 7}),
    "the kid of a key": (own(), SECRET, {"alg": "HS256", "kid": KID}),
    "iss and aud": (own(iss=ISSUER, aud=["https://other.example", ISSUER]), SECRET),
    "type access": (own(type="access"), SECRET),
    "just not expired": (own(exp=NOW - 29), SECRET),
    "inactive, which the row decides": (own(isActive=False), SECRET),
}


@pytest.mark.parametrize("signed", GOOD.values(), ids=GOOD)
def test_a_token_is_accepted_with(signed):
    """What applications write differently is the same token."""
    assert USER == check(sign_by_secret(*signed)).user_id


PUBLIC = RSA.public_key()
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
RAW = ED.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
HEAD = {"alg": "HS256"}
SIGNATURE = "the signature does not verify with RESPONDER_JWT_SECRET"
Hostile = dict[str, tuple[str, str]]


def wrongly_signed(now: float) -> Hostile:
    claims = own(now=now)
    good = sign_by_secret(claims, SECRET)
    return {
        "another secret": (sign_by_secret(claims, "x" * 40), SIGNATURE),
        "an empty secret": (sign_by_secret(claims, b""), SIGNATURE),
        "both secrets": (sign_by_secret(claims, f"{SECRET},{NEWER}"), SIGNATURE),
        "a secret cut off": (sign_by_secret(claims, SECRET[:-1]), SIGNATURE),
        "a public key as PEM": (sign_by_secret(claims, PEM, {**HEAD, "kid": "rsa"}), SIGNATURE),
        "a public key as DER": (sign_by_secret(claims, DER), SIGNATURE),
        "a public key's bytes": (sign_by_secret(claims, RAW, {**HEAD, "kid": KID}), SIGNATURE),
        "the key set": (sign_by_secret(claims, KEYS.document), SIGNATURE),
        "other claims": (
            ".".join(
                [
                    good.split(".")[0],
                    sign_by_secret(own(now=now, role="admin"), "x").split(".")[1],
                    good.split(".")[2],
                ]
            ),
            SIGNATURE,
        ),
        "no signature": (good.rpartition(".")[0] + ".", "not a JWT"),
        "a signature of zeros": (good.rpartition(".")[0] + "." + "A" * 43, SIGNATURE),
        "half a signature": (good[:-22], "signature"),
        "HS384": (sign_by_secret(claims, SECRET, {"alg": "HS384"}, digest="sha384"), "alg: not"),
        "HS512": (sign_by_secret(claims, SECRET, {"alg": "HS512"}, digest="sha512"), "alg: not"),
        "HS384 under HS256": (sign_by_secret(claims, SECRET, digest="sha384"), SIGNATURE),
        "alg none": (sign_by_secret(claims, SECRET, {"alg": "none"}), "alg: not"),
        "alg hs256": (sign_by_secret(claims, SECRET, {"alg": "hs256"}), "alg: not"),
        "EdDSA over HMAC": (sign_by_secret(claims, SECRET, header()), "the signature does not"),
        "HS256 over EdDSA": (sign(CLAIMS, {**HEAD, "kid": KID}), SIGNATURE),
        "EdDSA with the claims of a secret": (sign(claims), "iss"),
        "an access token": (sign_by_secret(claims, SECRET, {**HEAD, "typ": "at+jwt"}), "typ"),
        "crit": (sign_by_secret(claims, SECRET, {**HEAD, "crit": ["exp"]}), "header: crit"),
        "jwk": (sign_by_secret(claims, SECRET, {**HEAD, "jwk": {"kty": "oct"}}), "header: jwk"),
        "too long": (sign_by_secret(own(x="x" * MAX_TOKEN), SECRET), "longer than"),
    }


def wrong_claims(now: float) -> Hostile:
    """Return tokens with a good signature, each with the reason why it is refused."""

    def its(*without: str, **more: Any) -> dict[str, Any]:
        return own(*without, now=now, **more)

    link: dict[str, Any] = {"iat": int(now), "exp": int(now) + 3600}
    every: dict[str, tuple[object, str]] = {
        "iss of another": (its(iss="https://evil.example"), "RESPONDER_JWT_ISSUER"),
        "iss null": (its(iss=None), "RESPONDER_JWT_ISSUER"),
        "aud of another": (its(aud="https://evil.example"), "RESPONDER_JWT_AUDIENCE"),
        "aud empty": (its(aud=[]), "RESPONDER_JWT_AUDIENCE"),
        "aud null": (its(aud=None), "RESPONDER_JWT_AUDIENCE"),
        "exp missing": (its("exp"), "exp: missing"),
        "expired": (its(exp=int(now) - 31), "exp: the token has expired"),
        "exp text": (its(exp=f"{int(now) + 60}"), "exp: not a number"),
        "iat missing": (its("iat"), "iat: missing"),
        "iat in the future": (its(iat=int(now) + 60), "iat: in the future"),
        "nbf in the future": (its(nbf=int(now) + 60), "nbf: in the future"),
        "no user": (its("userId"), "sub, userId: missing"),
        "userId empty": (its(userId=""), "sub, userId: missing"),
        "userId a number": (its(userId=7), "sub, userId: missing"),
        "userId a list": (its(userId=[USER]), "sub, userId: missing"),
        "userId no text": (its(userId="\ud800"), "sub, userId: missing"),
        "userId twice": (
            json.dumps(its()).replace("{", '{"userId": "x",', 1).encode(),
            "claims: not JSON with each key once",
        ),
        "sub empty": (its(sub=""), "sub: missing"),
        "sub null": (its(sub=None), "sub: missing"),
        "sub a number": (its(sub=7, userId=7), "sub: missing"),
        "sub of another": (its(sub="someone else"), "userId: not the same as sub"),
        "sub as a number in userId": (its(sub="7", userId=7), "userId: not the same as sub"),
        # What Better Auth 1.7 signs with its secret: see email-verification.mjs and cookies/.
        "the link that verifies an email": (
            {"email": "zoe.lindqvist@lumen.example.com", "userId": USER, **link},
            "role: missing",
        ),
        "the link of older versions": ({"email": "a@example.com", **link}, "sub, userId: missing"),
        "the link that changes an email": (
            {"email": "a@example.com", "userId": USER, "role": "user", "updateTo": "b", **link},
            "updateTo: ",
        ),
        "the link that confirms the change": (
            {"userId": USER, "role": "user", "requestType": "change-email-confirmation", **link},
            "requestType: ",
        ),
        "the cache of a session": (
            {"session": {"userId": USER}, "user": {"id": USER}, "version": "1", **link},
            "session: ",
        ),
        # What applications and plugins sign with it.
        "a refresh token": (its(type="refresh"), "type: not access"),
        "a type that is null": (its(type=None), "type: not access"),
        "a link with a purpose": (its(purpose="reset-password"), "purpose: "),
        "an id token": (its(sub=USER, aud=ISSUER, nonce="x"), "nonce: "),
        "an id token without nonce": (its(sub=USER, aud=ISSUER, at_hash="x"), "at_hash: "),
    }
    return {name: (sign_by_secret(claims, SECRET), why) for name, (claims, why) in every.items()}


HOSTILE = wrongly_signed(NOW) | wrong_claims(NOW)


@pytest.mark.parametrize(("token", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_token_is_refused_with_its_reason(token, reason):
    """The error is `unauthenticated`, says which check failed, and shows nothing of the token."""
    with pytest.raises(UnauthenticatedError) as raised:
        check(token)

    assert reason in raised.value.message
    assert "example.com" not in raised.value.message
    assert len(raised.value.message) < 120


async def test_without_keys_a_token_of_the_secret_is_answered(
    template, create_database, start, caplog
):
    """A key set that may not be there is no warning of /ready, no figure, and one line of the log.

    Meanwhile tokens of the secret are answered, and those of keys are `unavailable`.
    """
    service = await start(
        await create_database(template=template[0]),
        BETTER_AUTH_URL="http://127.0.0.1:1",
        RESPONDER_JWT_SECRET=SECRET,
        RESPONDER_HTTP_AUTH="required",
    )
    token = sign_by_secret(own(now=time.time()), SECRET)

    assert USER == (await service.ask("users.get", USER, bearer(token))).json["id"]
    assert "unavailable" == (await service.ask("users.get", USER, bearer(sign()))).code
    assert "ready\n" == (await service.admin.get("/ready")).text
    assert "key_set" not in (await service.admin.get("/metrics")).text
    assert 1 == sum("no key set" in each.getMessage() for each in caplog.records)


async def test_without_keys_and_secrets_a_token_is_unavailable(template, create_database, start):
    """The answer names the settings of both ways."""
    service = await start(await create_database(template=template[0]))
    answer = await service.ask("users.get", USER, bearer(sign()))

    assert "unavailable" == answer.code
    for name in ("BETTER_AUTH_URL", "RESPONDER_JWKS_URL", "RESPONDER_JWT_SECRET"):
        assert name in answer.json["message"]


@pytest.fixture(scope="module")
async def service(tmp_path_factory, template, create_database, start_for_module):
    """A service that accepts tokens of keys and of two secrets."""
    file = tmp_path_factory.mktemp("keys") / "jwks.json"
    file.write_bytes(KEYS.document)
    return await start_for_module(
        await create_database(template=template[0]),
        BETTER_AUTH_URL=ISSUER,
        RESPONDER_JWKS_URL=str(file),
        RESPONDER_JWT_SECRET=f"{SECRET},{NEWER}",
        RESPONDER_HTTP_AUTH="required",
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_both_ways_are_answered_over_both_transports(service):
    """A token of a secret and one of a key speak for the same user, over NATS and HTTP."""
    now = int(time.time())
    tokens = [sign_by_secret(own(now=now), each) for each in (SECRET, NEWER)]
    tokens.append(sign({**CLAIMS, "sub": USER, "iat": now, "exp": now + 60}))
    for token in tokens * 2:  # verified, then remembered
        over_nats = await service.ask("users.whoami", "", bearer(token))
        over_http = await service.http.get("/api/v1/me", headers=bearer(token))

        assert USER == over_nats.json["identity"]["userId"] == over_nats.json["user"]["id"]
        assert over_nats.json == over_http.json()


async def test_a_hostile_token_is_refused_over_both_transports(service):
    """The answer is `unauthenticated` with its reason, over NATS, and as a 401 over HTTP."""
    now = time.time()
    makers: list[Callable[[float], Hostile]] = [wrongly_signed, wrong_claims]
    for name, (token, reason) in [each for make in makers for each in make(now).items()]:
        over_nats = await service.ask("users.get", USER, bearer(token))
        over_http = await service.http.get(f"/api/v1/users/{USER}", headers=bearer(token))

        assert (name, "unauthenticated") == (name, over_nats.code)
        assert (name, 401) == (name, over_http.status_code)
        assert over_nats.json["message"] == over_http.json()["detail"]
        # A key may have been replaced, and so a bad signature of one waits; one of a secret not.
        assert reason in over_nats.json["message"], name


@given(
    st.dictionaries(
        st.sampled_from([*own(), *(*_OTHER_ENDS, "type", "sub", "iss", "aud", "nbf")]),
        st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.text()),
        max_size=4,
    ),
    st.sets(st.sampled_from([*own()]), max_size=3),
)
def test_a_signed_token_with_any_claims_is_an_identity_or_refused(changed, without):
    """Whatever the claims are, only what the rules let speak for a user does."""
    claims = own(*without - changed.keys(), **changed)
    try:
        identity = check(sign_by_secret(claims, SECRET))
    except UnauthenticatedError:
        return
    assert isinstance(identity.user_id, str)
    assert identity.user_id
    assert identity.user_id == claims.get("sub", claims.get("userId"))
    assert claims.get("userId", identity.user_id) == identity.user_id
    assert "sub" in claims or "role" in claims
    assert not claims.keys() & set(_OTHER_ENDS)
    assert claims.get("type", "access") == "access"
    assert {"exp", "iat"} <= claims.keys()
    assert "iss" not in claims or claims["iss"] == ISSUER


def test_what_is_set_by_hand_is_asked_for():
    """`iss` and `aud` are required of a token of a secret where the settings name them."""
    plain, named = sign_by_secret(own(), SECRET), sign_by_secret(own(iss=ISSUER), SECRET)

    for required in ("issuer_is_required", "audience_is_required"):
        with pytest.raises(UnauthenticatedError, match=r"iss|aud"):
            check(plain, **{required: True})
    assert ISSUER == check(named, issuer_is_required=True).issuer
    with pytest.raises(UnauthenticatedError, match=r"iss: .*RESPONDER_JWT_ISSUER"):
        check(named, issuers=[])


def test_a_token_of_the_other_way_is_told_which_setting_it_takes():
    """Where only keys are set HS256 is refused, where only a secret is all else, with its name."""
    with pytest.raises(UnauthenticatedError, match=r"^alg: .*RESPONDER_JWT_SECRET is not set"):
        verify(sign_by_secret(own(), SECRET), KEYS, trusted(), now=NOW)
    with pytest.raises(UnauthenticatedError, match=r"^alg: .*RESPONDER_JWKS_URL"):
        check(sign(), key_set_url=None)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 31,
        "ü" * 15,
        f"{SECRET},",
        f"{SECRET},,{NEWER}",
        ",".join([SECRET] * 5),
        PEM.decode(),
        json.dumps({"kty": "oct"}) + " " * 40,
        "\udcff" * 32,
    ],
)
def test_what_is_no_secret_is_refused_and_not_shown(text):
    """A short secret, a fifth one, a key, or what is no text, is a ValueError that shows none."""
    with pytest.raises(ValueError, match=r"secret|UTF-8") as raised:
        parse(text)

    assert not {text, *text.split(",")} & {*str(raised.value).split(), str(raised.value)}
    assert text[:12] not in str(raised.value)


def test_a_secret_is_shown_by_nothing():
    """What holds a secret prints nothing of it."""
    secrets = parse(f"{SECRET},{'ü' * 16}")

    assert 2 == len(secrets)
    assert SECRET not in f"{secrets!r} {secrets} {BOTH!r}"


async def test_a_verifier_needs_no_url():
    """A secret alone verifies; a token of a key is refused, and nothing is fetched."""
    now = int(time.time())
    async with TokenVerifier.connect(secret=[SECRET, NEWER]) as tokens:
        token = sign_by_secret(own(now=now), NEWER)
        identity = await tokens.verify(token)

        assert (USER, "owner", None) == (identity.user_id, identity.org_role, identity.issuer)
        assert identity is await tokens.verify(token)
        with pytest.raises(UnauthenticatedError, match="RESPONDER_JWKS_URL"):
            await tokens.verify(sign())
        with pytest.raises(UnauthenticatedError, match="RESPONDER_JWT_SECRET"):
            await tokens.verify(sign_by_secret(own(now=now), "x" * 40))


async def test_a_verifier_asks_for_what_it_is_given():
    """An audience given by hand is required of tokens of the secret as well."""
    now = int(time.time())
    async with TokenVerifier.connect(secret=SECRET, audience="https://api.example") as tokens:
        good = sign_by_secret(own(now=now, aud="https://api.example"), SECRET)
        assert USER == (await tokens.verify(good)).user_id
        with pytest.raises(UnauthenticatedError, match="aud"):
            await tokens.verify(sign_by_secret(own(now=now), SECRET))


@pytest.mark.parametrize(
    "given", [{}, {"secret": ""}, {"secret": []}, {"secret": "short"}, {"key_set": "/keys"}]
)
async def test_a_verifier_without_keys_and_secrets_is_refused(given):
    """`connect` raises ValueError where nothing could verify a token."""
    with pytest.raises(ValueError, match=r"secret|issuer"):
        async with TokenVerifier.connect(**given):
            pass


async def test_a_key_set_that_may_not_be_there_is_told_once(endpoint, caplog):
    """A key set that was never there is one line in the log, whatever the reasons; then a fault."""
    caplog.set_level(logging.DEBUG, "responder")
    issuer = trusted(secrets=BOTH.secrets, key_set_is_presumed=True)
    async with KeySource(endpoint.url, presumed=True, interval=0.01).running() as source:
        tokens = TokenVerifier(source, issuer, clock=lambda: NOW)
        for endpoint.status in ("404 Not Found", "500 Internal Server Error"):
            await source.newer()
            assert USER == (await tokens.verify(sign_by_secret(own(), SECRET))).user_id
        told = [each for each in caplog.records if each.name.startswith("responder")]

        assert (1, None, False) == (len(told), source.warning(), source.expected)
        endpoint.status, endpoint.body = "200 OK", KEYS.document
        await source.newer()
        assert CLAIMS["sub"] == (await tokens.verify(sign())).user_id
        endpoint.status = "404 Not Found"
        await source.newer()
        assert source.warning()
