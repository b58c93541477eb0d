"""Writes second_order.json: what PyTorch 2.13 and JAX 0.10 get for second order, which tests/suites/golden_second_order.ts
compares the library with.

    pip install torch==2.13.0 numpy jax==0.10.2             # the CPU builds
    python tests/golden/generate_second_order.py            # from any directory; deterministic

Both differentiate in float64: PyTorch its own batch norm, twice, and once in forward mode; JAX a batch norm of several ranks,
whose statistics are psums over an axis. Neither has weights of examples: with them, and for the gradients of a loss that
depends on the statistics too, both differentiate the statistics written out.
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


def weighing(shape, kind):
    """Weights of examples or of places, some of them 0, as the test gives them, and the same as (N, 1, ...spatial)."""
    places = (shape[0], 1, *shape[2:])
    if kind is None:
        return {}, torch.ones(places).double()
    if kind == "lengths":
        lengths = torch.arange(shape[0]) * 2 % (shape[2] + 1)
        mask = torch.arange(shape[2]) < lengths[:, None]
        return {"lengths": lengths.tolist()}, mask.double()[:, None]
    wanted = (shape[0],) + (1,) * (len(shape) - 1) if kind == "examples" else places
    drawn = torch.rand(wanted)
    if kind == "whole ranks":
        # Nothing counts on the first rank, on which gradients are all the same.
        drawn[: shape[0] // 2] = 0
    weights = (drawn < 0.6).float() if kind == "mask" else short(3 * torch.relu(drawn - 0.3))
    assert 2 < (weights > 0).sum() < weights.numel()
    return {"weights": weights}, weights.double().expand(places)


def statistics(x, weights):
    """Mean and biased variance by weights, as (1, C, 1...)."""
    axes = (0, *range(2, x.dim()))
    average = lambda values: (weights * values).sum(axes, keepdim=True) / weights.sum()
    mean = average(x)
    return mean, average((x - mean) ** 2)


def pytorch(shape, training=True, relu=False, eps=1e-5, weights=None, **options):
    """PyTorch's gradients of gradients, and its forward mode, of torch.nn.functional.batch_norm, or of one by weights."""
    given = draw(shape, **options)
    counting, counted = weighing(shape, weights)
    moments = {name: short(torch.randn(shape[1])) for name in ("ofMean", "ofVariance")} if training else {}
    d = {name: value.double() for name, value in given.items()}
    leaves = [d[name].requires_grad_() for name in ("x", "weight", "bias")]
    if "residual" in d:
        leaves.append(d["residual"].requires_grad_())

    def forward(x, weight, bias, residual=None):
        if weights is None:
            running = (d["runningMean"].clone(), d["runningVar"].clone())
            z = torch.nn.functional.batch_norm(x, *running, weight, bias, training=training, eps=eps)
        else:
            mean, variance = statistics(x, counted)
            lay = (1, -1) + (1,) * (x.dim() - 2)
            z = (x - mean) * torch.rsqrt(variance + eps) * weight.reshape(lay) + bias.reshape(lay)
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
    if training:
        owed = [one.flatten().dot(of.double()) for one, of in zip(statistics(leaves[0], counted), moments.values())]
        (exact["ofMoments"],) = torch.autograd.grad((activated(*leaves) * dy).sum() + sum(owed), leaves[0])
    named = {"shape": list(shape), "ranks": 1, "training": training, "relu": relu, "eps": eps}
    return named | given | counting | moments | {"exact": {name: value.detach().float() for name, value in exact.items()}}


def batch_norm(x, weight, bias, weights, eps):
    """A batch norm over all ranks of the axis, as JAX's users write it, and its statistics."""
    axes = (0, *range(2, x.ndim))
    lay = [1, -1] + [1] * (x.ndim - 2)
    total = lambda values: jax.lax.psum((weights * values).sum(axes), "ranks").reshape(lay)
    count = jax.lax.psum(weights.sum(), "ranks")
    mean = total(x) / count
    variance = total((x - mean) ** 2) / count
    y = (x - mean) * jax.lax.rsqrt(variance + eps) * weight.reshape(lay) + bias.reshape(lay)
    return y, mean.ravel(), variance.ravel()


def over_ranks(shape, ranks, eps=1e-5, weights=None):
    """JAX's gradients of gradients over several ranks; gradWeight is of all, and each rank has directions of its own."""
    given = draw(shape)
    counting, counted = weighing(shape, weights)
    moments = {name: short(torch.randn(shape[1])) for name in ("ofMean", "ofVariance")}
    parts = lambda values: np.float64(values.numpy()).reshape(ranks, shape[0] // ranks, *shape[1:])
    x, dy, along = (parts(given[name]) for name in ("x", "dy", "input"))
    weight, bias, q, b = (np.float64(given[name].numpy()) for name in ("weight", "bias", "ofWeight", "ofBias"))
    factors = 1 + np.arange(ranks) / 2
    # Every rank its own copy, so that gradients of parameters stay each rank's own.
    copies = lambda values: np.broadcast_to(values, (ranks, shape[1]))
    v = np.float64(counted.numpy()).reshape(ranks, shape[0] // ranks, 1, *shape[2:])
    every = jax.vmap(lambda x, w, b, v: batch_norm(x, w, b, v, eps), axis_name="ranks")
    forward = lambda x, w, b: every(x, w, b, v)[0]
    _, jvp = jax.jvp(forward, (x, copies(weight), copies(bias)), (along, copies(q), copies(b)))
    _, back = jax.vjp(lambda x: every(x, copies(weight), copies(bias), v), x)
    owed = [factors[:, None] * np.float64(values.numpy()) for values in moments.values()]
    (of_moments,) = back((dy, *owed))

    def loss(x, dy, weight):
        _, back = jax.vjp(forward, x, weight, copies(bias))
        dx, dw, db = back(dy)
        return (dx * along).sum() + (factors[:, None] * (dw * q + db * b)).sum()

    second = jax.grad(loss, (0, 1, 2))(x, dy, copies(weight))
    whole = lambda values: np.float32(values).reshape(shape)
    exact = {"gradInput": whole(second[0]), "gradGradOutput": whole(second[1])}
    exact |= {"gradWeight": np.float32(second[2].sum(0)), "jvp": whole(jvp), "ofMoments": whole(of_moments)}
    named = {"shape": list(shape), "ranks": ranks, "training": True, "relu": False, "eps": eps}
    return named | given | counting | moments | {"factors": factors, "exact": exact}


CONFIGURATIONS = [
    ("PyTorch, (6, 3)", lambda: pytorch((6, 3))),
    ("PyTorch, (2, 3, 2, 3), residual and ReLU", lambda: pytorch((2, 3, 2, 3), relu=True, residual=True)),
    ("PyTorch, evaluation of (3, 2, 4)", lambda: pytorch((3, 2, 4), training=False)),
    ("PyTorch, arange (4, 5, 6), weight 1..5, eps 1e-4", lambda: pytorch((4, 5, 6), eps=1e-4, arange=True)),
    ("JAX, (8, 3) over 4 ranks", lambda: over_ranks((8, 3), 4)),
    ("JAX, (6, 2, 3) over 3 ranks", lambda: over_ranks((6, 2, 3), 3)),
    ("PyTorch by weights of examples, (6, 3)", lambda: pytorch((6, 3), weights="examples")),
    ("PyTorch by weights of places, (3, 2, 2, 3), residual and ReLU",
     lambda: pytorch((3, 2, 2, 3), relu=True, residual=True, weights="places")),
    ("PyTorch by lengths, (4, 3, 5)", lambda: pytorch((4, 3, 5), weights="lengths")),
    ("JAX by a mask, (6, 3, 2) over 3 ranks", lambda: over_ranks((6, 3, 2), 3, weights="mask")),
    ("JAX by weights of places, (6, 2, 3) over 2 ranks, of which none counts on one",
     lambda: over_ranks((6, 2, 3), 2, weights="whole ranks")),
]


def main():
    records = []
    for index, (name, run) in enumerate(CONFIGURATIONS):
        torch.manual_seed(SEED + index)
        records.append({"name": name, **run()})
    document = {
        "origin": "tests/golden/generate_second_order.py: autograd and torch.func.jvp of torch.nn.functional.batch_norm;"
        " jax.jvp, and jax.grad of jax.vjp, of a batch norm with psums; by weights both of statistics written out; in float64,"
        " rounded to float32",
        "versions": f"torch {torch.__version__}, jax {jax.__version__}",
        "seed": SEED,
        "notes": [
            "input, ofWeight, ofBias, ofResidual: directions of the arguments, for jvp, and of the gradients, for the"
            " others; over ranks those of gradWeight and gradBias come with each rank's factor, and so do ofMean and ofVariance",
            "ofMoments: gradient by x of sum(y * dy) + ofMean * mean + ofVariance * variance",
        ],
        "configurations": records,
    }
    path = pathlib.Path(__file__).with_name("second_order.json")
    path.write_text(dump(document) + "\n")
    print(f"{path.name}: {len(records)} configurations, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
