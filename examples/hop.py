"""Where do tasks run? Chains of two tasks hop over the nodes of a cluster, and each adds the node it ran on.

Run it on a cluster (`ray start --head`, then `ray start --address=…` on the others) or alone, on this machine.
"""

import time
from collections import Counter

import ray


@ray.remote
def hop(path):
    time.sleep(0.01)
    return path + (ray.util.get_node_ip_address(),)


def main():
    ray.init()
    for i in range(10):
        refs = [hop.remote(hop.remote(())) for _ in range(100)]
        print("Iteration {}: {}".format(i, Counter(ray.get(refs))), flush=True)
    print("Success!", flush=True)


if __name__ == "__main__":
    main()
