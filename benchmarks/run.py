"""responder side by side with what one would write instead: `make bench`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import report
import uvloop
from contestants import contestants
from parts import LOOKUPS, PARTS
from versions import machine

HERE = Path(__file__).parent
OUTSTANDING = (1, 16, 64, 256)
QUICK = {
    "rounds": 1,
    "seconds": 1.0,
    "outstanding": [1, 64],
    "connections": [1],
    "more_users": 200_000,
    "requests": 100_000,
}


async def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the parts that were asked for, and return what they found."""
    results: dict[str, Any] = {
        "machine": await machine(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "users": arguments.users,
    }
    for name, part in PARTS.items():
        if name in arguments.only or (name == "nats" and set(arguments.only) & set(LOOKUPS)):
            print(f"{name} …", file=sys.stderr)
            results[name] = await part(arguments)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return results


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _arguments() -> argparse.Namespace:
    parts = [*LOOKUPS, *(name for name in PARTS if name != "nats")]
    names = [*(each.name for each in contestants()), "pgbench"]
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--only", type=_words, default=parts, help=f"of {','.join(parts)}")
    add("--contestants", type=_words, default=names, help=f"of {','.join(names)}")
    add("--outstanding", type=_numbers, default=list(OUTSTANDING))
    add("--connections", type=_numbers, default=[1, 8], help="8: where 64 or more are outstanding")
    add("--seconds", type=float, default=2.0, help="of each measurement")
    add("--rounds", type=int, default=5)
    add("--users", type=int, default=100_000)
    add("--more-users", type=int, default=1_000_000, help="what growth compares with")
    add("--requests", type=int, default=1_000_000, help="of the memory part")
    add("--quick", action="store_true", help="a minute or two, to see that everything works")
    add("--json", type=Path, help="write the results there too, after each part")
    add("--write", action="store_true", help="put the results into README.md")
    add("--render", type=Path, help="measure nothing: show the results of a --json")
    if "--quick" in sys.argv:
        parser.set_defaults(**QUICK)
    found = parser.parse_args()
    for part in found.only:
        if part not in parts:
            parser.error(f"no such part: {part}")
    for name in found.contestants:
        if name not in names:
            parser.error(f"no such contestant: {name}")
    return found


if __name__ == "__main__":
    options = _arguments()
    if options.render:
        everything = json.loads(options.render.read_text())
    else:
        everything = uvloop.run(main(options))
    print(report.text(everything))
    if options.write:
        report.write(everything, HERE)
