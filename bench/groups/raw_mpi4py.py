"""What mpi4py takes for the all-reduce of raw_mpi.c: the same arguments, the same loop, the same lines of JSON."""

import json
import signal
import sys
from statistics import median
from time import perf_counter

call, rounds, milliseconds, seconds, *lengths = sys.argv[1:]
signal.alarm(int(seconds))  # Before MPI starts: no rank outlives it.

import numpy
from mpi4py import MPI

MOST_CALLS = 1 << 20
world = MPI.COMM_WORLD


def blocking(send, receive):
    world.Allreduce(send, receive, op=MPI.SUM)


def nonblocking(send, receive):
    request = world.Iallreduce(send, receive, op=MPI.SUM)
    while not request.Test():
        pass


all_reduce = {"allreduce": blocking, "iallreduce": nonblocking}[call]


def round_of(send, receive, calls):
    """Seconds that so many calls take on the slowest rank."""
    world.Barrier()
    start = perf_counter()
    for _ in range(calls):
        all_reduce(send, receive)
    return world.allreduce(perf_counter() - start, op=MPI.MAX)


def measure(length):
    receive = numpy.zeros(length)
    send = (world.rank + 1) * numpy.arange(1.0, length + 1)
    all_reduce(send, receive)
    if not (receive == world.size * (world.size + 1) / 2 * numpy.arange(1.0, length + 1)).all():
        print("Cannot time a wrong sum", file=sys.stderr, flush=True)
        world.Abort(1)

    calls = 1
    while round_of(send, receive, calls) < float(milliseconds) / 1e3 and calls < MOST_CALLS:
        calls *= 2
    times = [1e6 * round_of(send, receive, calls) / calls for _ in range(int(rounds))]
    return {
        "library": " ".join(MPI.Get_library_version().rstrip("\0").split("\n")[0].split()),
        "ranks": world.size,
        "length": length,
        "median": round(median(times), 4),
        "fastest": round(min(times), 4),
    }


for text in lengths:
    row = measure(int(text))
    if world.rank == 0:
        print(json.dumps(row), flush=True)
