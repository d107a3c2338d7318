"""A few hundred demo people in a few organizations: the same ones every time."""

# Everything is computed from names, numbers and one fixed day, so that an id printed today can be
# pasted tomorrow.

from __future__ import annotations

import base64
import random
import struct
import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from responder.dev.names import DEPARTMENTS, ORGANIZATIONS, WRITTEN_OUT
from responder.dev.population import DAY, TODAY, Organization, Person, Population

BAN_END = datetime(2099, 12, 31, tzinfo=UTC)  # of a ban with an end that no demo outlives
PEOPLE = 400
GUESTS = 12
BANNED = 6


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The people and organizations worth asking for, by the part they play.

    Unless said otherwise, a person is a member of `organization`, the largest, and of no other.
    """

    organization: Organization
    second_organization: Organization
    owner: Person
    admin: Person
    staff: Person
    viewer: Person
    two_organizations: Person
    """Joined `organization` first, then `second_organization`."""
    second_owner: Person
    """Owns `second_organization`, and shares no organization with `owner`."""
    banned: Person
    temporarily_banned: Person
    ban_over: Person
    """Still marked as banned, as Better Auth leaves it, though the ban has expired."""
    painted: Person
    """Has an image in the row itself, as a data: URL."""
    platform_admin: Person
    """Is in no organization, like all below."""
    superadmin: Person
    support: Person
    """Is an admin by one of two roles."""
    no_organization: Person
    guest: Person

    @property
    def people(self) -> list[Person]:
        """The people of the cast, without the organizations."""
        return [part for part in vars(self).values() if isinstance(part, Person)]


def populate() -> tuple[Population, Cast]:
    """Compute all demo people and their organizations, and those of them worth asking for."""
    population = Population(chance=random.Random(1))  # noqa: S311 - demo people, not secrets
    cast = _add_cast(population)
    written_out = list(WRITTEN_OUT.items())
    for organization, (*_, size) in zip(population.organizations, ORGANIZATIONS, strict=True):
        _add_members(population, cast, organization, size=size, written_out=written_out)
    for name, local in written_out:
        population.add_person(name, local=local, domain="example.org")
    for number in range(1, GUESTS + 1):
        population.add_guest(number)
    while len(population.people) < PEOPLE:
        population.add_person(population.choose_name(), domain="example.org")
    _ban_some(population, cast)
    return population, cast


def _add_cast(population: Population) -> Cast:
    first, second, *_ = (population.add_organization(name, slug) for name, slug, _ in ORGANIZATIONS)
    home, abroad = f"{first.slug}.example.com", f"{second.slug}.example.com"
    part = population.add_ordinary_person
    cast = Cast(
        organization=first,
        second_organization=second,
        owner=replace(part("Zoë Lindqvist", domain=home), created=first.created - DAY),
        admin=part("José María Fernández", domain=home),
        staff=part("Łukasz Wójcik", domain=home),
        viewer=replace(part("Priya Mehta", domain=home), image=None),
        two_organizations=replace(part("Renée Osei", domain=home), created=first.created),
        second_owner=replace(
            part("Ragnhild Sørensen", domain=abroad), created=second.created - DAY
        ),
        banned=replace(
            part("Viktor Petrov", domain=home), banned=True, ban_reason="Sold the customer list"
        ),
        temporarily_banned=replace(
            part("Tariq Haddad", domain=home),
            banned=True,
            ban_reason="Cooling off after the incident in #general",
            ban_expires=BAN_END,
        ),
        ban_over=replace(
            part("Chloé Moreau", domain=home),
            created=TODAY - 300 * DAY,
            banned=True,
            ban_reason="Too many failed sign-ins",
            ban_expires=TODAY - 90 * DAY,
        ),
        painted=replace(part("Hana Nakamura", domain=home), image=_data_url()),
        platform_admin=replace(part("Grace Okafor"), role="admin"),
        superadmin=replace(part("Ólafur Grönlund"), role="superadmin"),
        support=replace(part("Noor Rahman"), role="admin,support"),
        no_organization=part("Emeka Abara", domain="example.org"),
        guest=population.add_guest(0),
    )
    for person in cast.people:
        population.put(person)
    _join_cast(population, cast)
    return cast


def _join_cast(population: Population, cast: Cast) -> None:
    first, second, join = cast.organization, cast.second_organization, population.join
    join(first, cast.owner, "owner")
    join(second, cast.second_owner, "owner")
    join(first, cast.admin, "admin", manager=cast.owner, department="engineering")
    join(first, cast.staff, "staff", manager=cast.admin, department="engineering")
    join(first, cast.viewer, "viewer", department="finance")
    join(first, cast.painted, "staff", manager=cast.admin, department="engineering")
    for person in (cast.banned, cast.temporarily_banned, cast.ban_over):
        join(first, person, "staff", manager=cast.owner, department="sales")
    join(first, cast.two_organizations, "staff", manager=cast.admin, department="engineering")
    earlier = population.memberships[first.id, cast.two_organizations.id].created
    join(second, cast.two_organizations, "admin", manager=cast.second_owner, after=earlier)


def _add_members(
    population: Population,
    cast: Cast,
    organization: Organization,
    *,
    size: int,
    written_out: list[tuple[str, str]],
) -> None:
    """Add members to an organization until it has so many; names used up leave `written_out`."""
    people = {person.id: person for person in population.people.values()}
    roles = {
        user: membership.role
        for (place, user), membership in population.memberships.items()
        if place == organization.id
    }
    others = _members_elsewhere(population, cast, organization)
    owner = next((people[user] for user, role in roles.items() if role == "owner"), None)
    leads: dict[str, Person] = {}
    while len(roles) < size:
        person = _new_member(
            population,
            f"{organization.slug}.example.com",
            others=[] if owner is None else others,
            written_out=[] if owner is None else written_out,
        )
        if person.id in roles or person.banned:
            continue
        department = population.choose(DEPARTMENTS)
        manager: Person | None
        if owner is None:
            person = population.put(replace(person, created=organization.created - DAY))
            owner, role, manager = person, "owner", None
        elif department not in leads:
            leads[department] = person
            role, manager = population.choose(("admin", "staff", "staff", "admin,staff")), owner
        elif population.happens(0.15):
            role, manager = "viewer", None
        else:
            role, manager = "staff", leads[department]
        nowhere = role == "owner" or (role == "viewer" and population.happens(0.5))
        at = None if nowhere else department
        population.join(organization, person, role, manager=manager, department=at)
        roles[person.id] = role


def _members_elsewhere(
    population: Population, cast: Cast, organization: Organization
) -> list[Person]:
    """Return members of other organizations who may join this one as well.

    They are part-timers and founders of two companies. The cast stays where it says it is.
    """
    people = {person.id: person for person in population.people.values()}
    fixed = {person.id for person in cast.people}
    return [
        people[user]
        for place, user in population.memberships
        if place != organization.id and user not in fixed
    ]


def _new_member(
    population: Population,
    domain: str,
    *,
    others: list[Person],
    written_out: list[tuple[str, str]],
) -> Person:
    if others and population.happens(0.08):
        return population.choose(others)
    if written_out and population.happens(0.05):
        name, local = written_out.pop()
        return population.add_person(name, local=local, domain=domain)
    return population.add_person(population.choose_name(), domain=domain)


def _ban_some(population: Population, cast: Cast) -> None:
    reasons = ("Spam", "Chargeback", "Shared an account", None)
    members = {user for _, user in population.memberships}
    may_be_banned = members - {person.id for person in cast.people}
    candidates = [person for person in population.people.values() if person.id in may_be_banned]
    for _ in range(BANNED):
        person = candidates.pop(int(population.chance.random() * len(candidates)))
        population.put(replace(person, banned=True, ban_reason=population.choose(reasons)))


def _data_url() -> str:
    """Return a picture as a data: URL of some 16 kB."""
    side = 64
    rows = b"".join(
        b"\0" + b"".join(bytes((4 * x, 4 * y, 2 * (x + y))) for x in range(side))
        for y in range(side)
    )

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    # Not compressed, because libraries compress differently, and the URL is to be always the same.
    data = zlib.compress(rows, level=0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()
