"""A program as people wrote it in 2020: it finds the head by its Service and waits for four nodes."""

import os
import platform
import time
from collections import Counter

import ray

ray.init(address=os.environ["RAY_HEAD_SERVICE_HOST"] + ":6379")
while len(ray.nodes()) < 4:
    time.sleep(0.2)


@ray.remote
def host(before):
    time.sleep(0.01)
    return before + (platform.node(),)


for i in range(10):
    print(i, Counter(ray.get([host.remote(host.remote(())) for _ in range(100)])))
print("Success!")
