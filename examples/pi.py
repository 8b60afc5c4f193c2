"""How large is pi? Tasks throw darts at a square and report to an actor, which knows how far all of them are."""

import math
import random
import time

import ray

TASKS = 8
BATCHES = 10
DARTS = 20_000  # a batch


@ray.remote
class Board:
    """Keeps the score."""

    def __init__(self):
        self.darts = 0
        self.hits = 0

    def add(self, darts, hits):
        self.darts += darts
        self.hits += hits

    def score(self):
        return self.darts, self.hits


@ray.remote
def throw(board, seed):
    """Throws BATCHES times DARTS darts; those within the quarter circle are hits."""
    rng = random.Random(seed)
    for _ in range(BATCHES):
        hits = sum(rng.random() ** 2 + rng.random() ** 2 < 1 for _ in range(DARTS))
        board.add.remote(DARTS, hits)


def main():
    ray.init()
    board = Board.remote()
    running = [throw.remote(board, seed) for seed in range(TASKS)]
    while running:
        _, running = ray.wait(running, num_returns=len(running), timeout=0.5)
        darts, hits = ray.get(board.score.remote())
        if darts:
            print("{:9,} darts: pi is about {:.5f}".format(darts, 4 * hits / darts), flush=True)
    # The tasks are done, but their last reports may still be on their way.
    total = TASKS * BATCHES * DARTS
    while ray.get(board.score.remote())[0] < total:
        time.sleep(0.01)
    pi = 4 * ray.get(board.score.remote())[1] / total
    print("{:9,} darts: pi is {:.5f}, off by {:.5f}".format(total, pi, abs(pi - math.pi)))


if __name__ == "__main__":
    main()
