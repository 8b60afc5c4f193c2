"""Where do tasks run? Waits for four nodes, then runs chains of two tasks, each of which adds the host that it ran on.

kubectl cp example.py ray-head-…:/example.py
kubectl exec ray-head-… -- python example.py
"""

import platform
import time
from collections import Counter

import ray

NODES = 4


@ray.remote
def hop(path):
    time.sleep(0.01)
    return path + (platform.node(),)


def main():
    ray.init()
    while len(ray.nodes()) < NODES:
        print("{} of {} nodes are here".format(len(ray.nodes()), NODES), flush=True)
        time.sleep(1)
    for i in range(10):
        refs = [hop.remote(hop.remote(())) for _ in range(100)]
        print("Iteration {}: {}".format(i, Counter(ray.get(refs))), flush=True)
    print("Success!", flush=True)


if __name__ == "__main__":
    main()
