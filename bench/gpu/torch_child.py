"""PyTorch on CUDA, asked over stdin: one JSON line per case, one JSON line of milliseconds per call back.

The kernels of SyncBatchNorm without its collectives, and F.batch_norm with and without cuDNN; medians between CUDA events.
With `ranks` it runs torch.nn.SyncBatchNorm over gloo in two processes on this one GPU instead.
"""
import json
import statistics
import sys
import tempfile

import torch
import torch.nn.functional as F

EPS = 1e-5
LEAST_MS = 20


def timed(call, rounds):
    """Milliseconds per call: the median over rounds of as many calls as take 20 ms."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def once(calls):
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end)

    calls = 1
    while once(calls) < LEAST_MS:
        calls *= 2
    return statistics.median(once(calls) / calls for _ in range(rounds))


def batch(case):
    dtype = getattr(torch, case["dtype"])
    layout = torch.contiguous_format
    if case["format"] == "channelsLast" and len(case["shape"]) > 2:
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(len(case["shape"]))
        if layout is None:
            return None
    x, dy = (torch.randn(case["shape"], device="cuda").to(dtype).contiguous(memory_format=layout) for _ in range(2))
    channels = case["shape"][1]
    weight, bias = torch.ones(channels, device="cuda"), torch.zeros(channels, device="cuda")
    return x + 1, dy, weight, bias


def kernels(x, dy, weight, bias, rounds):
    """What torch.nn.SyncBatchNorm launches, for one rank."""
    mean, invstd = torch.batch_norm_stats(x, EPS)
    count = torch.tensor([x.numel() // x.shape[1]], dtype=torch.int32, device="cuda")

    def forward():
        mean, invstd = torch.batch_norm_stats(x, EPS)
        return torch.batch_norm_elemt(x, weight, bias, mean, invstd, EPS)

    def backward():
        sum_dy, sum_dy_xmu, _, _ = torch.batch_norm_backward_reduce(dy, x, mean, invstd, weight, True, True, True)
        return torch.batch_norm_backward_elemt(dy, x, mean, invstd, weight, sum_dy, sum_dy_xmu, count)

    return {"forward": timed(forward, rounds), "backward": timed(backward, rounds)}


def functional(x, dy, weight, bias, rounds, cudnn):
    running = torch.zeros_like(weight), torch.ones_like(weight)
    x, weight, bias = (value.clone().requires_grad_() for value in (x, weight, bias))
    with torch.backends.cudnn.flags(enabled=cudnn):
        y = F.batch_norm(x, *running, weight, bias, training=True, eps=EPS)

        def forward():
            F.batch_norm(x, *running, weight, bias, training=True, eps=EPS)

        def backward():
            torch.autograd.grad(y, (x, weight, bias), dy, retain_graph=True)

        def inference():
            with torch.no_grad():
                F.batch_norm(x, *running, weight, bias, training=False, eps=EPS)

        return {name: timed(call, rounds) for name, call in
                (("inference", inference), ("forward", forward), ("backward", backward))}


def measure(case):
    made = batch(case)
    if made is None:
        return {"missing": "PyTorch has no such memory format"}
    rounds = case["rounds"]
    return {
        "SyncBatchNorm's kernels": kernels(*made, rounds),
        "F.batch_norm, cuDNN": functional(*made, rounds, True),
        "F.batch_norm": functional(*made, rounds, False),
    }


def rank_main(rank, store, case, results):
    import time
    import torch.distributed as dist
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
    samples, *rest = case["shape"]
    x = torch.randn([samples // 2, *rest], device="cuda", requires_grad=True)
    dy = torch.randn_like(x)
    layer = torch.nn.SyncBatchNorm(x.shape[1], eps=EPS).cuda()
    times = []
    for i in range(20):
        dist.barrier()
        torch.cuda.synchronize()
        start = time.perf_counter()
        layer(x).backward(dy)
        torch.cuda.synchronize()
        if i >= 5:
            times.append(1e3 * (time.perf_counter() - start))
    if rank == 0:
        results.put(statistics.median(times))
    dist.destroy_process_group()


def ranks(case):
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(rank_main, args=(folder + "/store", case, results), nprocs=2)
        return {"both": results.get()}


def main():
    if not torch.cuda.is_available():
        sys.exit(f"PyTorch {torch.__version__} has no CUDA")
    version = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    print(f"{version} on {torch.cuda.get_device_name()}", flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        try:
            answer = ranks(case) if case.get("ranks") else measure(case)
        except Exception as error:  # Whatever it is, the next case may do better.
            answer = {"missing": f"{type(error).__name__}: {error}".splitlines()[0]}
        torch.cuda.empty_cache()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
