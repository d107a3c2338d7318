"""The settings are read as docs/settings.md says."""

from __future__ import annotations

import re

import pytest

from responder.errors import SettingsError
from responder.postgres.dsn import parse
from responder.settings import Settings

SECRET = "hunter2-hunter2"


def refusal(**variables: str) -> str:
    """The error that reading these variables ends in."""
    with pytest.raises(SettingsError) as error:
        Settings.read(variables)
    return str(error.value)


def test_nothing_set_is_the_defaults():
    """Without any variable each setting has the default that docs/settings.md names."""
    settings = Settings.read({})

    assert {
        "dsn": None,
        "nats_url": ["nats://127.0.0.1:4222"],
        "nats_user": None,
        "nats_password": None,
        "nats_token": None,
        "nats_creds": None,
        "nats_nkey": None,
        "nats_ca": None,
        "nats_cert": None,
        "nats_key": None,
        "better_auth_url": None,
        "subject_prefix": "users",
        "queue_group": "responder",
        "http_listen": ("127.0.0.1", 8080),
        "admin_listen": ("127.0.0.1", 8081),
        "http_auth": "required",
        "users_table": None,
        "members_table": None,
        "timezone": "UTC",
        "timeout": 2.0,
        "log_level": "info",
    }.items() <= settings.model_dump().items()


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("DATABASE_URL", "postgres://a@b/c", "dsn", parse("postgres://a@b/c")),
        ("NATS_URL", "nats://a:1,tls://b:2", "nats_url", ["nats://a:1", "tls://b:2"]),
        ("NATS_URL", " nats://a:1 , nats://b:2 ", "nats_url", ["nats://a:1", "nats://b:2"]),
        ("NATS_USER", "ann", "nats_user", "ann"),
        ("NATS_PASSWORD", "s3cret", "nats_password", "s3cret"),
        ("NATS_TOKEN", "t", "nats_token", "t"),
        ("NATS_CREDS", "/a.creds", "nats_creds", "/a.creds"),
        ("NATS_NKEY", "/a.nk", "nats_nkey", "/a.nk"),
        ("NATS_CA", "/ca.pem", "nats_ca", "/ca.pem"),
        ("NATS_CERT", "/cert.pem", "nats_cert", "/cert.pem"),
        ("NATS_KEY", "/key.pem", "nats_key", "/key.pem"),
        ("RESPONDER_SUBJECT_PREFIX", "acme.users", "subject_prefix", "acme.users"),
        ("RESPONDER_QUEUE_GROUP", "blue", "queue_group", "blue"),
        ("RESPONDER_HTTP_LISTEN", "off", "http_listen", None),
        ("RESPONDER_HTTP_LISTEN", "0.0.0.0:80", "http_listen", ("0.0.0.0", 80)),
        ("RESPONDER_HTTP_LISTEN", "localhost:0", "http_listen", ("localhost", 0)),
        ("RESPONDER_HTTP_LISTEN", "[::1]:8080", "http_listen", ("::1", 8080)),
        ("RESPONDER_ADMIN_LISTEN", "off", "admin_listen", None),
        ("RESPONDER_ADMIN_LISTEN", "[::]:65535", "admin_listen", ("::", 65535)),
        ("RESPONDER_HTTP_AUTH", "disabled", "http_auth", "disabled"),
        ("RESPONDER_USERS_TABLE", "auth.app_user", "users_table", ("auth", "app_user")),
        ("RESPONDER_MEMBERS_TABLE", "member", "members_table", ("member",)),
        ("RESPONDER_MEMBERS_TABLE", "off", "members_table", ()),
        ("RESPONDER_MEMBERS_TABLE", '"off"', "members_table", ("off",)),
        ("RESPONDER_COLUMNS", "user.name=x", "columns", {"user": {"name": "x"}}),
        ("RESPONDER_ORG_ROLES", "owner, admin", "org_roles", ["owner", "admin"]),
        (
            "RESPONDER_HTTP_ORIGINS",
            "https://app.example.com, http://localhost:3000,http://[::1]:1",
            "http_origins",
            ["https://app.example.com", "http://localhost:3000", "http://[::1]:1"],
        ),
        ("RESPONDER_HTTP_ORIGINS", "*", "http_origins", ["*"]),
        ("RESPONDER_TIMEZONE", "Europe/Berlin", "timezone", "Europe/Berlin"),
        ("RESPONDER_TIMEOUT", "0.5", "timeout", 0.5),
        ("RESPONDER_CONNECTIONS", "9", "connections", 9),
        ("RESPONDER_MAX_BATCH", "1", "max_batch", 1),
        ("RESPONDER_MAX_PENDING", "10", "max_pending", 10),
        ("RESPONDER_DRAIN_TIMEOUT", "30", "drain_timeout", 30.0),
        ("RESPONDER_LOG_LEVEL", "debug", "log_level", "debug"),
        ("RESPONDER_LOG_FORMAT", "json", "log_format", "json"),
    ],
)
def test_a_variable_sets_its_setting(variable, value, field, expected):
    """Each variable sets the setting it is named for."""
    assert expected == getattr(Settings.read({variable: value}), field)


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_empty_variable_is_not_set(value):
    """A variable that is empty or blank is the same as none."""
    names = [str(field.alias) for field in Settings.model_fields.values()]

    assert Settings.read({}) == Settings.read(dict.fromkeys(names, value))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("RESPONDER_TIMEOUTS", "RESPONDER_TIMEOUT"),
        ("RESPONDER_CONNECTION", "RESPONDER_CONNECTIONS"),
        ("RESPONDER_HTTP_LISTN", "RESPONDER_HTTP_LISTEN"),
        ("RESPONDER_LOGLEVEL", "RESPONDER_LOG_LEVEL"),
        ("RESPONDER_USER_TABLE", "RESPONDER_USERS_TABLE"),
        ("RESPONDER_SUBJECTPREFIX", "RESPONDER_SUBJECT_PREFIX"),
        ("RESPONDER_Timeout", "RESPONDER_TIMEOUT"),
    ],
)
def test_a_near_miss_names_the_setting(written, meant):
    """A name that is nearly a setting's is an error that says which was meant, not its value."""
    assert f"{written} is not a setting; did you mean {meant}?" == refusal(**{written: SECRET})


@pytest.mark.parametrize(
    "name",
    [
        "RESPONDER_SERVICE_HOST",
        "RESPONDER_SERVICE_PORT",
        "RESPONDER_SERVICE_PORT_HTTP",
        "RESPONDER_SERVICE_PORT_ADMIN",
        "RESPONDER_PORT",
        "RESPONDER_PORT_8080_TCP",
        "RESPONDER_PORT_8080_TCP_ADDR",
        "RESPONDER_PORT_8080_TCP_PORT",
        "RESPONDER_PORT_8080_TCP_PROTO",
        "RESPONDER_HTTP_SERVICE_HOST",
        "RESPONDER_HTTP_PORT",
        "RESPONDER_HTTP_PORT_8080_TCP",
        "RESPONDER_ADMIN_PORT",
        "NATS_URLS",
        "BETTER_AUTH_SECRET",
        "DATABASE_URL_UNPOOLED",
    ],
)
def test_other_names_are_ignored(name):
    """What Kubernetes injects, and what belongs to others, does not disturb."""
    assert Settings.read({}) == Settings.read({name: "tcp://10.0.0.1:8080"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RESPONDER_TIMEOUT", SECRET),
        ("RESPONDER_TIMEOUT", "0"),
        ("RESPONDER_TIMEOUT", "-1"),
        ("RESPONDER_TIMEOUT", "nan"),
        ("RESPONDER_TIMEOUT", "inf"),
        ("RESPONDER_CONNECTIONS", "0"),
        ("RESPONDER_CONNECTIONS", "2.5"),
        ("RESPONDER_MAX_BATCH", SECRET),
        ("RESPONDER_MAX_PENDING", "-4096"),
        ("RESPONDER_DRAIN_TIMEOUT", "0s"),
        ("RESPONDER_HTTP_AUTH", SECRET),
        ("RESPONDER_HTTP_AUTH", "off"),
        ("RESPONDER_LOG_LEVEL", SECRET),
        ("RESPONDER_LOG_FORMAT", SECRET),
        ("RESPONDER_SUBJECT_PREFIX", f"{SECRET}.>"),
        ("RESPONDER_SUBJECT_PREFIX", f"{SECRET} x"),
        ("RESPONDER_SUBJECT_PREFIX", "users."),
        ("RESPONDER_SUBJECT_PREFIX", "users\r\nPUB x"),
        ("RESPONDER_QUEUE_GROUP", f"{SECRET} x"),
        ("RESPONDER_HTTP_LISTEN", SECRET),
        ("RESPONDER_HTTP_LISTEN", "8080"),
        ("RESPONDER_HTTP_LISTEN", f"{SECRET}:http"),
        ("RESPONDER_HTTP_LISTEN", "127.0.0.1:65536"),
        ("RESPONDER_HTTP_LISTEN", "127.0.0.1:-1"),
        ("RESPONDER_ADMIN_LISTEN", "127.0.0.1:"),
        ("RESPONDER_JWKS_URL", f"file:///{SECRET}"),
        ("RESPONDER_JWKS_URL", f"http://{SECRET}:x"),
        ("RESPONDER_JWKS_URL", f"HTTPS:{SECRET}:x"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_never_shown(name, value):
    """An error names the variable in one line, and never shows what it holds."""
    message = refusal(**{name: value})

    assert message.startswith(f"{name}: ")
    assert "Value error" not in message
    assert "\n" not in message
    assert SECRET not in message


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    """Names, values, what does not go together and what is missing: a line each, in our words, and
    of a variable that is wrong no line says that it is missing.
    """
    missing = str(tmp_path / SECRET)
    wrong = {
        "RESPONDER_TIMEOUTS": SECRET,
        "DATABASE_URL": f"mysql://{SECRET}@x/y",
        "NATS_URL": "wss://a,wss://b",
        "RESPONDER_TIMEOUT": SECRET,
        "RESPONDER_COLUMNS": "user.nmae=x",
        "RESPONDER_ORG_ROLES": "owner",
        "RESPONDER_VISIBILITY": "all",
        "NATS_CREDS": missing,
        "NATS_NKEY": missing,
        "NATS_USER": "ann",
        "NATS_KEY": missing,
        "NATS_CA": missing,
    }
    with pytest.raises(SettingsError) as refused:
        Settings.read(wrong, worker=True)
    lines = str(refused.value).splitlines()

    expected = [
        "RESPONDER_TIMEOUTS is not a setting; did you mean RESPONDER_TIMEOUT?",
        "DATABASE_URL: ",
        "RESPONDER_COLUMNS: ",
        "NATS_URL: expected nats:// URLs; special characters of a password as %xx",
        "RESPONDER_TIMEOUT: ",
        "RESPONDER_ORG_ROLES: cannot be set with RESPONDER_VISIBILITY=all",
        "BETTER_AUTH_URL: required to verify tokens, or RESPONDER_JWT_SECRET",
        "NATS_CREDS: cannot be read",
        "NATS_NKEY: cannot be read",
        "NATS_PASSWORD: required, a name and a password are one login",
        "NATS_KEY: is that of a certificate, which NATS_CERT names",
        "NATS_CA, NATS_CERT, NATS_KEY: No such file or directory",
    ]
    assert len(expected) == len(lines)
    assert all(map(str.startswith, lines, expected)), lines
    assert "Value error" not in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "app.example.com", "https://app.example.com/", "https://App.example.com"),
        *("https://app.example.com:443", "https://*.example.com", "https://u:p@app.example.com"),
        *("https://app.example.com,", "https://bücher.example", "file:///", "https://a b", "*.*"),
    ],
)
def test_an_origin_is_as_browsers_send_it(origin):
    """What no browser sends would be compared in vain: it is an error."""
    for listed in (origin, f"https://app.example.com,{origin}"):
        assert refusal(RESPONDER_HTTP_ORIGINS=listed).startswith("RESPONDER_HTTP_ORIGINS: ")


def test_every_origin_may_ask_only_with_tokens():
    """A page of any origin could read every user, of a listener that only its network protects."""
    given = {"RESPONDER_HTTP_ORIGINS": "*", "RESPONDER_HTTP_AUTH": "disabled"}

    assert "RESPONDER_HTTP_ORIGINS: * with tokens required only" == refusal(**given)


def test_roles_that_narrow_what_is_lifted_are_refused():
    """Roles that an organization's colleagues need do not go with users who are seen by all."""
    given = {"RESPONDER_ORG_ROLES": "owner", "RESPONDER_VISIBILITY": "all"}

    assert "RESPONDER_ORG_ROLES: cannot be set with RESPONDER_VISIBILITY=all" == refusal(**given)


@pytest.mark.parametrize(
    "url",
    [
        *("auth.example.com", "example", "/api/auth", "ftp://auth.example.com"),
        *("https://example.com:99999", "https://example.com:x", "https://u:secret@example.com"),
    ],
)
def test_better_auth_s_url_is_one(url):
    """A BETTER_AUTH_URL that no client could follow is an error, not a broken Link."""
    assert refusal(BETTER_AUTH_URL=url).startswith("BETTER_AUTH_URL: ")


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://a.example", "https://a.example/api/auth"),
        ("https://a.example/", "https://a.example/api/auth"),
        ("https://a.example/auth/", "https://a.example/auth"),
        ("http://localhost:3000/x/y", "http://localhost:3000/x/y"),
    ],
)
def test_better_auth_s_path_is_the_base_of_the_successors(url, base):
    """The path of BETTER_AUTH_URL, or /api/auth if it has none, is where writes go."""
    assert base == Settings.read({"BETTER_AUTH_URL": url}).successors


def test_a_file_is_read_and_overruled(tmp_path, monkeypatch):
    """.env in the working directory is read, and the environment goes before it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESPONDER_QUEUE_GROUP", raising=False)
    monkeypatch.setenv("RESPONDER_SUBJECT_PREFIX", "environment")
    (tmp_path / ".env").write_text(
        'RESPONDER_QUEUE_GROUP="file" # quoted, with a comment\n'
        "export RESPONDER_SUBJECT_PREFIX=file\nRESPONDER_TIMEOUT\n"
    )

    settings = Settings.read()

    assert ("file", "environment", 2.0) == (
        settings.queue_group,
        settings.subject_prefix,
        settings.timeout,
    )


def test_a_near_miss_in_the_file_is_named(tmp_path, monkeypatch):
    """A mistyped name in .env is refused as one in the environment is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("RESPONDER_TIMEOUTS=1\n")

    with pytest.raises(SettingsError, match=r"did you mean RESPONDER_TIMEOUT\?"):
        Settings.read()


def test_variables_given_are_the_only_ones(tmp_path, monkeypatch):
    """Where a program passes the variables itself, neither environment nor file has a say."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESPONDER_QUEUE_GROUP", "environment")
    (tmp_path / ".env").write_text("RESPONDER_SUBJECT_PREFIX=file\n")

    assert ("users", "responder") == (
        Settings.read({}).subject_prefix,
        Settings.read({}).queue_group,
    )


def test_settings_do_not_change():
    """Settings are a value: nothing that has them can change them for the others."""
    with pytest.raises(ValueError, match="frozen"):
        Settings.read({}).timeout = 1.0  # type: ignore[misc]  # mypy sees it too


ORIGIN = "https://app.example.com"


@pytest.mark.parametrize(
    ("variables", "key_set", "issuers", "audiences"),
    [
        ({"BETTER_AUTH_URL": ORIGIN}, f"{ORIGIN}/api/auth/jwks", [ORIGIN], [ORIGIN]),
        ({"BETTER_AUTH_URL": f"{ORIGIN}/"}, f"{ORIGIN}/api/auth/jwks", [ORIGIN], [ORIGIN]),
        ({"BETTER_AUTH_URL": f"{ORIGIN}/iam/"}, f"{ORIGIN}/iam/jwks", [ORIGIN], [ORIGIN]),
        (
            {"BETTER_AUTH_URL": "https://App.example.com:443/auth"},
            "https://app.example.com/auth/jwks",
            [ORIGIN],
            [ORIGIN],
        ),
        (
            {"BETTER_AUTH_URL": "http://[::1]:3000"},
            "http://[::1]:3000/api/auth/jwks",
            ["http://[::1]:3000"],
            ["http://[::1]:3000"],
        ),
        (
            {"BETTER_AUTH_URL": ORIGIN, "RESPONDER_JWKS_URL": "/run/jwks.json"},
            "/run/jwks.json",
            [ORIGIN],
            [ORIGIN],
        ),
        (
            {
                "RESPONDER_JWKS_URL": "HTTP://keys/jwks",
                "RESPONDER_JWT_ISSUER": "a, b",
                "RESPONDER_JWT_AUDIENCE": "c",
            },
            "http://keys/jwks",
            ["a", "b"],
            ["c"],
        ),
    ],
)
def test_whose_tokens_are_accepted(variables, key_set, issuers, audiences):
    """Better Auth's address says where the keys are and what its tokens name; each can be set."""
    issuer = Settings.read(variables).issuer

    assert issuer
    assert (key_set, issuers, audiences) == (issuer.key_set_url, issuer.issuers, issuer.audiences)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RESPONDER_JWKS_URL": "http://keys/jwks"},
        {"RESPONDER_JWKS_URL": "http://keys/jwks", "RESPONDER_JWT_ISSUER": "a"},
        {"RESPONDER_JWT_ISSUER": "a", "RESPONDER_JWT_AUDIENCE": "b"},
        {"BETTER_AUTH_URL": ORIGIN, "RESPONDER_JWKS_URL": "off"},
    ],
)
def test_no_issuer_is_guessed(variables):
    """Where anything is missing no token is accepted."""
    assert Settings.read(variables).issuer is None


def test_a_key_set_that_is_off_is_named_where_tokens_are_required():
    """With RESPONDER_JWKS_URL=off and tokens required, the start ends and says which setting."""
    given = {
        "BETTER_AUTH_URL": ORIGIN,
        "RESPONDER_JWKS_URL": "off",
        "DATABASE_URL": "postgres:///x",
    }
    settings = Settings.read(given)

    with pytest.raises(SettingsError, match=r"^RESPONDER_JWKS_URL: "):
        settings.check(worker=True)
    assert f"{ORIGIN}/api/auth" == settings.successors


LONG = "the secret of an application; not short"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (None, False, False)),
        ({"RESPONDER_JWKS_URL": "off", "BETTER_AUTH_URL": ORIGIN}, (None, False, False)),
        ({"RESPONDER_JWKS_URL": "/keys"}, (None, False, False)),
        ({"BETTER_AUTH_URL": ORIGIN}, (f"{ORIGIN}/api/auth/jwks", False, False)),
        ({"RESPONDER_JWT_ISSUER": "a"}, (None, True, False)),
        ({"RESPONDER_JWT_AUDIENCE": "a"}, (None, False, True)),
        (
            {
                "RESPONDER_JWKS_URL": "/keys",
                "RESPONDER_JWT_ISSUER": "a",
                "RESPONDER_JWT_AUDIENCE": "a",
            },
            ("/keys", True, True),
        ),
    ],
)
def test_a_secret_is_accepted_beside_keys_and_without(variables, expected):
    """With a secret there is always an issuer; what is set by hand is required of its tokens."""
    settings = Settings.read(
        {"RESPONDER_JWT_SECRET": LONG, "DATABASE_URL": "postgres:///x", **variables}
    )
    issuer = settings.issuer

    assert issuer
    assert expected == (
        *(issuer.key_set_url, issuer.issuer_is_required, issuer.audience_is_required),
    )
    settings.check(worker=True)
    assert LONG not in f"{settings!r} {settings} {settings.issuer!r} {settings.model_dump()}"


@pytest.mark.parametrize(
    "value", [SECRET, LONG[:31], f"{LONG},{SECRET}", f"{LONG},", ",".join([LONG] * 5)]
)
def test_what_is_no_secret_is_refused_and_not_shown(value):
    """A secret that is too short, or one of more than four, ends the start without being shown."""
    message = refusal(RESPONDER_JWT_SECRET=value)

    assert message.startswith("RESPONDER_JWT_SECRET: ")
    assert not any(each and each in message for each in value.split(","))


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({}, "BETTER_AUTH_URL"),
        ({"RESPONDER_JWT_ISSUER": "a"}, "BETTER_AUTH_URL"),
        ({"RESPONDER_JWKS_URL": "/keys"}, "RESPONDER_JWT_ISSUER, RESPONDER_JWT_AUDIENCE"),
        ({"RESPONDER_JWKS_URL": "/keys", "RESPONDER_JWT_ISSUER": "a"}, "RESPONDER_JWT_AUDIENCE"),
        ({"RESPONDER_JWKS_URL": "/keys", "RESPONDER_JWT_AUDIENCE": "a"}, "RESPONDER_JWT_ISSUER"),
    ],
)
def test_what_is_missing_of_an_issuer_is_named(variables, missing):
    """The settings that are still missing before a token can be verified are named."""
    said = Settings.read(variables).missing_issuer

    assert said.startswith(f"{missing}: required to verify tokens")
    assert said.endswith(", or RESPONDER_JWT_SECRET")


@pytest.mark.parametrize(
    "url",
    ["nats://u:hun#ter2@h:4222", "nats://a,", "http://h:4222", "nats://h:hunter2", "nats://"],
)
def test_a_nats_url_that_is_none_is_refused(url):
    """A NATS_URL that cannot be read is named, and not shown."""
    with pytest.raises(SettingsError, match="NATS_URL") as raised:
        Settings.read({"NATS_URL": url})

    assert "ter2" not in str(raised.value)


def test_all_that_is_wrong_is_told_at_once():
    """An operator need not start the service once for each mistake: each has a line."""
    with pytest.raises(SettingsError) as refused:
        Settings.read(
            {
                "NATS_URL": "ws://127.0.0.1",
                "RESPONDER_TIMEOUT": "hunter2",
                "RESPONDER_TIMEOUTS": "2",
                "RESPONDER_HTTP_LISTEN": "8080",
            }
        )
    lines = str(refused.value).splitlines()

    assert 4 == len(lines)
    for name in ("NATS_URL", "RESPONDER_TIMEOUT", "RESPONDER_TIMEOUTS", "RESPONDER_HTTP_LISTEN"):
        assert any(re.match(rf"{name}\b", line) for line in lines)
    assert "hunter2" not in str(refused.value)
