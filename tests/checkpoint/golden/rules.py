"""Writes rules.json: batch norms of Keras 3 and Flax whose momentum follows a rule, in training and evaluation.

    pip install keras==3.15.1 flax==0.12.8 jax==0.10.2 numpy    # the CPU builds
    python tests/checkpoint/golden/rules.py                     # from any directory; deterministic

Neither framework has rules: their momentum, the weight of the OLD value, is set before each step.
"""

import json
import math
import os
import pathlib

os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}

import flax
import jax
import keras
import numpy as np
from flax import nnx

from frameworks import VERSIONS, draw, dump, jsonable

SEED = 150203167
STEPS = 4
SHAPE = (5, 2, 3)  # Channels last, of another number of samples in each step.
EPSILON = 1e-3
MASK = np.array([[1, 0], [1, 1], [0, 0], [1, 1], [0, 1]], bool)  # Samples and places of a batch of that shape.
RULES = [
    (0.3, lambda t: 0.3),
    (None, lambda t: 1 / t),
    ({"rule": "constant", "value": 0.125}, lambda t: 0.125),
    ({"rule": "step", "value": 0.5, "factor": 0.5, "every": 2}, lambda t: 0.5 * 0.5 ** ((t - 1) // 2)),
    (
        {"rule": "cosine", "from": 1, "to": 0.125, "steps": 2},
        lambda t: 0.125 + 0.875 * (1 + math.cos(math.pi * min(t - 1, 2) / 2)) / 2,
    ),
    ({"rule": "zeroDebiased", "value": 0.25}, lambda t: 0.25 / (1 - 0.75**t)),
]


def keras_layer():
    layer = keras.layers.BatchNormalization(epsilon=EPSILON, center=False, scale=False)
    layer.build(SHAPE)

    def train(x, momentum):
        layer.momentum = momentum
        return layer(x, training=True)

    vectors = lambda: (layer.moving_mean.value, layer.moving_variance.value)
    return train, vectors, lambda x: layer(x, training=False)


def linen_layer():
    make = lambda **options: flax.linen.BatchNorm(
        epsilon=EPSILON, use_bias=False, use_scale=False, use_fast_variance=False, **options)
    variables = make().init(jax.random.key(0), np.zeros(SHAPE, np.float32), use_running_average=False)

    def train(x, momentum):
        nonlocal variables
        y, variables = make(momentum=momentum).apply(
            variables, x, use_running_average=False, mutable=["batch_stats"])
        return y

    vectors = lambda: (variables["batch_stats"]["mean"], variables["batch_stats"]["var"])
    return train, vectors, lambda x: make().apply(variables, x, use_running_average=True)


def nnx_layer():
    layer = nnx.BatchNorm(
        SHAPE[-1], epsilon=EPSILON, use_bias=False, use_scale=False, use_fast_variance=False, rngs=nnx.Rngs(0))

    def train(x, momentum):
        layer.momentum = momentum
        return layer(x, use_running_average=False)

    vectors = lambda: (layer.mean[...], layer.var[...])
    return train, vectors, lambda x: layer(x, use_running_average=True)


def run(kind, make, momentum, share):
    """One layer under one rule; all of them see the same batches."""
    random = np.random.default_rng([SEED, 2000])
    train, vectors, evaluate = make()
    steps = []
    for t in range(1, STEPS + 1):
        x = draw(random, (SHAPE[0] + t, *SHAPE[1:]), 2.0, 1.0)
        train(x, 1 - share(t))
        mean, variance = map(np.array, vectors())
        steps.append({"mean": mean, "variance": variance})
    return {"kind": kind, "momentum": momentum, "steps": steps, "y": np.array(evaluate(draw(random, SHAPE)))}


def renorm(mask=None):
    """One step of a Keras layer that renormalizes, from statistics that are far enough from the batch's to be clipped."""
    bounds = {"rmax": 1.25, "rmin": 0.8, "dmax": 0.5}
    random = np.random.default_rng([SEED, 3000])
    channels = SHAPE[-1]
    layer = keras.layers.BatchNormalization(epsilon=EPSILON, renorm=True, renorm_clipping=bounds)
    layer.build(SHAPE)
    x, dy = draw(random, SHAPE, 2.0, 1.0), draw(random, SHAPE)
    gamma, beta, mean = (draw(random, channels) for _ in range(3))
    variance = np.array([4.0, 0.25, 16.0], np.float32)
    values = {"gamma": gamma, "beta": beta, "renorm_mean": mean, "renorm_stddev": np.sqrt(variance + np.float32(EPSILON))}
    for weight in layer.weights:
        if weight.name in values:
            weight.assign(values.pop(weight.name))
    assert not values, values

    def loss(trainable, x):
        moving = [v.value for v in layer.non_trainable_variables]
        y, _ = layer.stateless_call(trainable, moving, x, training=True, mask=mask)
        return (y * dy).sum(), y

    trainable = [v.value for v in layer.trainable_variables]
    (dgamma, dbeta), dx = jax.grad(loss, argnums=(0, 1), has_aux=True)(trainable, x)[0]
    arrays = dict(x=x, dy=dy, gamma=gamma, beta=beta, mean=mean, variance=variance, y=loss(trainable, x)[1], dx=dx,
                  dgamma=dgamma, dbeta=dbeta)
    return {**bounds, **{name: np.array(value) for name, value in arrays.items()}}


def main():
    assert (keras.__version__, flax.__version__, jax.__version__) == tuple(VERSIONS[k] for k in ("keras", "flax", "jax"))
    kinds = {"keras": keras_layer, "flax.linen": linen_layer, "flax.nnx": nnx_layer}
    random = np.random.default_rng([SEED, 2000])
    batches = [draw(random, (SHAPE[0] + t, *SHAPE[1:]), 2.0, 1.0) for t in range(1, STEPS + 1)]
    document = {
        "origin": "tests/checkpoint/golden/rules.py; FRAMEWORKS.md says what the fields mean",
        "versions": {name: VERSIONS[name] for name in ("keras", "flax", "jax")},
        "seed": SEED,
        "epsilon": EPSILON,
        "shape": list(SHAPE),
        "x": [jsonable(x) for x in batches],
        "evaluated": jsonable(draw(random, SHAPE)),
        "renorm": jsonable(renorm()),
        "mask": MASK.astype(int).reshape(-1).tolist(),
        "maskedRenorm": jsonable(renorm(MASK)),
        "layers": jsonable([run(kind, make, *rule) for kind, make in kinds.items() for rule in RULES]),
    }
    path = pathlib.Path(__file__).with_name("rules.json")
    path.write_text(dump(document) + "\n")
    print(f"{path.name}: {len(document['layers'])} layers, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
