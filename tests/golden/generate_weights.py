"""Writes weights.json: what Keras 3 and Flax make of a mask: outputs, gradients of sum(y * dy), running statistics.

Flax computes in float64 and keeps running statistics in float32; Keras computes a masked batch in float32 whatever it is told.

    pip install keras==3.15.1 flax==0.12.8 jax==0.10.2 numpy    # the CPU builds
    python tests/golden/generate_weights.py                     # from any directory; deterministic
"""

import json
import os
import pathlib

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_ENABLE_X64"] = "1"

import flax
import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import nnx

keras.config.set_floatx("float64")

SEED = 1502
VERSIONS = {"keras": "3.15.1", "flax": "0.12.8", "jax": "0.10.2"}
# Shape, channels last; what the mask is; momentum of the old statistics; epsilon.
CASES = [
    ((4, 3), "random", 0.9, 1e-3),
    ((3, 5, 2), "lengths", 0.75, 1e-5),
    ((2, 3, 2, 4), "random", 0.5, 1e-3),
    ((3, 4, 3), "all", 0.9, 1e-5),
]


def draw(random, shape, std=1.0, mean=0.0):
    """Numbers of 3 decimals, as float32 has them."""
    return np.round(random.standard_normal(shape) * std + mean, 3).astype(np.float32)


def masks(random, shape, kind):
    if kind == "lengths":
        lengths = np.array([shape[1], 1, 3])
        return np.arange(shape[1]) < lengths[:, None]
    if kind == "all":
        return np.ones(shape[:-1], bool)
    mask = random.random(shape[:-1]) < 0.6
    mask.flat[:2] = True
    return mask


def by_keras(case, x, dy, mask, weight, bias):
    _, _, momentum, epsilon = case
    layer = keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, dtype="float64")
    layer.build(x.shape)
    moving = [variable.value for variable in layer.non_trainable_variables]

    def loss(values, x):
        y, after = layer.stateless_call(values, moving, x, training=True, mask=mask)
        return (y * dy).sum(), (y, after)

    assert [variable.name for variable in layer.trainable_variables] == ["gamma", "beta"]
    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, (y, after)), ((dweight, dbias), dx) = gradient([weight, bias], x)
    return dict(y=y, dx=dx, dweight=dweight, dbias=dbias, runningMean=after[0], runningVar=after[1])


def by_flax(case, x, dy, mask, weight, bias):
    _, _, momentum, epsilon = case

    def loss(values, x):
        own = nnx.BatchNorm(
            x.shape[-1], momentum=momentum, epsilon=epsilon, use_running_average=False,
            dtype=jnp.float64, param_dtype=jnp.float64, use_fast_variance=False, rngs=nnx.Rngs(0),
        )
        own.scale.set_value(values[0])
        own.bias.set_value(values[1])
        y = own(x, mask=mask[..., None])
        return (y * dy).sum(), (y, own.mean.get_value(), own.var.get_value())

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, (y, mean, var)), ((dweight, dbias), dx) = gradient([weight, bias], x)
    return dict(y=y, dx=dx, dweight=dweight, dbias=dbias, runningMean=mean, runningVar=var)


def flat(array):
    return [float(value) for value in np.asarray(array, np.float64).ravel()]


def main():
    found = {"keras": keras.__version__, "flax": flax.__version__, "jax": jax.__version__}
    assert found == VERSIONS, found
    cases = []
    for i, case in enumerate(CASES):
        shape, kind, momentum, epsilon = case
        random = np.random.default_rng(SEED + i)
        x, dy = draw(random, shape, 2.0, 3.0), draw(random, shape)
        weight, bias = draw(random, shape[-1:], 0.5, 1.0), draw(random, shape[-1:])
        mask = masks(random, shape, kind)
        given = dict(x=x, dy=dy, weight=weight, bias=bias)
        wide = {name: jnp.asarray(value, jnp.float64) for name, value in given.items()}
        for name, run in (("keras", by_keras), ("flax", by_flax)):
            made = run(case, wide["x"], wide["dy"], jnp.asarray(mask), wide["weight"], wide["bias"])
            cases.append(dict(
                framework=name, shape=shape, momentum=momentum, epsilon=epsilon,
                mask=[int(value) for value in mask.ravel()],
                **{name: flat(value) for name, value in {**given, **made}.items()},
            ))
    path = pathlib.Path(__file__).with_name("weights.json")
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f'{{"versions": {json.dumps(VERSIONS)}, "seed": {SEED}, "cases": [\n{lines}\n]}}\n')


main()
