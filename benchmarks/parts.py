"""What can be measured, by name, in the order in which it is."""

import growth
import http_rounds
import isolation
import memory
import nats_rounds
import walk

LOOKUPS = nats_rounds.LOOKUPS
PARTS = {
    "nats": nats_rounds.run,
    "http": http_rounds.run,
    "growth": growth.run,
    "walk": walk.run,
    "isolation": isolation.run,
    "memory": memory.run,
}
