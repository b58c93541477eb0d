"""Writes rules.json: what tests of modulation, ghost batches and renormalization compare with, in float64 by torch's autograd.

    pip install torch==2.13.0 numpy    # the CPU build
    python tests/golden/generate_rules.py

torch has F.batch_norm alone: scale and offset per sample, groups of samples, r and d stand around it, or in its place, as
the papers have them.
"""

import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

assert torch.__version__.startswith("2.13.0"), torch.__version__
torch.set_num_threads(1)
SEED = 2013


def short(*shape):
    """Standard numbers rounded to 64ths, which float16 holds too."""
    return (torch.randn(shape, dtype=torch.float64) * 64).round() / 64


def numbers(tensor):
    return [float(np.float32(value)) for value in tensor.detach().reshape(-1).tolist()]


def conditional():
    """y = relu(scale[n, c] * normalized + offset[n, c] + residual)."""
    shape, eps = (5, 3, 2, 2), 1e-5
    while True:
        x, residual = (short(*shape).requires_grad_() for _ in range(2))
        scale, offset = (short(*shape[:2]).requires_grad_() for _ in range(2))
        dy = short(*shape)
        normalized = F.batch_norm(x, None, None, training=True, eps=eps)
        z = normalized * scale[:, :, None, None] + offset[:, :, None, None] + residual
        if z.abs().min() > 0.05:  # Rounding must not open or shut a gate.
            break
    y = torch.relu(z)
    leaves = {"dx": x, "dresidual": residual, "dscale": scale, "doffset": offset}
    gradients = torch.autograd.grad(y, list(leaves.values()), dy)
    return {
        "shape": list(shape),
        "eps": eps,
        **{name: numbers(value) for name, value in dict(x=x, dy=dy, residual=residual, scale=scale, offset=offset).items()},
        "results": {"y": numbers(y), **{name: numbers(value) for name, value in zip(leaves, gradients)}},
    }


def ghost():
    """Every group of samples by itself; running statistics follow the count-weighted means of the groups' ones."""
    shape, size, eps, momentum = (8, 3, 2), 3, 1e-5, 0.25
    x = short(*shape).requires_grad_()
    weight, bias = (short(3).requires_grad_() for _ in range(2))
    dy = short(*shape)
    groups = x.split(size)
    y = torch.cat([F.batch_norm(group, None, None, weight, bias, training=True, eps=eps) for group in groups])
    gradients = torch.autograd.grad(y, [x, weight, bias], dy)
    counts = [group.shape[0] * group.shape[2] for group in groups]
    mean, variance, biased = torch.zeros(3), torch.ones(3), torch.ones(3)
    share = [count / sum(counts) for count in counts]
    observed = [
        sum(part * value for part, value in zip(share, values))
        for values in (
            [group.mean((0, 2)) for group in groups],
            [group.var((0, 2), unbiased=True) for group in groups],
            [group.var((0, 2), unbiased=False) for group in groups],
        )
    ]
    after = [(1 - momentum) * old + momentum * new for old, new in zip((mean, variance, biased), observed)]
    return {
        **{"shape": list(shape), "size": size, "eps": eps, "momentum": momentum},
        **{name: numbers(value) for name, value in dict(x=x, dy=dy, weight=weight, bias=bias).items()},
        "results": {
            "y": numbers(y),
            **{name: numbers(value) for name, value in zip(("dx", "dweight", "dbias"), gradients)},
            **{name: numbers(value) for name, value in zip(("runningMean", "unbiased", "biased"), after)},
        },
    }


def renorm():
    """Ioffe 2017, algorithm 1, with sigma = sqrt(running variance + eps), two steps: r and d are constants to autograd."""
    shape, eps, momentum, rmax, dmax = (6, 3, 2), 1e-3, 0.25, 1.25, 0.5
    weight, bias = (short(3).requires_grad_() for _ in range(2))
    mean, variance = torch.tensor([0.0, 1.0, -0.25], dtype=torch.float64), torch.tensor([1.0, 0.25, 2.0], dtype=torch.float64)
    before = {"runningMean": numbers(mean), "runningVar": numbers(variance)}
    steps = []
    for _ in range(2):
        x, dy = short(*shape).requires_grad_(), short(*shape)
        own_mean, own_variance = x.mean((0, 2)), x.var((0, 2), unbiased=False)
        own, sigma = (own_variance + eps).sqrt(), (variance + eps).sqrt()
        r = (own / sigma).clamp(1 / rmax, rmax).detach()
        d = ((own_mean - mean) / sigma).clamp(-dmax, dmax).detach()
        column = lambda vector: vector[None, :, None]
        normalized = (x - column(own_mean)) / column(own) * column(r) + column(d)
        y = normalized * column(weight) + column(bias)
        gradients = torch.autograd.grad(y, [x, weight, bias], dy)
        mean = (1 - momentum) * mean + momentum * own_mean.detach()
        variance = (1 - momentum) * variance + momentum * x.var((0, 2), unbiased=True).detach()
        results = dict(y=y, **dict(zip(("dx", "dweight", "dbias"), gradients)), runningMean=mean, runningVar=variance, r=r, d=d)
        steps.append({"x": numbers(x), "dy": numbers(dy), "results": {key: numbers(value) for key, value in results.items()}})
    return {
        **{"shape": list(shape), "eps": eps, "momentum": momentum, "rmax": rmax, "dmax": dmax},
        **{"weight": numbers(weight), "bias": numbers(bias), **before, "steps": steps},
    }


def activations():
    """F.leaky_relu and F.relu6 (F.hardtanh for another bound) of F.batch_norm and a residual, and their gradients."""
    shape, eps = (5, 4, 3), 1e-5
    cases = [
        ({"negativeSlope": 0.125}, lambda z: F.leaky_relu(z, 0.125)),
        ({"maxValue": 6}, F.relu6),
        ({"maxValue": 1}, lambda z: F.hardtanh(z, 0.0, 1.0)),
    ]
    while True:
        x, residual = (2 * short(*shape)).requires_grad_(), (4 * short(*shape)).requires_grad_()
        weight, bias = short(4).requires_grad_(), (2 * short(4)).requires_grad_()
        dy = short(*shape)
        z = F.batch_norm(x, None, None, weight, bias, training=True, eps=eps) + residual
        # Rounding must not open or shut a gate.
        far = all((z - bound).abs().min() > 0.03 for bound in (0, 1, 6))
        if far and (z > 6).any() and ((z > 1) & (z < 6)).any():
            break
    leaves = {"dx": x, "dresidual": residual, "dweight": weight, "dbias": bias}

    def results(of):
        gradients = torch.autograd.grad(of(z), list(leaves.values()), dy, retain_graph=True)
        return {"y": numbers(of(z)), **{name: numbers(value) for name, value in zip(leaves, gradients)}}

    return {
        **{"shape": list(shape), "eps": eps},
        **{name: numbers(value) for name, value in dict(x=x, dy=dy, residual=residual, weight=weight, bias=bias).items()},
        "cases": [{"activation": activation, "results": results(of)} for activation, of in cases],
    }


def main():
    torch.manual_seed(SEED)
    document = {
        "origin": "tests/golden/generate_rules.py: F.batch_norm and autograd in float64 on the CPU, rounded to float32",
        "torch": torch.__version__,
        "seed": SEED,
        **{"conditional": conditional(), "ghost": ghost(), "renorm": renorm(), "activations": activations()},
    }
    path = pathlib.Path(__file__).with_name("rules.json")
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    path.write_text("{\n " + ",\n ".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
