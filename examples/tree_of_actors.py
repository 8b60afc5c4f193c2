"""Actors that make actors: a tree in which each one asks its children and adds up what they say.

python examples/tree_of_actors.py [--fanout 2] [--depth 3]
"""

import argparse
import os
import time

import ray


@ray.remote(num_cpus=0)
class Member:
    """One of the tree; it holds the handles of its children, and they live as long as it does."""

    def __init__(self, path, fanout, depth):
        self.path = path
        children = range(1, fanout + 1) if depth > 1 else ()
        self.children = [Member.remote(path + (i,), fanout, depth - 1) for i in children]

    def count(self):
        """How many members there are from here down."""
        return 1 + sum(ray.get([child.count.remote() for child in self.children]))

    def gather(self):
        """The processes of all members from here down, by path."""
        found = {self.path: os.getpid()}
        for below in ray.get([child.gather.remote() for child in self.children]):
            found.update(below)
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fanout", type=int, default=2, help="children of each")
    parser.add_argument("--depth", type=int, default=3, help="generations")
    args = parser.parse_args()

    ray.init()
    start = time.perf_counter()
    root = Member.remote((), args.fanout, args.depth)
    count = ray.get(root.count.remote())
    print("{} actors made and asked in {:.2f} s".format(count, time.perf_counter() - start))

    start = time.perf_counter()
    found = ray.get(root.gather.remote())
    print("asked again in {:.1f} ms:".format(1000 * (time.perf_counter() - start)))
    for path, pid in sorted(found.items()):
        print("  " * len(path) + "{} in process {}".format(".".join(map(str, path)) or "root", pid))

    expected = sum(args.fanout**i for i in range(args.depth))
    assert count == len(found) == len(set(found.values())) == expected, (count, found)
    print("A tree of {} actors in {} processes.".format(count, len(set(found.values()))))


if __name__ == "__main__":
    main()
