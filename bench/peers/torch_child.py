"""PyTorch's batch normalization on the CPU, timed inside a process of its own; limit.c says how it is asked.

Every way to say it is tried on each batch, and the fastest is timed from then on: the public function, the operators
below it, with outputs that were made before, with and without autograd.
"""

import ctypes
import sys
import time

import torch

EPS = 1e-5
MOMENTUM = 0.1
TRIALS = 3


class Batch:
    """Tensors of one batch, and the fastest way to normalize it, per number of threads."""

    def __init__(self, layout, samples, channels, extents):
        shape = (samples, channels, *extents)
        self.last = layout == "channelsLast"
        self.x, self.dy = (self.receive(shape) for _ in range(2))
        self.weight, self.bias = (self.receive((channels,)) for _ in range(2))
        self.mean, self.var = torch.zeros(channels), torch.ones(channels)
        self.leaf = self.x.detach().requires_grad_()
        self.parameters = [t.detach().requires_grad_() for t in (self.weight, self.bias)]
        self.made = tuple(torch.empty_like(t) for t in (self.x, self.mean, self.var))
        self.fastest = {}

    def receive(self, shape):
        """Reads float32 in memory order; the tensor has the logical shape (N, C, ...)."""
        stored = (shape[0], *shape[2:], shape[1]) if self.last and len(shape) > 2 else shape
        tensor = torch.empty(stored)
        whole = memoryview(tensor.numpy()).cast("B")
        filled = 0
        while filled < len(whole):
            got = sys.stdin.buffer.readinto(whole[filled:])
            if not got:
                sys.exit(1)
            filled += got
        return tensor.movedim(-1, 1) if stored is not shape else tensor

    def send(self, tensor):
        """Writes float32 in memory order."""
        stored = tensor.movedim(1, -1) if self.last and tensor.dim() > 2 else tensor
        sys.stdout.buffer.write(memoryview(stored.detach().contiguous().numpy()).cast("B"))

    @torch.no_grad()
    def function(self):
        return torch.nn.functional.batch_norm(
            self.x, self.mean, self.var, self.weight, self.bias, True, MOMENTUM, EPS
        )

    @torch.no_grad()
    def operator(self, **options):
        return torch.native_batch_norm(
            self.x, self.weight, self.bias, self.mean, self.var, True, MOMENTUM, EPS, **options
        )

    def autograd(self):
        weight, bias = self.parameters
        y = torch.nn.functional.batch_norm(
            self.leaf, self.mean, self.var, weight, bias, True, MOMENTUM, EPS
        )
        return y, *torch.autograd.grad(y, (self.leaf, weight, bias), self.dy)

    @torch.no_grad()
    def operators(self, **options):
        y, mean, invstd = self.operator(**options)
        return y, *torch.ops.aten.native_batch_norm_backward(
            self.dy, self.x, self.weight, self.mean, self.var, mean, invstd, True, EPS, [True] * 3
        )

    def ways(self, work):
        if work == "forward":
            return [self.function, self.operator, lambda: self.operator(out=self.made)]
        return [self.autograd, self.operators, lambda: self.operators(out=self.made)]

    def run(self, work, calls):
        """Nanoseconds of all calls."""
        key = work, torch.get_num_threads()
        if key not in self.fastest:
            ways = self.ways(work)
            least = [min(nanoseconds(way, 1) for _ in range(TRIALS)) for way in ways]
            self.fastest[key] = least.index(min(least))
        return nanoseconds(self.ways(work)[self.fastest[key]], calls)

    def results(self):
        """What the fastest way gives."""
        key = "both", torch.get_num_threads()
        return self.ways("both")[self.fastest[key]]()


def nanoseconds(way, calls):
    start = time.perf_counter_ns()
    for _ in range(calls):
        way()
    return time.perf_counter_ns() - start


def answer(text):
    sys.stdout.buffer.write(f"{text}\n".encode())


# The process is told to keep what it frees; between batches that would be fragments of one that the next cannot use.
trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
batch = None
answer(torch.__version__)
sys.stdout.flush()
for line in iter(sys.stdin.buffer.readline, b""):
    command, *words = line.decode().split()
    if command == "prepare":
        samples, channels, _, *extents = map(int, words[1:])
        batch = Batch(words[0], samples, channels, extents)
        answer("ready")
    elif command == "run":
        work, threads, _, calls = words
        if torch.get_num_threads() != int(threads):
            torch.set_num_threads(int(threads))
        answer(batch.run(work, int(calls)))
    elif command == "results":
        torch.set_num_threads(int(words[0]))
        batch.run("both", 1)
        answer("ready")
        for tensor in batch.results():
            batch.send(tensor)
        tensor = None
    elif command == "free":
        batch = None
        trim(0)
        answer("ready")
    sys.stdout.flush()
