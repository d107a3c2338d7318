"""A good token becomes the identity of its user; any other is refused with its reason."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from responder.errors import UnauthenticatedError
from tests.signing import (
    ALL,
    CLAIMS,
    GOOD,
    ISSUER,
    KEYS,
    KID,
    NOW,
    OTHER,
    P256,
    P384,
    RSA,
    check,
    claims,
    encode,
    header,
    jwk,
    sign,
    sign_by_secret,
)


def test_a_token_becomes_an_identity():
    """The identity has what the token says, in the form of subjects.md, users.whoami."""
    assert {
        "userId": CLAIMS["sub"],
        "email": "zoe@example.com",
        "name": "Zoë",
        "role": "user",
        "organizationId": None,
        "orgRole": None,
        "issuer": ISSUER,
        "audience": [ISSUER],
        "issuedAt": "2027-01-15T07:59:00.000Z",
        "expiresAt": "2027-01-15T08:14:00.000Z",
    } == json.loads(check(GOOD).model_dump_json(by_alias=True))


@pytest.mark.parametrize(
    ("more", "organization"),
    [
        ({"activeOrganizationId": "a", "organizationId": "b"}, "a"),
        ({"activeOrganizationId": None, "organizationId": "b"}, "b"),
        ({"orgId": "c"}, "c"),
        ({"org_id": "d"}, "d"),
        ({"o": {"id": "e", "slug": "x"}}, "e"),
        ({"o": "e"}, None),
        ({"activeOrganizationId": ""}, None),
        ({}, None),
        ({"activeOrganizationId": 7}, "7"),
        ({"organizationId": -7, "orgId": "c"}, "-7"),
        ({"org_id": 0}, "0"),
        ({"o": {"id": 7}}, "7"),
        ({"activeOrganizationId": 7.0}, "7"),
        ({"activeOrganizationId": 2**53 - 1}, "9007199254740991"),
        ({"activeOrganizationId": 2**53, "orgId": "c"}, "c"),
        ({"activeOrganizationId": -(2**53)}, None),
        ({"activeOrganizationId": 1e300, "orgId": 7}, "7"),
        ({"activeOrganizationId": 7.5, "o": {"id": 7}}, "7"),
        ({"activeOrganizationId": True, "organizationId": False}, None),
        ({"activeOrganizationId": [7], "organizationId": {"id": 7}}, None),
        ({"o": {"id": True}}, None),
    ],
)
def test_the_active_organization_is_read_from_the_claims_in_use(more, organization):
    """Of the claims of subjects.md, users.whoami, the first text or integer is the organization.

    An integer is one that JavaScript holds exactly; any other may be rounded, and is left out.
    """
    assert organization == check(sign(claims(**more))).organization_id


@pytest.mark.parametrize(
    ("more", "role"),
    [
        ({"orgRole": "owner", "org_role": "staff"}, "owner"),
        ({"orgRole": None, "org_role": "staff,viewer"}, "staff,viewer"),
        ({"activeOrganizationRole": "admin"}, "admin"),
        ({"o": {"id": "e", "rol": "member"}}, "member"),
        ({"o": {"role": "member"}, "orgRole": ["owner"], "org_role": ""}, None),
    ],
)
def test_the_role_in_the_organization_is_read_from_the_claims_in_use(more, role):
    """Of the claims of subjects.md, users.whoami, the first text is the role."""
    assert role == check(sign(claims(**more))).org_role


@pytest.mark.parametrize(
    "more",
    [
        {"exp": NOW - 29},
        {"nbf": NOW + 29},
        {"iat": NOW + 29},
        {"iat": NOW + 0.5},
        {"aud": ["https://other.example.com", ISSUER]},
        {"email": None, "name": None, "role": None},
        {"email": 7, "role": ["admin"]},
        {"email": "\ud800"},
    ],
)
def test_a_token_is_accepted_that(more):
    """A token is good while clocks disagree by less than 30 s, and without email, name or role."""
    assert CLAIMS["sub"] == check(sign(claims(**more))).user_id


PEM = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def twice(name: str, value: str) -> bytes:
    """Return the claims as JSON with one more, whose name may be there already."""
    return (json.dumps(CLAIMS)[:-1] + f', "{name}": {value}}}').encode()


_HEAD, _BODY, _SIGNATURE = GOOD.split(".")
# The 64 bytes of a signature end two bits into its last character: a lenient decoder ignores the
# other four bits, and takes this signature for the genuine one.
_STRAY = _SIGNATURE[:-1] + chr(ord(_SIGNATURE[-1]) + 1)
HOSTILE: dict[str, tuple[str, str]] = {
    "empty": ("", "not a JWT"),
    "a session token": ("sJ2kqN1r0Zb6wXtY.Kx0%2Bq3", "not a JWT: get one from /api/auth/token"),
    "two parts": (f"{_HEAD}.{_BODY}", "not a JWT"),
    "five parts, encrypted": (f"{GOOD}.x.y", "not a JWT"),
    "without signature": (f"{_HEAD}.{_BODY}.", "not a JWT"),
    "with a blank": (f"{_HEAD}.{_BODY} .{_SIGNATURE}", "not a JWT"),
    "with a line break at its end": (f"{GOOD}\n", "not a JWT"),
    "with padding": (f"{_HEAD}.{_BODY}.{_SIGNATURE}==", "not a JWT"),
    "in the other base64": (f"{_HEAD}.{_BODY}.{'+/' + _SIGNATURE[2:]}", "not a JWT"),
    "letters that only look like": (GOOD.replace("e", "\u0435", 1), "not a JWT"),
    "full-width digits": (f"{_HEAD}.{_BODY}.\uff11{_SIGNATURE[1:]}", "not a JWT"),
    "a zero-width space": (f"{_HEAD}.{_BODY}.{_SIGNATURE}\u200b", "not a JWT"),
    "oversized": (f"{_HEAD}.{'A' * 17_000}.{_SIGNATURE}", "longer than"),
    "truncated": (GOOD[:-2], "signature"),
    "truncated by one": (GOOD[:-1], "signature"),
    "claims of another": (f"{_HEAD}.{encode(claims(sub='admin'))}.{_SIGNATURE}", "the signature"),
    "non-canonical base64": (f"{_HEAD}.{_BODY}.{_STRAY}", "signature: not base64url"),
    "a header that is no JSON": (f"{encode(b'{')}.{_BODY}.{_SIGNATURE}", "header: not JSON"),
    "a header that is a list": (sign(header=[]), "header: not a JSON object"),
    "a header that is not UTF-8": (sign(header=b'{"alg":"\xff"}'), "header: not JSON"),
    "a header with alg twice": (
        sign(header=b'{"alg":"none","alg":"EdDSA","kid":"%b"}' % KID.encode()),
        "header: not JSON with each key once",
    ),
    "claims that are no object": (sign("sub"), "claims: not a JSON object"),
    "bottomless claims": (sign(b"[" * 5_000), "claims: not JSON"),
    "alg none": (f"{encode(header(alg='none'))}.{_BODY}.{_SIGNATURE}", "alg"),
    "alg NONE": (f"{encode(header(alg='NONE'))}.{_BODY}.{_SIGNATURE}", "alg"),
    "alg missing": (sign(header={"kid": KID}), "alg"),
    "alg a number": (sign(header=header(alg=1)), "alg"),
    "alg a list": (sign(header=header(alg=["EdDSA"])), "alg"),
    "alg in lower case": (sign(header=header(alg="eddsa")), "alg"),
    "alg ES384": (
        sign(header=header(alg="ES384"), key=P384, algorithm="ES384"),
        "alg: not one that is accepted",
    ),
    "HS256 with the public key": (
        sign_by_secret(CLAIMS, PEM, header(alg="HS256", kid="rsa")),
        "alg: HS256 is for a shared secret, and RESPONDER_JWT_SECRET is not set",
    ),
    "HS256 with nothing": (sign_by_secret(CLAIMS, b""), "alg: HS256 is for a shared secret"),
    "HS384": (
        sign_by_secret(CLAIMS, PEM, header(alg="HS384"), digest="sha384"),
        "alg: not one that is accepted",
    ),
    "the algorithm of another key": (
        sign(header=header(alg="ES256"), key=P256, algorithm="ES256"),
        "alg: not one of its key's",
    ),
    "PS256 with a key for RS256": (
        sign(header={"alg": "PS256", "kid": "rsa"}, key=RSA, algorithm="PS256"),
        "alg: not one of its key's",
    ),
    "ES256 with a curve too large": (
        sign(header={"alg": "ES256", "kid": "p521"}, key=P256, algorithm="ES256"),
        "alg: not one of its key's",
    ),
    "signed by a stranger": (sign(key=OTHER), "the signature does not verify"),
    "a signature of zeros": (f"{_HEAD}.{_BODY}.{'A' * 86}", "the signature does not verify"),
    "an ECDSA signature of zeros": (
        f"{encode({'alg': 'ES256', 'kid': 'p256'})}.{_BODY}.{encode(bytes(64))}",
        "the signature does not verify",
    ),
    "an unknown kid": (sign(header=header(kid="nobody")), "kid: no such key"),
    "a path for a kid": (sign(header=header(kid="../../dev/null")), "kid: no such key"),
    "SQL for a kid": (sign(header=header(kid="x' or 1=1 --")), "kid: no such key"),
    "kid a number": (sign(header=header(kid=1)), "kid: not a string"),
    "kid a list": (sign(header=header(kid=[KID])), "kid: not a string"),
    "no kid where keys are many": (
        sign(header={"alg": "RS256"}, key=OTHER, algorithm="EdDSA"),
        "signature does not verify",
    ),
    "jku": (sign(header=header(jku="https://evil.example/jwks")), "header: jku"),
    "x5u": (sign(header=header(x5u="https://evil.example/cert")), "header: x5u"),
    "x5c": (sign(header=header(x5c=["MIIB"])), "header: x5c"),
    "jwk": (sign(header=header(jwk=jwk(OTHER)), key=OTHER), "header: jwk"),
    "crit": (sign(header=header(crit=["exp"])), "header: crit"),
    "b64": (sign(header=header(b64=False)), "header: b64"),
    "nested": (sign(header=header(cty="JWT")), "header: cty"),
    "compressed": (sign(header=header(zip="DEF")), "header: zip"),
    "an access token": (sign(header=header(typ="at+jwt")), "typ"),
    "a session cache": (
        sign(claims(aud="better-auth:session-cache"), header(typ="better-auth.session-cache+jwt")),
        "typ",
    ),
    "typ null": (sign(header=header(typ=None)), "typ"),
    "iss missing": (sign(claims("iss")), "iss"),
    "iss of another": (sign(claims(iss="https://evil.example")), "iss"),
    "iss with a slash": (sign(claims(iss=f"{ISSUER}/")), "iss"),
    "iss a list": (sign(claims(iss=[ISSUER])), "iss"),
    "aud missing": (sign(claims("aud")), "aud"),
    "aud empty": (sign(claims(aud=[])), "aud"),
    "aud of another": (sign(claims(aud="client-1")), "aud"),
    "aud with what is no text": (sign(claims(aud=[ISSUER, "\ud800"])), "aud: missing, or not text"),
    "aud with a number": (sign(claims(aud=[ISSUER, 1])), "aud"),
    "aud an object": (sign(claims(aud={ISSUER: 1})), "aud"),
    "exp missing": (sign(claims("exp")), "exp"),
    "exp null": (sign(claims(exp=None)), "exp"),
    "exp text": (sign(claims(exp=str(NOW + 60))), "exp"),
    "exp true": (sign(claims(exp=True)), "exp"),
    "expired": (sign(claims(exp=NOW - 30)), "exp: the token has expired"),
    "exp beyond time": (sign(claims(exp=1e300)), "exp: not a time"),
    "exp of many digits": (sign(twice("x", "9" * 5_000)), "claims: not JSON"),
    "exp NaN": (sign(b'{"exp": NaN}'), "claims: not JSON"),
    "exp Infinity": (sign(b'{"exp": Infinity}'), "claims: not JSON"),
    "exp negative": (sign(claims(exp=-1)), "exp: not a time"),
    "exp overflowing": (sign(json.dumps(CLAIMS).replace(str(NOW + 840), "1e999").encode()), "exp"),
    "iat in the future": (sign(claims(iat=NOW + 31)), "iat: in the future"),
    "iat text": (sign(claims(iat="now")), "iat: not a number"),
    "nbf in the future": (sign(claims(nbf=NOW + 31)), "nbf: in the future"),
    "sub missing": (sign(claims("sub")), "sub"),
    "sub empty": (sign(claims(sub="")), "sub"),
    "sub a number": (sign(claims(sub=7)), "sub"),
    "sub a list": (sign(claims(sub=["x"])), "sub"),
    "sub an object": (sign(claims(sub={"id": "x"})), "sub"),
    "sub no text": (sign(claims(sub="\ud800")), "sub"),
    "sub twice": (sign(twice("sub", '"admin"')), "claims: not JSON with each key once"),
    "exp twice": (sign(twice("exp", "9999999999")), "claims: not JSON with each key once"),
}


@pytest.mark.parametrize(("token", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_token_is_refused_with_its_reason(token, reason):
    """The error is `unauthenticated`, says which check failed, and shows nothing of the token."""
    with pytest.raises(UnauthenticatedError) as raised:
        check(token)

    assert reason in raised.value.message
    assert CLAIMS["email"] not in raised.value.message
    assert len(raised.value.message) < 120


SENT: dict[str, str] = {
    name: token
    for name, (token, _) in HOSTILE.items()
    if token.isascii() and token and "\n" not in token  # HTTP can carry it in a header
}


@pytest.mark.heavy
@pytest.mark.parametrize("token", SENT.values(), ids=SENT)
async def test_a_hostile_token_is_401_over_http(keyed_service, token):
    """Over HTTP the answer is a 401 problem with a challenge, never a 500 and never a user."""
    for path in ("/api/v1/me", "/api/v1/users/KbO8WbOTItGbdi0KY5YfJyfimmurNJra"):
        response = await keyed_service.http.get(path, headers={"Authorization": f"Bearer {token}"})
        assert 401 == response.status_code
        assert response.headers["www-authenticate"].startswith('Bearer realm="users"')
        assert "unauthenticated" == response.json()["code"]


@pytest.fixture(scope="module")
async def keyed_service(tmp_path_factory, template, create_database, start_for_module):
    """A service that requires tokens, and accepts those that these tests sign."""
    file = tmp_path_factory.mktemp("keys") / "jwks.json"
    file.write_bytes(KEYS.document)
    return await start_for_module(
        await create_database(template=template[0]),
        RESPONDER_JWKS_URL=str(file),
        RESPONDER_JWT_ISSUER=ISSUER,
        RESPONDER_JWT_AUDIENCE=ISSUER,
        RESPONDER_HTTP_AUTH="required",
    )


@given(st.data())
def test_no_mutation_of_a_token_verifies(data):
    """A token in which any characters were changed, added or removed is refused."""
    key, published = ALL[data.draw(st.sampled_from(sorted(ALL)))]
    named = {"alg": published["alg"], "kid": published["kid"]}
    token = sign(header=named, key=key, algorithm=published["alg"])
    at = data.draw(st.integers(0, len(token) - 1))
    end = data.draw(st.integers(at, min(len(token), at + 3)))
    alphabet = st.characters() | st.sampled_from("AQgw_-.=/+e0")
    mutated = token[:at] + data.draw(st.text(alphabet, max_size=3)) + token[end:]

    if mutated != token:
        with pytest.raises(UnauthenticatedError):
            check(mutated)


@given(
    st.dictionaries(
        st.sampled_from([*CLAIMS, "nbf"]),
        st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.text()),
    ),
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "x5u"]), st.none() | st.integers() | st.text()
    ),
)
def test_a_signed_token_with_any_values_is_an_identity_or_refused(changed, named):
    """Whatever types header and claims have, the only exception is UnauthenticatedError."""
    try:
        identity = check(sign({**CLAIMS, **changed}, header(**named)))
    except UnauthenticatedError:
        return
    assert identity.user_id == {**CLAIMS, **changed}["sub"]
