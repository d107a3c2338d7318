"""What the operator may set."""

from __future__ import annotations

import difflib
import os
import ssl
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from responder.errors import SettingsError
from responder.http.origins import ANY as ANY_ORIGIN
from responder.postgres.additional import AdditionalField, field_names
from responder.postgres.dsn import Dsn, parse
from responder.postgres.overrides import Overrides, column_names, table_name
from responder.postgres.visibility import Rules
from responder.terminal import visible
from responder.tokens import shared_secret, urls
from responder.tokens.issuer import TrustedIssuer, api_url, key_set_url, origin
from responder.tokens.shared_secret import SharedSecrets

MAX_PORT = 2**16 - 1
NATS_SCHEMES = ("nats", "tls")
OFF = "off"


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _members_table(value: str) -> tuple[str, ...]:
    return () if value == OFF else table_name(value)


def _nats_url(value: str) -> str:
    url = urlsplit(value if "://" in value else f"nats://{value}")
    try:
        good = url.scheme in NATS_SCHEMES and bool(url.hostname) and url.port != 0
    except ValueError:  # no number, or a password with characters that end it
        good = False
    if not good:
        raise ValueError("expected nats:// URLs; special characters of a password as %xx")
    return value


def _address(value: object) -> object:
    if not isinstance(value, str) or value == OFF:
        return None if value == OFF else value
    host, colon, port = value.rpartition(":")
    if not host or not colon or not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError("expected host:port, or off")
    return host.strip("[]"), int(port)


def _http_url(value: str) -> str:
    try:
        return urls.parse_http(value).href
    except ValueError:
        raise ValueError("expected an http:// or https:// URL") from None


def _origin(value: str) -> str:
    try:
        good = value == urls.parse_http(value).origin and ANY_ORIGIN not in value
    except ValueError:
        good = value == ANY_ORIGIN
    if not good:
        raise ValueError("expected origins as browsers send them, such as https://app.example.com")
    return value


def _public_url(value: str) -> str:
    href = _http_url(value)
    if urls.parse(href).has_credentials:  # answers to callers contain this URL
        raise ValueError("expected a URL without a password; RESPONDER_JWKS_URL may have one")
    return href


def _secrets(value: object) -> object:
    return shared_secret.parse(value) if isinstance(value, str) else value


def _key_set_source(value: str) -> str:
    return _http_url(value) if urls.is_http(value) or "://" in value else value


def _refuse(problems: Iterable[str]) -> None:
    """Raise SettingsError if there are problems, with a line for each."""
    if lines := list(dict.fromkeys(problems)):
        raise SettingsError("\n".join(lines))


TableName = tuple[str, ...]
ColumnNames = Mapping[str, Mapping[str, str | None]]
NatsUrls = Annotated[list[Annotated[str, AfterValidator(_nats_url)]], BeforeValidator(_split)]
SubjectPrefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]
InboxPrefix = Annotated[str, Field(pattern=r"^[^\s.*>]+(\.[^\s.*>]+)*$")]
QueueGroup = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Address = Annotated[tuple[str, int] | None, BeforeValidator(_address)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
KeySetSource = Annotated[str, AfterValidator(_key_set_source)]  # `off` for none
NameList = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_split)]
Origins = Annotated[list[Annotated[str, AfterValidator(_origin)]], BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Settings(BaseModel):
    """The settings of a process; each is an environment variable, named by its alias."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    dsn: Annotated[Dsn | None, BeforeValidator(parse)] = Field(None, alias="DATABASE_URL")
    users_table: Annotated[TableName | None, BeforeValidator(table_name)] = Field(
        None, alias="RESPONDER_USERS_TABLE"
    )
    members_table: Annotated[TableName | None, BeforeValidator(_members_table)] = Field(
        None, alias="RESPONDER_MEMBERS_TABLE"
    )
    columns: Annotated[ColumnNames, BeforeValidator(column_names)] = Field(
        {}, alias="RESPONDER_COLUMNS"
    )
    additional_fields: Annotated[tuple[AdditionalField, ...], BeforeValidator(field_names)] = Field(
        (), alias="RESPONDER_ADDITIONAL_FIELDS"
    )
    timezone: str = Field("UTC", alias="RESPONDER_TIMEZONE")

    nats_url: NatsUrls = Field(["nats://127.0.0.1:4222"], alias="NATS_URL", repr=False)
    nats_user: str | None = Field(None, alias="NATS_USER")
    nats_password: str | None = Field(None, alias="NATS_PASSWORD", repr=False)
    nats_token: str | None = Field(None, alias="NATS_TOKEN", repr=False)
    nats_creds: str | None = Field(None, alias="NATS_CREDS")
    nats_nkey: str | None = Field(None, alias="NATS_NKEY")
    nats_ca: str | None = Field(None, alias="NATS_CA")
    nats_cert: str | None = Field(None, alias="NATS_CERT")
    nats_key: str | None = Field(None, alias="NATS_KEY")
    nats_tls_first: bool = Field(default=False, alias="NATS_TLS_FIRST")
    nats_inbox_prefix: InboxPrefix | None = Field(None, alias="NATS_INBOX_PREFIX")
    subject_prefix: SubjectPrefix = Field("users", alias="RESPONDER_SUBJECT_PREFIX")
    queue_group: QueueGroup = Field("responder", alias="RESPONDER_QUEUE_GROUP")

    http_listen: Address = Field(("127.0.0.1", 8080), alias="RESPONDER_HTTP_LISTEN")
    http_keep_alive: Seconds = Field(75.0, alias="RESPONDER_HTTP_KEEP_ALIVE")
    http_origins: Origins = Field([], alias="RESPONDER_HTTP_ORIGINS")
    admin_listen: Address = Field(("127.0.0.1", 8081), alias="RESPONDER_ADMIN_LISTEN")

    better_auth_url: PublicUrl | None = Field(None, alias="BETTER_AUTH_URL")
    jwks_url: KeySetSource | None = Field(None, alias="RESPONDER_JWKS_URL", repr=False)
    jwt_issuer: NameList = Field([], alias="RESPONDER_JWT_ISSUER")
    jwt_audience: NameList = Field([], alias="RESPONDER_JWT_AUDIENCE")
    jwt_secret: Annotated[SharedSecrets | None, BeforeValidator(_secrets)] = Field(
        None, alias="RESPONDER_JWT_SECRET", repr=False
    )
    http_auth: Literal["required", "disabled"] = Field("required", alias="RESPONDER_HTTP_AUTH")
    nats_auth: Literal["required", "optional"] = Field("optional", alias="RESPONDER_NATS_AUTH")
    visibility: Literal["shared-organization", "all"] = Field(
        "shared-organization", alias="RESPONDER_VISIBILITY"
    )
    admin_roles: NameList = Field(["admin", "superadmin"], alias="RESPONDER_ADMIN_ROLES")
    org_roles: NameList = Field([], alias="RESPONDER_ORG_ROLES")

    timeout: Seconds = Field(2.0, alias="RESPONDER_TIMEOUT")
    drain_timeout: Seconds = Field(10.0, alias="RESPONDER_DRAIN_TIMEOUT")
    connections: int = Field(3, ge=1, le=1000, alias="RESPONDER_CONNECTIONS")
    max_batch: int = Field(256, ge=1, le=10_000, alias="RESPONDER_MAX_BATCH")
    max_pending: int = Field(32_768, ge=1, le=1_000_000, alias="RESPONDER_MAX_PENDING")

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", alias="RESPONDER_LOG_LEVEL"
    )
    log_format: Literal["text", "json"] = Field(
        default_factory=lambda: "text" if sys.stderr.isatty() else "json",
        alias="RESPONDER_LOG_FORMAT",
    )

    @classmethod
    def read(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        instead: Mapping[str, str] | None = None,
        worker: bool | None = None,
        http: bool = True,
    ) -> Settings:
        """Read the settings from variables.

        Args:
            environ: the variables; without them, those of the environment, and for what it does not
                have those of `.env` in the working directory.
            instead: variables that replace those of the environment.
            worker: whether a worker shall run with them, or a bridge alone; None if neither shall.
            http: whether the worker has a bridge beside it, if the settings say so.

        Raises SettingsError, which names each variable that is wrong, and never shows its value.
        """
        if environ is None:
            file = {key: value or "" for key, value in dotenv_values(Path(".env")).items()}
            environ = {**file, **os.environ, **(instead or {})}
        # An empty variable is how many tools write "not set".
        given: dict[str, Any] = {key: value for key, value in environ.items() if value.strip()}
        problems = cls._misspelled(given)
        wrong = cls._wrong(given)
        problems += [f"{name}: {message}" for name, message in wrong]
        names = {name for name, _ in wrong}
        settings = cls.model_validate({key: given[key] for key in given if key not in names})
        if not http:
            settings = settings.model_copy(update={"http_listen": None})
        found = settings.contradictions()
        if worker is not None:
            found += settings.problems(worker=worker)
        # Of a variable that is wrong it is not said that it is missing, too.
        problems += [each for each in found if each.partition(":")[0] not in names]
        _refuse(problems)
        return settings

    @classmethod
    def _wrong(cls, given: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the names of variables whose values are wrong, and why they are."""
        try:
            cls.model_validate(given)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            # To the message of an error of ours pydantic adds one of its own.
            return [
                (str(each["loc"][0]), str(each.get("ctx", {}).get("error", each["msg"])))
                for each in found
            ]
        return []

    def contradictions(self) -> list[str]:
        """Return what is wrong with settings that do not go together."""
        problems = []
        if self.org_roles and self.visibility == "all":
            problems.append("RESPONDER_ORG_ROLES: cannot be set with RESPONDER_VISIBILITY=all")
        if ANY_ORIGIN in self.http_origins and self.http_auth != "required":
            problems.append(f"RESPONDER_HTTP_ORIGINS: {ANY_ORIGIN} with tokens required only")
        return problems

    @classmethod
    def _misspelled(cls, given: Iterable[str]) -> list[str]:
        """Return what is wrong with names that are nearly a setting's; other names are not ours."""
        names = [str(each.alias) for each in cls.model_fields.values()]
        problems = []
        for name in given:
            if name.upper().startswith("RESPONDER_") and name not in names:
                near = difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.85)
                if near:
                    said = visible(name)
                    problems.append(f"{said} is not a setting; did you mean {near[0]}?")
        return problems

    def check(self, *, worker: bool) -> None:
        """Raise SettingsError if a process with these settings, a worker or not, cannot work."""
        _refuse(self.problems(worker=worker))

    def problems(self, *, worker: bool) -> list[str]:
        """Return why a process with these settings, a worker or not, cannot work."""
        problems = []
        if worker and not self.dsn:
            problems.append("DATABASE_URL: required, as the Better Auth application has it")
        if worker and self.dsn and not all(os.access(file, os.R_OK) for file in self.dsn.files):
            problems.append("DATABASE_URL: a certificate or key that it names cannot be read")
        over_http = self.http_listen and self.http_auth == "required"
        if worker and (over_http or self.nats_auth == "required") and not self.issuer:
            problems.append(self.missing_issuer)
        return problems + self._nats_problems()

    def _nats_problems(self) -> list[str]:
        """Return what is wrong with the login at NATS, and with TLS."""
        problems = [
            f"{name}: cannot be read"
            for name, file in (("NATS_CREDS", self.nats_creds), ("NATS_NKEY", self.nats_nkey))
            if file is not None and not os.access(file, os.R_OK)
        ]
        if bool(self.nats_user) != bool(self.nats_password):
            missing = "NATS_PASSWORD" if self.nats_user else "NATS_USER"
            problems.append(f"{missing}: required, a name and a password are one login")
        if self.nats_key and not self.nats_cert:
            problems.append("NATS_KEY: is that of a certificate, which NATS_CERT names")
        try:
            self._nats_tls()
        except OSError as error:  # ssl.SSLError is one
            said = error.strerror or type(error).__name__
            problems.append(f"NATS_CA, NATS_CERT, NATS_KEY: {said}")
        return problems

    def _nats_tls(self) -> ssl.SSLContext | None:
        if not self.nats_ca and not self.nats_cert:
            return None
        context = ssl.create_default_context(cafile=self.nats_ca)
        if self.nats_cert:
            context.load_cert_chain(self.nats_cert, self.nats_key)
        return context

    @property
    def additional_keys(self) -> list[str]:
        """The keys of additional fields that a User has."""
        return [field.key for field in self.additional_fields]

    @property
    def overrides(self) -> Overrides:
        """What is said about the tables."""
        return Overrides(
            users=self.users_table,
            members=self.members_table or None,
            no_members=self.members_table == (),
            columns=self.columns,
            additional=self.additional_fields,
            search_path=self.dsn.search_path if self.dsn else (),
        )

    def nats_options(self) -> dict[str, Any]:
        """Return credentials and TLS, as nats-py's `connect` takes them.

        Raises SettingsError for a file that cannot be read, or is not what it should be.
        """
        _refuse(self._nats_problems())
        options: dict[str, Any] = {
            "user": self.nats_user,
            "password": self.nats_password,
            "token": self.nats_token,
            "user_credentials": self.nats_creds,
            "nkeys_seed": self.nats_nkey,
            "tls": self._nats_tls(),
            "tls_handshake_first": self.nats_tls_first or None,
            "inbox_prefix": self.nats_inbox_prefix,
        }
        return {name: value for name, value in options.items() if value is not None}

    @property
    def successors(self) -> str | None:
        """The base of Better Auth's HTTP API, where writes go; None if it is not known."""
        return api_url(self.better_auth_url) if self.better_auth_url else None

    @property
    def issuer(self) -> TrustedIssuer | None:
        """Whose tokens are accepted; None if neither the keys and their names nor a secret are."""
        url = self.better_auth_url
        own = [origin(url)] if url else []
        issuers, audiences = self.jwt_issuer or own, self.jwt_audience or own
        key_set = self.jwks_url or (key_set_url(url) if url else None)
        if key_set == OFF or not issuers or not audiences:
            key_set = None
        if key_set is None and self.jwt_secret is None:
            return None
        return TrustedIssuer(
            key_set_url=key_set,
            key_set_is_presumed=self.jwks_url is None and self.jwt_secret is not None,
            secrets=self.jwt_secret,
            issuers=issuers,
            audiences=audiences,
            issuer_is_required=bool(self.jwt_issuer),
            audience_is_required=bool(self.jwt_audience),
            token_url=f"{self.successors or '/api/auth'}/token",
        )

    @property
    def unused_key_set(self) -> bool:
        """Whether a key set is named, and is of no use, because its issuer or audience is not."""
        named = self.jwks_url not in (None, OFF)
        return named and not (self.issuer and self.issuer.key_set_url)

    @property
    def missing_issuer(self) -> str:
        """What must be set before tokens are verified by keys, or by a secret, as an error says."""
        if self.jwks_url == OFF:
            return "RESPONDER_JWKS_URL: off, so that tokens need RESPONDER_JWT_SECRET"
        if not self.jwks_url:
            why = "BETTER_AUTH_URL: required to verify tokens"
        else:
            missing = [] if self.jwt_issuer else ["RESPONDER_JWT_ISSUER"]
            missing += [] if self.jwt_audience else ["RESPONDER_JWT_AUDIENCE"]
            why = f"{', '.join(missing)}: required to verify tokens, or BETTER_AUTH_URL for both"
        return why if self.jwt_secret else f"{why}, or RESPONDER_JWT_SECRET"

    @property
    def rules(self) -> Rules:
        """What callers with a token may see."""
        return Rules(
            shared_organization=self.visibility == "shared-organization",
            admin_roles=tuple(self.admin_roles),
            organization_roles=tuple(self.org_roles),
        )
