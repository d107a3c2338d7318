"""Tokens: which are accepted, and how all others are refused."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from responder.errors import UnauthenticatedError
from responder.models import Identity
from responder.tokens.identity import KeySet, UnknownKeyError, verify
from responder.tokens.verifier import REMEMBERED, Issuer, TokenVerifier

NOW = 1_800_000_000
ISSUER = "https://app.example.com"
KID = "n1XNq0r5tZbJt2b6"
ED, OTHER = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
P256, P521 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA, SMALL_RSA = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 1024)
CLAIMS = {
    "sub": "KbO8WbOTItGbdi0KY5YfJyfimmurNJra",
    "iss": ISSUER,
    "aud": ISSUER,
    "iat": NOW - 60,
    "exp": NOW + 840,
    "email": "zoe@example.com",
    "name": "Zoë",
    "role": "user",
}


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    """A public key as Better Auth publishes it."""
    algorithm = {
        ed25519.Ed25519PrivateKey: "EdDSA",
        ec.EllipticCurvePrivateKey: "ES256",
        rsa.RSAPrivateKey: "RS256",
    }
    name = next(name for kind, name in algorithm.items() if isinstance(key, kind))
    public = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    return {name: value for name, value in {**public, **members}.items() if value is not None}


def key_set(*keys: dict[str, Any]) -> KeySet:
    return KeySet(json.dumps({"keys": keys}).encode())


ALL = {
    "EdDSA": (ED, jwk(ED, kid=KID, alg="EdDSA")),
    "ES256": (P256, jwk(P256, kid="p256", alg="ES256")),
    "ES512": (P521, jwk(P521, kid="p521", alg="ES512")),
    "RS256": (RSA, jwk(RSA, kid="rsa", alg="RS256")),
    "PS256": (RSA, jwk(RSA, kid="pss", alg="PS256")),
}
KEYS = key_set(*(published for _, published in ALL.values()))


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(
    claims: object = CLAIMS,
    header: object = None,
    *,
    key: Any = ED,
    algorithm: str = "EdDSA",
) -> str:
    """A token with any header and any claims, and a good signature."""
    header = {"alg": algorithm, "kid": KID} if header is None else header
    signed = f"{part(header)}.{part(claims)}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), key)
    return f"{signed}.{part(signature)}"


def claims(*without: str, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**CLAIMS, **more}.items() if name not in without}


def header(**more: Any) -> dict[str, Any]:
    return {"alg": "EdDSA", "kid": KID, **more}


def check(token: str, keys: KeySet = KEYS, **changed: Any) -> Identity:
    given: dict[str, Any] = {"issuers": [ISSUER], "audiences": [ISSUER], "now": NOW, **changed}
    return verify(token, keys, **given)


GOOD = sign()


def test_a_token_becomes_an_identity():
    """What the token says, in the contract's form."""
    assert {
        "userId": CLAIMS["sub"],
        "email": "zoe@example.com",
        "name": "Zoë",
        "role": "user",
        "organizationId": None,
        "issuer": ISSUER,
        "audience": [ISSUER],
        "issuedAt": "2027-01-15T07:59:00.000Z",
        "expiresAt": "2027-01-15T08:14:00.000Z",
    } == json.loads(check(GOOD).model_dump_json(by_alias=True))


@pytest.mark.parametrize("algorithm", ALL)
def test_every_algorithm_of_better_auth_verifies(algorithm):
    """EdDSA, ES256, ES512, RS256 and PS256, with the key as it is published and without its `alg`."""
    key, published = ALL[algorithm]
    token = sign(header={"alg": algorithm, "kid": published["kid"]}, key=key, algorithm=algorithm)
    without = {name: value for name, value in published.items() if name != "alg"}

    assert CLAIMS["sub"] == check(token).user_id == check(token, key_set(without)).user_id


@pytest.mark.parametrize(
    ("published", "named"),
    [
        (jwk(ED), header()),  # the first answer of 1.2: no kid
        (jwk(ED, kid=KID), header()),  # 1.0 to 1.3: no alg
        (jwk(ED, kid="1", alg="EdDSA"), header(kid="1")),  # serial ids
        (jwk(ED, kid=KID, alg="EdDSA", use="sig"), header()),
        (jwk(ED, kid=KID, alg="EdDSA"), {"alg": "EdDSA"}),  # one key: no kid says enough
        (jwk(ED, kid=KID, alg="EdDSA"), header(typ="JWT")),
    ],
)
def test_keys_as_every_version_publishes_them(published, named):
    """A key verifies with as little as Better Auth's versions have said of it."""
    assert CLAIMS["sub"] == check(sign(header=named), key_set(published)).user_id


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
        ({"activeOrganizationId": 7}, None),
        ({}, None),
    ],
)
def test_the_organization_of_the_session(more, organization):
    """The claims that are used for the active organization, in their order."""
    assert organization == check(sign(claims(**more))).organization_id


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
def test_what_is_still_accepted(more):
    """Clocks may disagree by less than 30 s; what only describes the user need not be there."""
    assert CLAIMS["sub"] == check(sign(claims(**more))).user_id


PEM = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def hs256(secret: bytes, **more: Any) -> str:
    import hashlib  # noqa: PLC0415
    import hmac  # noqa: PLC0415

    signed = f"{part(header(alg='HS256', **more))}.{part(CLAIMS)}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def twice(name: str, value: str) -> bytes:
    return (json.dumps(CLAIMS)[:-1] + f', "{name}": {value}}}').encode()


_HEAD, _BODY, _SIGNATURE = GOOD.split(".")
# 64 bytes end in the middle of a character: its last four bits may be anything to a lenient reader.
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
    "claims of another": (f"{_HEAD}.{part(claims(sub='admin'))}.{_SIGNATURE}", "the signature"),
    "non-canonical base64": (f"{_HEAD}.{_BODY}.{_STRAY}", "signature: not base64url"),
    "a header that is no JSON": (f"{part(b'{')}.{_BODY}.{_SIGNATURE}", "header: not JSON"),
    "a header that is a list": (sign(header=[]), "header: not a JSON object"),
    "a header that is not UTF-8": (sign(header=b'{"alg":"\xff"}'), "header: not JSON"),
    "a header with alg twice": (
        sign(header=b'{"alg":"none","alg":"EdDSA","kid":"%b"}' % KID.encode()),
        "header: not JSON with each key once",
    ),
    "claims that are no object": (sign("sub"), "claims: not a JSON object"),
    "bottomless claims": (sign(b"[" * 5_000), "claims: not JSON"),
    "alg none": (f"{part(header(alg='none'))}.{_BODY}.{_SIGNATURE}", "alg"),
    "alg NONE": (f"{part(header(alg='NONE'))}.{_BODY}.{_SIGNATURE}", "alg"),
    "alg missing": (sign(header={"kid": KID}), "alg"),
    "alg a number": (sign(header=header(alg=1)), "alg"),
    "alg a list": (sign(header=header(alg=["EdDSA"])), "alg"),
    "alg in lower case": (sign(header=header(alg="eddsa")), "alg"),
    "alg ES384": (
        sign(header=header(alg="ES384"), key=P384, algorithm="ES384"),
        "alg: not one that is accepted",
    ),
    "HS256 with the public key": (hs256(PEM, kid="rsa"), "alg: not one that is accepted"),
    "HS256 with nothing": (hs256(b""), "alg: not one that is accepted"),
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
        f"{part({'alg': 'ES256', 'kid': 'p256'})}.{_BODY}.{part(bytes(64))}",
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
    """Each is unauthenticated, says which check failed, and shows nothing of the token."""
    with pytest.raises(UnauthenticatedError) as raised:
        check(token)

    assert reason in raised.value.message
    assert CLAIMS["email"] not in raised.value.message
    assert len(raised.value.message) < 120


SENT: dict[str, str] = {
    name: token
    for name, (token, _) in HOSTILE.items()
    if token.isascii() and token and "\n" not in token  # what HTTP can carry
}


@pytest.mark.heavy
@pytest.mark.parametrize("token", SENT.values(), ids=SENT)
async def test_a_hostile_token_is_401_over_http(keyed_service, token):
    """Over HTTP each is a 401 problem with a challenge, never a 500 and never an answer."""
    for path in ("/api/v1/me", "/api/v1/users/KbO8WbOTItGbdi0KY5YfJyfimmurNJra"):
        response = await keyed_service.http.get(path, headers={"Authorization": f"Bearer {token}"})
        assert 401 == response.status_code
        assert response.headers["www-authenticate"].startswith('Bearer realm="users"')
        assert "unauthenticated" == response.json()["code"]


@pytest.fixture(scope="module")
async def keyed_service(tmp_path_factory, template, create_database, start_for_module):
    """A service that requires tokens of the keys of this module."""
    file = tmp_path_factory.mktemp("keys") / "jwks.json"
    file.write_bytes(KEYS.document)
    return await start_for_module(
        await create_database(template=template[0]),
        RESPONDER_JWKS_URL=str(file),
        RESPONDER_JWT_ISSUER=ISSUER,
        RESPONDER_JWT_AUDIENCE=ISSUER,
        RESPONDER_HTTP_AUTH="required",
    )


async def test_names_may_be_given_as_one_text():
    """One issuer or audience as a plain string is that one, not each of its characters or parts."""
    async with TokenVerifier.connect(
        ISSUER, key_set="/", issuers=ISSUER, audiences=ISSUER
    ) as tokens:
        tokens.keys.known = KEYS
        tokens._clock = Clock()

        assert CLAIMS["sub"] == tokens.verify_now(GOOD).user_id
        with pytest.raises(UnauthenticatedError, match="iss"):
            tokens.verify_now(sign(claims(iss="https://app")))


@given(st.data())
def test_no_mutation_of_a_token_verifies(data):
    """Whatever is changed, added, removed or moved in a token, it is refused."""
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


@settings(suppress_health_check=[HealthCheck.too_slow])  # where the machine is
@given(st.dictionaries(st.sampled_from([*CLAIMS, "nbf"]), st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.text()))
       , st.dictionaries(st.sampled_from(["alg", "kid", "typ", "x5u"]), st.none() | st.integers() | st.text()))  # fmt: skip
def test_no_signed_nonsense_is_more_than_refused(changed, named):
    """A signed token with any values is an identity or unauthenticated, nothing else."""
    try:
        identity = check(sign({**CLAIMS, **changed}, header(**named)))
    except UnauthenticatedError:
        return
    assert identity.user_id == {**CLAIMS, **changed}["sub"]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b"[]", "not a key set"),
        (b"{}", "not a key set"),
        (b'{"keys": {}}', "not a key set"),
        (b'{"keys": []}', "no key"),
        (b'{"keys": [1, null, "x", {}, {"kty": []}, {"kty": "OKP", "crv": {}}]}', "no key"),
        (json.dumps({"keys": [jwk(SMALL_RSA, kid="small")]}).encode(), "no key"),
        (json.dumps({"keys": [jwk(P384, kid="p384")]}).encode(), "no key"),
        (json.dumps({"keys": [jwk(ED, kid=KID, use="enc")]}).encode(), "no key"),
        (json.dumps({"keys": [jwk(ED, kid=KID, alg="HS256")]}).encode(), "no key"),
        (json.dumps({"keys": [jwk(ED, kid=7)]}).encode(), "no key"),
        (json.dumps({"keys": [jwk(ED, kid=KID, x="AAAA")]}).encode(), "no key"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "s"}]}', "no key"),
    ],
)
def test_what_is_no_key_set(document, problem):
    """A document without a usable key is refused, and never an exception of another kind."""
    with pytest.raises(ValueError, match=problem):
        KeySet(document)


def test_a_key_that_is_no_good_spoils_no_other():
    """Unusable keys of a set are passed over."""
    keys = key_set({"kty": "oct", "k": "c2VjcmV0"}, jwk(P384), jwk(ED, kid=KID))

    assert CLAIMS["sub"] == check(GOOD, keys).user_id


def test_a_token_that_may_be_of_a_newer_key_says_so():
    """Only an unknown key id is worth another look at the key set, or a key that had no id."""
    with pytest.raises(UnknownKeyError):
        check(sign(header=header(kid="new"), key=OTHER))
    with pytest.raises(UnknownKeyError):
        check(sign(header=header(kid="new"), key=OTHER), key_set(jwk(ED)))
    with pytest.raises(UnauthenticatedError) as raised:
        check(sign(key=OTHER))
    assert not isinstance(raised.value, UnknownKeyError)


def test_a_key_must_be_named_where_two_could_be_meant():
    """Without a kid and with two keys that fit nothing is tried."""
    with pytest.raises(UnauthenticatedError, match="kid"):
        check(sign(header={"alg": "EdDSA"}), key_set(jwk(ED, kid="a"), jwk(OTHER, kid="b")))


# What is remembered


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class FixedKeys:
    known: KeySet | None = field(default_factory=lambda: KEYS)


def verifier(keys: FixedKeys, clock: Clock) -> TokenVerifier:
    issuer = Issuer(key_set="", issuers=[ISSUER], audiences=[ISSUER], advice="")
    return TokenVerifier(keys, issuer, clock=clock)  # type: ignore[arg-type]


def test_a_remembered_token_expires_all_the_same():
    """A token that was good is refused once its time is over, to the second."""
    clock = Clock()
    tokens = verifier(FixedKeys(), clock)

    assert tokens.verify_now(GOOD) is tokens.verify_now(GOOD)
    clock.now = CLAIMS["exp"] + 29.9
    assert tokens.verify_now(GOOD)
    clock.now = CLAIMS["exp"] + 30
    with pytest.raises(UnauthenticatedError, match="expired"):
        tokens.verify_now(GOOD)


def test_a_remembered_token_is_forgotten_with_its_key():
    """When the key set changes every token is verified anew, and those of withdrawn keys are refused."""
    keys = FixedKeys()
    tokens = verifier(keys, Clock())
    assert tokens.verify_now(GOOD)

    keys.known = key_set(jwk(OTHER, kid=KID))
    with pytest.raises(UnauthenticatedError, match="signature"):
        tokens.verify_now(GOOD)
    keys.known = key_set(jwk(ED, kid="newer"))
    with pytest.raises(UnknownKeyError):
        tokens.verify_now(GOOD)


def test_what_is_remembered_is_bounded():
    """However many tokens there are, only so many are kept, and only good ones."""
    tokens = verifier(FixedKeys(), Clock())
    token = tokens.verify_now(GOOD)
    tokens._verified = {bytes([0]) + n.to_bytes(4): token for n in range(REMEMBERED)}

    tokens.verify_now(GOOD)
    for bad in (sign(key=OTHER), "x", GOOD[:-1]):
        with pytest.raises(UnauthenticatedError):
            tokens.verify_now(bad)

    assert REMEMBERED == len(tokens._verified)


def test_the_clock_is_the_machine_s():
    """Without another clock, now is now."""
    now = time.time()
    token = sign(claims(iat=int(now), exp=int(now) + 60))
    issuer = Issuer(key_set="", issuers=[ISSUER], audiences=[ISSUER], advice="")

    assert TokenVerifier(FixedKeys(), issuer).verify_now(token)  # type: ignore[arg-type]
