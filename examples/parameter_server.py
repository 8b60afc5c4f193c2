"""Training with a parameter server: one actor holds the weights of a model, others compute gradients from their share of the data.

Synchronous: a round waits for all gradients and applies their mean. Asynchronous: each gradient is applied when it arrives, and
its worker goes on with the newest weights, so that nobody waits for the slowest. The model is logistic regression, by hand.
"""

import time

import numpy as np

import ray

WORKERS = 3
FEATURES = 20
ROWS = 2_000  # a worker
ROUNDS = 60
RATE = 0.5


def make_data(seed, rows=ROWS):
    """Points, and on which side of a plane they are; one in twenty says the wrong side."""
    rng = np.random.default_rng(seed)
    plane = np.random.default_rng(0).normal(size=FEATURES)
    x = rng.normal(size=(rows, FEATURES))
    wrong = rng.random(rows) < 0.05
    return x, ((x @ plane > 0) != wrong).astype(float)


def accuracy(weights, data):
    x, y = data
    return np.mean((x @ weights > 0) == y)


@ray.remote(num_cpus=0)
class ParameterServer:
    """Holds the weights."""

    def __init__(self):
        self.weights = np.zeros(FEATURES)

    def apply(self, *gradients):
        self.weights = self.weights - RATE * np.mean(gradients, axis=0)
        return self.weights

    def get(self):
        return self.weights


@ray.remote(num_cpus=0)
class Worker:
    """Holds a share of the data."""

    def __init__(self, number):
        self.x, self.y = make_data(seed=number + 1)
        self.rng = np.random.default_rng(number)

    def gradient(self, weights):
        rows = self.rng.choice(ROWS, size=200, replace=False)
        x, y = self.x[rows], self.y[rows]
        return x.T @ (1 / (1 + np.exp(-x @ weights)) - y) / len(rows)


def synchronous(workers):
    server = ParameterServer.remote()
    weights = server.get.remote()
    for _ in range(ROUNDS):
        # Refs, not values: gradients go from the workers to the server, and weights back, without passing through here.
        gradients = [worker.gradient.remote(weights) for worker in workers]
        weights = server.apply.remote(*gradients)
    return ray.get(weights)


def asynchronous(workers):
    server = ParameterServer.remote()
    weights = server.get.remote()
    computing = {worker.gradient.remote(weights): worker for worker in workers}
    for _ in range(ROUNDS * len(workers)):
        [gradient], _ = ray.wait(list(computing))
        worker = computing.pop(gradient)
        weights = server.apply.remote(gradient)
        computing[worker.gradient.remote(weights)] = worker
    return ray.get(weights)


def main():
    ray.init()
    test = make_data(seed=1_000_000)
    workers = [Worker.remote(i) for i in range(WORKERS)]
    print("untrained:    {:.1%} of the test points are right".format(accuracy(np.zeros(FEATURES), test)))
    for name, train in [("synchronous", synchronous), ("asynchronous", asynchronous)]:
        start = time.perf_counter()
        right = accuracy(train(workers), test)
        seconds = time.perf_counter() - start
        print("{:13} {:.1%}, after {} gradients in {:.2f} s".format(name + ":", right, ROUNDS * WORKERS, seconds))
        assert right > 0.9, right


if __name__ == "__main__":
    main()
