"""A peer process: builds one workload, then times blocks of steps when told to.

Each peer is a process of its own, so that nobody's idle threads spin while another is measured.
Standard input: the number of steps; standard output: a JSON line of seconds per step. Usage: python
-m bench.peer PEER WORKLOAD THREADS
"""

from __future__ import annotations

import json
import sys
import time

from bench.workloads import PEERS

WARM_UP = 10


def main(peer: str, workload: str, threads: int) -> None:
    step = PEERS[peer](workload, threads)
    for i in range(WARM_UP):
        step(i)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = []
        for i in range(int(line)):
            start = time.perf_counter()
            step(i)
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
