"""Writes second_order.json: what PyTorch 2.13 and JAX 0.10 get for second order, which tests/suites/golden_second_order.ts
compares the library with.

    pip install torch==2.13.0 numpy jax==0.10.2             # the CPU builds
    python tests/golden/generate_second_order.py            # from any directory; deterministic

Both differentiate in float64: PyTorch its own batch norm, twice, and once in forward mode; JAX a batch norm of several ranks,
whose statistics are psums over an axis.
"""

import pathlib

import jax
import numpy as np
import torch

from generate import dump, short

assert torch.__version__.startswith("2.13.0"), torch.__version__
assert jax.__version__ == "0.10.2", jax.__version__
jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)

SEED = 26
# A ReLU gate this near to 0 could fall on either side by rounding alone.
GATE_MARGIN = 1e-2


def draw(shape, residual=False, arange=False):
    """All that goes in: x, dy, parameters, running statistics, and a direction of each argument and result."""
    channels = shape[1]
    tensors = ["x", "dy", "input"] + (["residual", "ofResidual"] if residual else [])
    drawn = {name: short(torch.randn(shape)) for name in tensors}
    for name in ["weight", "bias", "ofWeight", "ofBias", "runningMean"]:
        drawn[name] = short(torch.randn(channels))
    drawn["runningVar"] = short(torch.rand(channels) + 0.5)
    if arange:
        drawn["x"] = torch.arange(float(np.prod(shape))).reshape(shape)
        drawn["weight"] = torch.arange(1.0, channels + 1)
    return drawn


def pytorch(shape, training=True, relu=False, eps=1e-5, **options):
    """PyTorch's gradients of gradients, and its forward mode, of torch.nn.functional.batch_norm."""
    given = draw(shape, **options)
    d = {name: value.double() for name, value in given.items()}
    leaves = [d[name].requires_grad_() for name in ("x", "weight", "bias")]
    if "residual" in d:
        leaves.append(d["residual"].requires_grad_())

    def forward(x, weight, bias, residual=None):
        running = (d["runningMean"].clone(), d["runningVar"].clone())
        z = torch.nn.functional.batch_norm(x, *running, weight, bias, training=training, eps=eps)
        return z if residual is None else z + residual

    def activated(*arguments):
        return torch.relu(forward(*arguments)) if relu else forward(*arguments)

    if relu:
        assert forward(*leaves).abs().min() > GATE_MARGIN
    directions = [d[name] for name in ("input", "ofWeight", "ofBias", "ofResidual") if name in d]
    _, jvp = torch.func.jvp(activated, tuple(leaf.detach() for leaf in leaves), tuple(directions))
    dy = d["dy"].requires_grad_()
    gradients = torch.autograd.grad(activated(*leaves), leaves, dy, create_graph=True)
    loss = sum((gradient * along).sum() for gradient, along in zip(gradients, directions))
    asked = (leaves[0], dy, leaves[1])
    second = torch.autograd.grad(loss, asked, allow_unused=True)
    results = [torch.zeros_like(of) if one is None else one for one, of in zip(second, asked)]
    exact = dict(zip(("gradInput", "gradGradOutput", "gradWeight"), results), jvp=jvp)
    named = {"shape": list(shape), "ranks": 1, "training": training, "relu": relu, "eps": eps}
    return named | given | {"exact": {name: value.detach().float() for name, value in exact.items()}}


def batch_norm(x, weight, bias, eps):
    """A batch norm over all ranks of the axis, as JAX's users write it."""
    axes = (0, *range(2, x.ndim))
    lay = [1, -1] + [1] * (x.ndim - 2)
    total = lambda values: jax.lax.psum(values.sum(axes), "ranks").reshape(lay)
    count = jax.lax.psum(x.size // x.shape[1], "ranks")
    mean = total(x) / count
    variance = total((x - mean) ** 2) / count
    return (x - mean) * jax.lax.rsqrt(variance + eps) * weight.reshape(lay) + bias.reshape(lay)


def over_ranks(shape, ranks, eps=1e-5):
    """JAX's gradients of gradients over several ranks; gradWeight is of all, and each rank has directions of its own."""
    given = draw(shape)
    parts = lambda values: np.float64(values.numpy()).reshape(ranks, shape[0] // ranks, *shape[1:])
    x, dy, along = (parts(given[name]) for name in ("x", "dy", "input"))
    weight, bias, q, b = (np.float64(given[name].numpy()) for name in ("weight", "bias", "ofWeight", "ofBias"))
    factors = 1 + np.arange(ranks) / 2
    # Every rank its own copy, so that gradients of parameters stay each rank's own.
    copies = lambda values: np.broadcast_to(values, (ranks, shape[1]))
    forward = jax.vmap(lambda x, w, b: batch_norm(x, w, b, eps), axis_name="ranks")
    _, jvp = jax.jvp(forward, (x, copies(weight), copies(bias)), (along, copies(q), copies(b)))

    def loss(x, dy, weight):
        _, back = jax.vjp(forward, x, weight, copies(bias))
        dx, dw, db = back(dy)
        return (dx * along).sum() + (factors[:, None] * (dw * q + db * b)).sum()

    second = jax.grad(loss, (0, 1, 2))(x, dy, copies(weight))
    whole = lambda values: np.float32(values).reshape(shape)
    exact = {"gradInput": whole(second[0]), "gradGradOutput": whole(second[1])}
    exact |= {"gradWeight": np.float32(second[2].sum(0)), "jvp": whole(jvp)}
    named = {"shape": list(shape), "ranks": ranks, "training": True, "relu": False, "eps": eps}
    return named | given | {"factors": factors, "exact": exact}


CONFIGURATIONS = [
    ("PyTorch, (6, 3)", lambda: pytorch((6, 3))),
    ("PyTorch, (2, 3, 2, 3), residual and ReLU", lambda: pytorch((2, 3, 2, 3), relu=True, residual=True)),
    ("PyTorch, evaluation of (3, 2, 4)", lambda: pytorch((3, 2, 4), training=False)),
    ("PyTorch, arange (4, 5, 6), weight 1..5, eps 1e-4", lambda: pytorch((4, 5, 6), eps=1e-4, arange=True)),
    ("JAX, (8, 3) over 4 ranks", lambda: over_ranks((8, 3), 4)),
    ("JAX, (6, 2, 3) over 3 ranks", lambda: over_ranks((6, 2, 3), 3)),
]


def main():
    records = []
    for index, (name, run) in enumerate(CONFIGURATIONS):
        torch.manual_seed(SEED + index)
        records.append({"name": name, **run()})
    document = {
        "origin": "tests/golden/generate_second_order.py: autograd and torch.func.jvp of torch.nn.functional.batch_norm;"
        " jax.jvp, and jax.grad of jax.vjp, of a batch norm with psums; in float64, rounded to float32",
        "versions": f"torch {torch.__version__}, jax {jax.__version__}",
        "seed": SEED,
        "notes": [
            "input, ofWeight, ofBias, ofResidual: directions of the arguments, for jvp, and of the gradients, for the"
            " others; over ranks those of gradWeight and gradBias come with each rank's factor",
        ],
        "configurations": records,
    }
    path = pathlib.Path(__file__).with_name("second_order.json")
    path.write_text(dump(document) + "\n")
    print(f"{path.name}: {len(records)} configurations, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
