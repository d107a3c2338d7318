"""A few hundred demo people in Better Auth's tables: the same ones every time."""

# Everything is computed from names, numbers and one fixed day, so that an id printed today can be
# pasted tomorrow. Ids are hashes of what they name: adding a person changes nobody else's. Of
# `random`, only `Random.random` promises the same numbers in every version of Python.

import base64
import hashlib
import random
import string
import struct
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import TypeVar

import asyncpg

T = TypeVar("T")

TODAY = datetime(2026, 7, 1, 9, 0, tzinfo=UTC)
SOME_DAY = datetime(2099, 12, 31, tzinfo=UTC)  # a ban that ends, but not while the demo is in use
PEOPLE = 400
GUESTS = 12
BANNED = 6
DEPARTMENTS = ("engineering", "design", "sales", "support", "finance", "people", "operations")

# Name, slug, members. The creator of an organization owns it.
ORGANIZATIONS = (
    ("Lumen Cartography", "lumen", 184),
    ("Fjord & Fable", "fjord-and-fable", 61),
    ("Cooperativa Casa Azul", "casa-azul", 37),
    ("Tanuki Robotics", "tanuki", 24),
    ("Kestrel Clinic", "kestrel", 16),
    ("Pracownia Żółw", "zolw", 9),
    ("Pocket Museum", "pocket-museum", 4),
    ("One-Person Garden", "garden", 1),
)

GIVEN = (
    *("Amara", "Aisha", "Alma", "Anaïs", "Arjun", "Beatriz", "Björn", "Brigitte", "Caoimhe"),
    *("Chidi", "Chloé", "Dagny", "Daniel", "Dilnoza", "Eleni", "Emeka", "Esther", "Fatima"),
    *("Farah", "Gaël", "Grace", "Hana", "Héctor", "Hiroshi", "Ibrahim", "Ines", "Ingrid"),
    *("Isak", "Jörg", "Joana", "Kaito", "Kasia", "Kofi", "Leila", "Liam", "Łukasz", "Lucía"),
    *("Malik", "Maja", "Marek", "Mei", "Miriam", "Nadia", "Ngozi", "Noa", "Noor", "Ólafur"),
    *("Omar", "Ondřej", "Paolo", "Priya", "Ragnhild", "Ravi", "Renée", "Rosa", "Samir", "Sara"),
    *("Selin", "Siobhán", "Sofia", "Søren", "Tariq", "Tomás", "Uma", "Viktor", "Wanjiru"),
    *("Xiomara", "Yara", "Yusuf", "Zainab", "Zoë"),
)
FAMILY = (
    *("Abara", "Ahmadi", "Andersson", "Aydın", "Banerjee", "Bauer", "Bianchi", "Brennan"),  # noqa: RUF001 - Turkish
    *("Carvalho", "Castillo", "Chaudhry", "Costa", "Cruz", "Çelik", "Diallo", "Dubois"),
    *("Eriksen", "Farouk", "Fernández", "Fischer", "García", "Grönlund", "Haddad", "Hansen"),
    *("Horváth", "Ito", "Ivanova", "Jansen", "Jovanović", "Kamau", "Kaya", "Kim", "Kovač"),
    *("Kowalski", "Laurent", "Lindqvist", "Mbeki", "Mehta", "Mensah", "Moreau", "Müller"),
    *("Nakamura", "Nguyễn", "Novák", "Núñez", "O'Connor", "Okafor", "Oliveira", "Osei"),
    *("Özdemir", "Papadaki", "Patel", "Petrov", "Quispe", "Rahman", "Reyes", "Rossi"),
    *("Sánchez", "Sato", "Schäfer", "Silva", "Sørensen", "Šimić", "Tanaka", "Thibault"),
    *("Vargas", "Virtanen", "Weiß", "Wójcik", "Yılmaz", "Zhang"),  # noqa: RUF001 - Turkish
)
# Names that do not reduce to ASCII, or should not be left to chance.
WRITTEN_OUT = {
    "李小龍": "lee.siulung",
    "山田 花子": "hanako.yamada",
    "Αλέξανδρος Παπαδόπουλος": "alexandros.papadopoulos",
    "Олена Шевченко": "olena.shevchenko",
    "فاطمة الزهراء": "fatima.alzahra",
    "नेहा शर्मा": "neha.sharma",
    "김민준": "minjun.kim",
    "דנה לוי": "dana.levi",
    "สมชาย ใจดี": "somchai.jaidee",
    "Ømer Ståhl": "omer.stahl",
    "José María Núñez de la Peña": "josemaria.nunez",
    "Wolfeschlegelsteinhausenbergerdorff, Hubert": "hubert.w",
    "Björk 🎸": "bjork",
    "Þóra Ægisdóttir": "thora.aegisdottir",
}
# What has no decomposition into an ASCII letter and a mark.
LETTERS = str.maketrans({"ł": "l", "ø": "o", "ß": "ss", "ı": "i", " ": "."})  # noqa: RUF001


@dataclass(frozen=True, kw_only=True)
class Person:
    """A row of the users table."""

    id: str
    email: str
    name: str
    created: datetime
    email_verified: bool = True
    image: str | None = None
    role: str | None = "user"
    banned: bool | None = False
    ban_reason: str | None = None
    ban_expires: datetime | None = None
    is_anonymous: bool | None = False


@dataclass(frozen=True, kw_only=True)
class Organization:
    """A row of the organizations table."""

    id: str
    name: str
    slug: str
    created: datetime


@dataclass(frozen=True, kw_only=True)
class Membership:
    """A row of the members table."""

    id: str
    organization: str
    user: str
    role: str
    created: datetime
    manager: str | None
    department: str | None


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The people and organizations worth asking for, by the part they play.

    Unless their part says otherwise they are members of `organization`, the largest.
    """

    organization: Organization
    second_organization: Organization
    owner: Person
    admin: Person
    staff: Person
    viewer: Person
    two_organizations: Person
    """Of `organization` first, then of `second_organization`."""
    second_owner: Person
    """Owns `second_organization` and shares nothing with the owner of the first."""
    banned: Person
    temporarily_banned: Person
    ban_over: Person
    """Still marked as banned, as Better Auth leaves it, though the ban has expired."""
    painted: Person
    """Has an image inside the row, as a data: URL."""
    platform_admin: Person
    """Like the next three, in no organization."""
    superadmin: Person
    support: Person
    """An admin by one of two roles."""
    no_organization: Person
    guest: Person


@dataclass(kw_only=True)
class _Town:
    chance: random.Random
    people: dict[str, Person] = field(default_factory=dict)
    organizations: list[Organization] = field(default_factory=list)
    members: dict[tuple[str, str], Membership] = field(default_factory=dict)
    emails: set[str] = field(default_factory=set)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.chance.random() * len(choices))]

    def often(self, share: float) -> bool:
        return self.chance.random() < share

    def moment(self, earliest: datetime, latest: datetime = TODAY) -> datetime:
        seconds = (latest - earliest).total_seconds() * self.chance.random()
        # JavaScript's clock, which wrote these columns, has milliseconds.
        return earliest + timedelta(milliseconds=int(seconds * 1000))

    def person(self, name: str, *, local: str | None = None, domain: str) -> Person:
        local = local or _ascii(name)
        email = f"{local}@{domain}"
        namesakes = 1
        while email in self.emails:
            namesakes += 1
            email = f"{local}{namesakes}@{domain}"
        self.emails.add(email)
        identifier = _id(f"user {email}")
        image = None
        if self.often(0.6):
            image = f"https://images.example/people/{identifier[:8].lower()}.png"
        person = Person(
            id=identifier,
            email=email,
            name=name,
            created=self.moment(TODAY - timedelta(days=730)),
            email_verified=self.often(0.88),
            image=image,
            # Older than the plugins, as Better Auth's own migration leaves such rows.
            role=None if (early := self.often(0.07)) else "user",
            banned=None if early else False,
            is_anonymous=None if early else False,
        )
        return self.keep(person)

    def keep(self, person: Person) -> Person:
        self.people[person.email] = person
        return person

    def organization(self, name: str, slug: str) -> Organization:
        organization = Organization(
            id=_id(f"organization {slug}"),
            name=name,
            slug=slug,
            created=self.moment(TODAY - timedelta(days=730), TODAY - timedelta(days=400)),
        )
        self.organizations.append(organization)
        return organization

    def join(
        self,
        organization: Organization,
        person: Person,
        role: str,
        *,
        manager: Person | None = None,
        department: str | None = None,
        after: datetime | None = None,
    ) -> None:
        earliest = max(organization.created, person.created, after or organization.created)
        self.members[organization.id, person.id] = Membership(
            id=_id(f"member {organization.id} {person.id}"),
            organization=organization.id,
            user=person.id,
            role=role,
            # The creator is a member from the start; nobody else is.
            created=organization.created if role == "owner" else self.moment(earliest),
            manager=manager.id if manager else None,
            department=department,
        )


async def create_tables(connection: asyncpg.Connection) -> None:
    """Create Better Auth's tables, with the statements Better Auth itself uses."""
    await connection.execute(resources.files(__package__).joinpath("tables.sql").read_text("utf8"))


async def settle(connection: asyncpg.Connection) -> Cast:
    """Fill Better Auth's empty tables with people, and return those worth asking for."""
    town, cast = _town()
    async with connection.transaction():
        await connection.copy_records_to_table(
            "users",
            columns=(
                *("id", "name", "email", "emailVerified", "image", "createdAt", "updatedAt"),
                *("role", "banned", "banReason", "banExpires", "isAnonymous"),
            ),
            records=[
                (
                    *(p.id, p.name, p.email, p.email_verified, p.image, p.created, p.created),
                    *(p.role, p.banned, p.ban_reason, p.ban_expires, p.is_anonymous),
                )
                for p in town.people.values()
            ],
        )
        await connection.copy_records_to_table(
            "organizations",
            columns=("id", "name", "slug", "createdAt"),
            records=[(o.id, o.name, o.slug, o.created) for o in town.organizations],
        )
        await connection.copy_records_to_table(
            "members",
            columns=(
                *("id", "organizationId", "userId", "role", "createdAt"),
                *("managerId", "departmentId"),
            ),
            records=[
                (m.id, m.organization, m.user, m.role, m.created, m.manager, m.department)
                for m in town.members.values()
            ],
        )
    # Now, lest autovacuum do it a minute later and change plans under somebody's measurement.
    await connection.execute("analyze users, organizations, members")
    return cast


def _town() -> tuple[_Town, Cast]:
    town = _Town(chance=random.Random(1))  # noqa: S311 - demo people, not secrets
    cast = _cast(town)
    written_out = list(WRITTEN_OUT.items())
    for organization, (*_, size) in zip(town.organizations, ORGANIZATIONS, strict=True):
        _staff(town, cast, organization, size=size, written_out=written_out)
    for name, local in written_out:
        town.person(name, local=local, domain="example.org")
    for number in range(1, GUESTS + 1):
        _guest(town, number)
    while len(town.people) < PEOPLE:
        town.person(_name(town), domain="example.org")
    _ban_some(town, cast)
    return town, cast


def _cast(town: _Town) -> Cast:
    first, second, *_ = (town.organization(name, slug) for name, slug, _ in ORGANIZATIONS)
    home, abroad = f"{first.slug}.example.com", f"{second.slug}.example.com"

    day = timedelta(days=1)

    def part(name: str, domain: str = "example.com") -> Person:
        person = town.person(name, domain=domain)
        return replace(person, email_verified=True, role="user", banned=False, is_anonymous=False)

    cast = Cast(
        organization=first,
        second_organization=second,
        owner=replace(part("Zoë Lindqvist", home), created=first.created - day),
        admin=part("José María Fernández", home),
        staff=part("Łukasz Wójcik", home),
        viewer=replace(part("Priya Mehta", home), image=None),
        two_organizations=replace(part("Renée Osei", home), created=first.created),
        second_owner=replace(part("Ragnhild Sørensen", abroad), created=second.created - day),
        banned=replace(
            part("Viktor Petrov", home), banned=True, ban_reason="Sold the customer list"
        ),
        temporarily_banned=replace(
            part("Tariq Haddad", home),
            banned=True,
            ban_reason="Cooling off after the incident in #general",
            ban_expires=SOME_DAY,
        ),
        ban_over=replace(
            part("Chloé Moreau", home),
            created=TODAY - 300 * day,
            banned=True,
            ban_reason="Too many failed sign-ins",
            ban_expires=TODAY - 90 * day,
        ),
        painted=replace(part("Hana Nakamura", home), image=_painting()),
        platform_admin=replace(part("Grace Okafor"), role="admin"),
        superadmin=replace(part("Ólafur Grönlund"), role="superadmin"),
        support=replace(part("Noor Rahman"), role="admin,support"),
        no_organization=part("Emeka Abara", "example.org"),
        guest=_guest(town, 0),
    )
    for person in _people(cast):
        town.keep(person)
    town.join(first, cast.owner, "owner")
    town.join(second, cast.second_owner, "owner")
    town.join(first, cast.admin, "admin", manager=cast.owner, department="engineering")
    town.join(first, cast.staff, "staff", manager=cast.admin, department="engineering")
    town.join(first, cast.viewer, "viewer", department="finance")
    town.join(first, cast.painted, "staff", manager=cast.admin, department="engineering")
    for person in (cast.banned, cast.temporarily_banned, cast.ban_over):
        town.join(first, person, "staff", manager=cast.owner, department="sales")
    town.join(first, cast.two_organizations, "staff", manager=cast.admin, department="engineering")
    earlier = town.members[first.id, cast.two_organizations.id].created
    town.join(second, cast.two_organizations, "admin", manager=cast.second_owner, after=earlier)
    return cast


def _people(cast: Cast) -> list[Person]:
    return [part for part in vars(cast).values() if isinstance(part, Person)]


def _staff(
    town: _Town,
    cast: Cast,
    organization: Organization,
    *,
    size: int,
    written_out: list[tuple[str, str]],
) -> None:
    domain = f"{organization.slug}.example.com"
    people = {person.id: person for person in town.people.values()}
    # Those of other organizations who may join this one too: part-timers, founders of two
    # companies. The cast is where it says it is.
    fixed = {person.id for person in _people(cast)}
    others = [
        people[user]
        for place, user in town.members
        if place != organization.id and user not in fixed
    ]
    present = {
        user: role.role for (place, user), role in town.members.items() if place == organization.id
    }
    leads: dict[str, Person] = {}
    boss = next((people[user] for user, role in present.items() if role == "owner"), None)
    while len(present) < size:
        if boss is not None and others and town.often(0.08):
            person = town.pick(others)
            if person.id in present or person.banned:
                continue
        elif boss is not None and written_out and town.often(0.05):
            name, local = written_out.pop()
            person = town.person(name, local=local, domain=domain)
        else:
            person = town.person(_name(town), domain=domain)
        department = town.pick(DEPARTMENTS)
        if boss is None:
            created = organization.created - timedelta(days=1)
            boss = person = town.keep(replace(person, created=created))
            role, manager = "owner", None
        elif department not in leads:
            leads[department] = person
            role, manager = town.pick(("admin", "staff", "staff", "admin,staff")), boss
        elif town.often(0.15):
            role, manager = "viewer", None
        else:
            role, manager = "staff", leads[department]
        nowhere = role == "owner" or (role == "viewer" and town.often(0.5))
        town.join(
            organization,
            person,
            role,
            manager=manager,
            department=None if nowhere else department,
        )
        present[person.id] = role


def _guest(town: _Town, number: int) -> Person:
    identifier = _id(f"guest {number}")
    email = f"{identifier.lower()}@anonymous.placeholder.invalid"
    guest = Person(
        id=identifier,
        email=email,
        name="Anonymous",
        created=town.moment(TODAY - timedelta(days=30)),
        email_verified=False,
        is_anonymous=True,
    )
    return town.keep(guest)


def _ban_some(town: _Town, cast: Cast) -> None:
    reasons = ("Spam", "Chargeback", "Shared an account", None)
    spared = {person.id for person in _people(cast)}
    members = {user for _, user in town.members}
    candidates = [p for p in town.people.values() if p.id in members - spared]
    for _ in range(BANNED):
        person = candidates.pop(int(town.chance.random() * len(candidates)))
        town.keep(replace(person, banned=True, ban_reason=town.pick(reasons)))


def _name(town: _Town) -> str:
    return f"{town.pick(GIVEN)} {town.pick(FAMILY)}"


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.lower()).translate(LETTERS)
    return "".join(letter for letter in plain if letter in string.ascii_lowercase + ".")


def _id(name: str) -> str:
    # 32 of the 62 characters Better Auth's generator draws from. The bias is nobody's concern.
    letters = string.ascii_letters + string.digits
    digest = hashlib.blake2b(name.encode(), digest_size=32).digest()
    return "".join(letters[byte % 62] for byte in digest)


def _painting() -> str:
    side = 64
    rows = b"".join(
        b"\0" + b"".join(bytes((4 * x, 4 * y, 2 * (x + y))) for x in range(side))
        for y in range(side)
    )

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    # Stored, not deflated: libraries deflate differently, and its size is the point.
    data = zlib.compress(rows, level=0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()
