"""More tries than the tests make: `python tests/fuzz --seed 1 --tries 20000`.

Prints tries by verb and exit codes, then every kind of fault with its shortest call. Exit code 1 if
there are any.
"""

from __future__ import annotations

import argparse
import sys

from calls import VALID
from session import Tally, session
from tries import shares


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tries", type=int, default=20_000)
    parser.add_argument(
        "--verb", choices=VALID, action="append", help="this one alone; repeat for several"
    )
    args = parser.parse_args()
    wanted = dict.fromkeys(args.verb, args.tries) if args.verb else shares(args.tries)
    whole = Tally()
    with session() as tried:
        for verb, tries in wanted.items():
            tally = Tally()
            tried.fuzz(verb, tries, args.seed, tally)
            print(f"{verb:<18}{tries:>8} tries {tally.seconds:>8.0f} s", flush=True)
            print(tally.told(), end="", flush=True)
            whole += tally
    print(f"{whole.tries.total()} tries, exit codes {dict(sorted(whole.codes.items()))}, "
          f"{len(whole.findings)} faults of {len(whole.kinds())} kinds")  # fmt: skip
    return bool(whole.findings)


if __name__ == "__main__":
    sys.exit(main())
