"""People, organizations and memberships, drawn by chance and yet always the same."""

# An id is a hash of what it names, so that one more person changes no other id. Of `random`, only
# `Random.random` promises the same numbers in every version of Python.

from __future__ import annotations

import hashlib
import random
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from responder.dev.names import FAMILY, GIVEN, LETTERS

T = TypeVar("T")

DAY = timedelta(days=1)
TODAY = datetime(2026, 7, 1, 9, 0, tzinfo=UTC)


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


@dataclass(kw_only=True)
class Population:
    """The rows of the three tables, as far as they have been added."""

    chance: random.Random
    people: dict[str, Person] = field(default_factory=dict)  # by email
    organizations: list[Organization] = field(default_factory=list)
    memberships: dict[tuple[str, str], Membership] = field(default_factory=dict)
    """By organization and user."""
    emails: set[str] = field(default_factory=set)

    def choose(self, choices: Sequence[T]) -> T:
        """Return one of the choices, each as likely as the others."""
        return choices[int(self.chance.random() * len(choices))]

    def happens(self, probability: float) -> bool:
        """Return true with this probability, from 0 to 1."""
        return self.chance.random() < probability

    def moment(self, earliest: datetime, latest: datetime = TODAY) -> datetime:
        """Return a time between two others."""
        seconds = (latest - earliest).total_seconds() * self.chance.random()
        # These columns are written with JavaScript's clock, which has milliseconds.
        return earliest + timedelta(milliseconds=int(seconds * 1000))

    def add_person(self, name: str, *, local: str | None = None, domain: str) -> Person:
        """Add a person; `local` is the email up to the @, if that is not made of the name."""
        local = local or _ascii(name)
        email = f"{local}@{domain}"
        namesakes = 1
        while email in self.emails:
            namesakes += 1
            email = f"{local}{namesakes}@{domain}"
        self.emails.add(email)
        identifier = _id(f"user {email}")
        image = None
        if self.happens(0.6):
            image = f"https://images.example/people/{identifier[:8].lower()}.png"
        person = Person(
            id=identifier,
            email=email,
            name=name,
            created=self.moment(TODAY - 730 * DAY),
            email_verified=self.happens(0.88),
            image=image,
            # Rows that are older than the plugins have nulls after Better Auth's own migration.
            role=None if (early := self.happens(0.07)) else "user",
            banned=None if early else False,
            is_anonymous=None if early else False,
        )
        return self.put(person)

    def add_ordinary_person(self, name: str, *, domain: str = "example.com") -> Person:
        """Add a person and return them with a verified email and without nulls."""
        person = self.add_person(name, domain=domain)
        return replace(person, email_verified=True, role="user", banned=False, is_anonymous=False)

    def add_guest(self, number: int) -> Person:
        """Add an anonymous user, as the anonymous plugin makes them."""
        identifier = _id(f"guest {number}")
        guest = Person(
            id=identifier,
            email=f"{identifier.lower()}@anonymous.placeholder.invalid",
            name="Anonymous",
            created=self.moment(TODAY - 30 * DAY),
            email_verified=False,
            is_anonymous=True,
        )
        return self.put(guest)

    def choose_name(self) -> str:
        """Return a given name and a family name."""
        return f"{self.choose(GIVEN)} {self.choose(FAMILY)}"

    def put(self, person: Person) -> Person:
        """Put a person in the place of the one with the same email, if there is one."""
        self.people[person.email] = person
        return person

    def add_organization(self, name: str, slug: str) -> Organization:
        """Add an organization without members."""
        organization = Organization(
            id=_id(f"organization {slug}"),
            name=name,
            slug=slug,
            created=self.moment(TODAY - 730 * DAY, TODAY - 400 * DAY),
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
        """Make a person a member, some time after they, the organization and `after` were there."""
        earliest = max(organization.created, person.created, after or organization.created)
        self.memberships[organization.id, person.id] = Membership(
            id=_id(f"member {organization.id} {person.id}"),
            organization=organization.id,
            user=person.id,
            role=role,
            # The creator is a member from the start, and no other user is.
            created=organization.created if role == "owner" else self.moment(earliest),
            manager=manager.id if manager else None,
            department=department,
        )


def _ascii(name: str) -> str:
    """Return a name as the beginning of an email, such as jorg.muller for Jörg Müller."""
    plain = unicodedata.normalize("NFKD", name.lower()).translate(LETTERS)
    return "".join(letter for letter in plain if letter in string.ascii_lowercase + ".")


def _id(name: str) -> str:
    """Return an id such as Better Auth's generator draws: 32 of 62 characters."""
    letters = string.ascii_letters + string.digits
    digest = hashlib.blake2b(name.encode(), digest_size=32).digest()
    # 256 is no multiple of 62, so some characters are likelier, which matters to no demo.
    return "".join(letters[byte % 62] for byte in digest)
