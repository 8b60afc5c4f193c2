"""Writes programs and their answers for the simulator, one JSON a line: ``python scripts.py FIRST COUNT > FILE``."""

import json
import sys

import programs
import sites


def lines(first, count):
    """The programs of some seeds, as internal/sim reads them."""
    for seed in range(first, first + count):
        program = programs.make(seed)
        yield json.dumps({"seed": seed, "program": program, "answers": sites.modelled(program)}, separators=(",", ":"))


if __name__ == "__main__":
    for line in lines(int(sys.argv[1]), int(sys.argv[2])):
        print(line)
