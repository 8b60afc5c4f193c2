"""A driver of a task that prints a million lines; the case in cases.py runs it with a file for its output.

python bench/log_lines.py LINES FILE > FILE     # prints to stderr how long it took until FILE had all of them
"""

import sys
import time

import ray

LATE_S = 600  # a driver that loses lines


def main(lines, path):
    ray.init(address="local", num_cpus=1, logging_level="error")

    @ray.remote
    def talk(n):
        for i in range(n):
            print("line", i, "of a task that says a lot")

    ray.get(talk.remote(1))
    begun = time.perf_counter()
    ref = talk.remote(lines)
    ray.get(ref)
    seen = 0
    with open(path) as f:
        while seen <= lines:
            chunk = f.read(1 << 20)
            seen += chunk.count("\n")
            if not chunk:
                if time.perf_counter() - begun > LATE_S:
                    sys.exit("%d of %d lines came" % (seen, lines + 1))
                time.sleep(0.01)
    print(time.perf_counter() - begun, file=sys.stderr)


main(int(sys.argv[1]), sys.argv[2])
