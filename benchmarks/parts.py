"""What can be measured, by name, in the order in which it is."""

import caller_rounds
import fields_rounds
import growth
import http_rounds
import isolation
import memory
import nats_rounds
import open_rounds
import walk

LOOKUPS = nats_rounds.LOOKUPS
PARTS = {
    "nats": nats_rounds.run,
    "open": open_rounds.run,
    "callers": caller_rounds.run,
    "fields": fields_rounds.run,
    "http": http_rounds.run,
    "growth": growth.run,
    "walk": walk.run,
    "isolation": isolation.run,
    "memory": memory.run,
}
