"""Data-parallel training: each worker computes gradients from its share of the data, their sum moves the weights.

    python train.py [--check] [--workers 3] [--steps 200] [--plot loss.png]

On this machine, or on the cluster that ray.init() finds. A small network learns a function of 16 numbers from synthetic
data that is the same everywhere. With --check one process alone does the same, and has to arrive at the same losses.
Only the workers need torch: here `pip install torch`; on Kubernetes an image that has it (gray:torch).
"""

import argparse
import importlib.util
import platform
import sys

import numpy as np

import ray

FEATURES, WIDTH = 16, 48
ROWS = 6_000
BATCH = 300
RATE, MOMENTUM = 0.05, 0.9
CLOSE = 1e-6  # how far losses may be from those of one process; sums of other order differ by about 1e-15


def make_data():
    """Points and what the network shall learn of them."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(ROWS, FEATURES))
    direction = rng.normal(size=(FEATURES, 2)) / 4
    return x, np.sin(x @ direction).sum(axis=1) + 0.1 * rng.normal(size=ROWS)


class Shard:
    """One of several equal shares of the data, and a network to compute gradients with.

    Every batch is spread over all shares, so that together they see what one process would.
    """

    def __init__(self, number, shares):
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)  # the same first weights everywhere
        x, y = make_data()
        self.x, self.y = (torch.from_numpy(a[number::shares].copy()) for a in (x, y))
        self.rows = BATCH // shares  # of each batch
        self.net = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, WIDTH),
            torch.nn.Tanh(),
            torch.nn.Linear(WIDTH, WIDTH),
            torch.nn.Tanh(),
            torch.nn.Linear(WIDTH, 1),
        ).double()

    def weights(self):
        """All weights in one array."""
        return self._flat(p.detach() for p in self.net.parameters())

    def gradient(self, weights, step):
        """This share's part of the batch's loss, and of its gradient."""
        import torch

        torch.nn.utils.vector_to_parameters(torch.from_numpy(weights.copy()), self.net.parameters())
        start = step * self.rows % len(self.x)
        x, y = self.x[start : start + self.rows], self.y[start : start + self.rows]
        self.net.zero_grad()
        loss = ((self.net(x).squeeze(1) - y) ** 2).sum() / BATCH
        loss.backward()
        return loss.item(), self._flat(p.grad for p in self.net.parameters())

    def host(self):
        return platform.node()

    @staticmethod
    def _flat(tensors):
        return np.concatenate([t.numpy().ravel() for t in tensors])


def train(weights, gradient, steps):
    """Stochastic gradient descent; gives the loss of each step."""
    losses, speed = [], np.zeros_like(weights)
    for step in range(steps):
        loss, slope = gradient(weights, step)
        losses.append(loss)
        speed = MOMENTUM * speed - RATE * slope
        weights = weights + speed
    return losses


def train_together(workers, steps):
    """Each step: the weights to all workers, their parts of the gradient back, and their sum."""

    def gradient(weights, step):
        ref = ray.put(weights)
        parts = ray.get([w.gradient.remote(ref, step) for w in workers])
        return sum(loss for loss, _ in parts), sum(slope for _, slope in parts)

    return train(ray.get(workers[0].weights.remote()), gradient, steps)


@ray.remote
def train_alone(steps):
    """The same in one process."""
    shard = Shard(0, 1)
    return train(shard.weights(), shard.gradient, steps)


@ray.remote
def has_torch():
    return importlib.util.find_spec("torch") is not None


def draw(losses, path):
    """Writes a plot of the losses and gives its path: by matplotlib, or without it as SVG."""
    if importlib.util.find_spec("matplotlib") is None:
        path = path.rpartition(".")[0] + ".svg" if "." in path else path + ".svg"
        with open(path, "w", encoding="utf-8") as f:
            f.write(svg(losses))
        return path
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
    axes.plot(losses)
    axes.grid(alpha=0.3)
    figure.savefig(path)
    return path


def svg(losses, width=600, height=400, margin=50):
    """A line through the losses, on a logarithmic scale."""
    logs = np.log10(losses)
    low, high = logs.min(), logs.max()
    across = np.linspace(margin, width - margin, len(logs))
    down = margin + (high - logs) / ((high - low) or 1) * (height - 2 * margin)
    line = " ".join("{:.1f},{:.1f}".format(*point) for point in zip(across, down))
    text = '<text x="{}" y="{}" font-family="sans-serif" font-size="13">{}</text>'
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}">'.format(width, height),
        '<rect width="100%" height="100%" fill="white"/>',
        '<polyline fill="none" stroke="steelblue" stroke-width="2" points="{}"/>'.format(line),
        text.format(5, margin, "{:.2g}".format(10**high)),
        text.format(5, height - margin, "{:.2g}".format(10**low)),
        text.format(width // 2 - 60, height - 15, "loss of {} steps".format(len(logs))),
        "</svg>",
    ]
    return "\n".join(parts)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=3, help="actors that compute gradients")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--check", action="store_true", help="train in one process, too, and compare the losses")
    parser.add_argument("--plot", default="loss.png", help="where to draw the loss")
    args = parser.parse_args(argv)
    if args.workers < 1 or args.steps < 1 or BATCH % args.workers or ROWS % args.workers:
        parser.error("--workers must divide {} and {}, and there must be a step".format(BATCH, ROWS))

    ray.init(ignore_reinit_error=True)
    if not ray.get(has_torch.remote()):
        sys.exit("Workers can't import torch: `pip install torch` here, or image gray:torch in all pods.")
    # Each has a CPU of its own, on as many machines as there are.
    worker = ray.remote(Shard).options(num_cpus=1, scheduling_strategy="SPREAD")
    workers = [worker.remote(i, args.workers) for i in range(args.workers)]
    print("{} workers on {}".format(args.workers, ", ".join(sorted(ray.get([w.host.remote() for w in workers])))))
    print("a network of {:,} weights".format(len(ray.get(workers[0].weights.remote()))))
    losses = train_together(workers, args.steps)
    for step in range(0, args.steps, max(1, args.steps // 10)):
        print("step {:4}  loss {:.6f}".format(step, losses[step]))
    print("step {:4}  loss {:.6f}".format(args.steps - 1, losses[-1]))
    for w in workers:
        ray.kill(w)
    print("the loss is drawn in", draw(losses, args.plot))
    if args.check:
        alone = ray.get(train_alone.remote(args.steps))
        apart = float(np.max(np.abs(np.array(losses) - alone)))
        print("one process: loss {:.6f} at the end; at most {:.1e} apart at any step".format(alone[-1], apart))
        if not apart < CLOSE:
            sys.exit("The losses differ by more than {:.0e}.".format(CLOSE))
    print("Success!")


if __name__ == "__main__":
    main()
