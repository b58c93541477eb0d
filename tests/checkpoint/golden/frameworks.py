"""Writes frameworks.json: layers of Keras 3 and Flax that are trained for some steps, and layers that PyTorch folds.

    pip install torch==2.13.0 keras==3.15.1 flax==0.12.8 jax==0.10.2 numpy    # the CPU builds
    python tests/checkpoint/golden/frameworks.py                              # from any directory; deterministic

FRAMEWORKS.md says what the fields mean. Keras has one backend per process, so this file calls itself for each.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np

SEED = 150203167  # The number of the paper on arXiv, 1502.03167.
STEPS = 3
RATE = 0.1  # Of gradient descent on scale and offset.
VERSIONS = {"keras": "3.15.1", "flax": "0.12.8", "jax": "0.10.2", "torch": "2.13.0+cpu"}

DEFAULTS = dict(axis=-1, momentum=0.99, scale=True, offset=True, mean=0.0, std=1.0)
# Kind, shape in memory order, what differs from the defaults. The kinds' own epsilon where there is none.
KERAS_JAX, KERAS_TORCH, LINEN, NNX = "keras.jax", "keras.torch", "flax.linen", "flax.nnx"
LAYERS = [
    (KERAS_JAX, (6, 3), {}),
    (KERAS_JAX, (2, 5, 2), dict(momentum=0.9, offset=False)),
    (KERAS_JAX, (2, 2, 2, 3), dict(momentum=0.5, mean=4.0, std=2.0)),
    (KERAS_JAX, (2, 3, 2, 2), dict(axis=1, momentum=0.997, scale=False)),
    (KERAS_TORCH, (5, 3), dict(scale=False)),
    (KERAS_TORCH, (2, 4, 3), dict(momentum=0.999, epsilon=1e-5)),
    (KERAS_TORCH, (2, 3, 4), dict(axis=1, momentum=0.9, mean=-3.0)),
    (KERAS_TORCH, (2, 2, 3, 2), dict(axis=3, momentum=0.75, offset=False, scale=False)),
    (LINEN, (6, 3), {}),
    (LINEN, (2, 5, 2), dict(momentum=0.9, offset=False)),
    (LINEN, (2, 2, 2, 3), dict(momentum=0.5, mean=4.0, std=2.0, epsilon=1e-3)),
    (LINEN, (2, 3, 4), dict(axis=1, momentum=0.997, scale=False, use_fast_variance=False)),
    (NNX, (5, 3), dict(scale=False)),
    (NNX, (2, 4, 3), dict(momentum=0.999, mean=-3.0)),
    (NNX, (2, 2, 3, 2), dict(momentum=0.9, use_fast_variance=False)),
    (NNX, (2, 3, 2, 2), dict(axis=-3, momentum=0.75, offset=False, scale=False)),
]


def draw(random, shape, std=1.0, mean=0.0):
    """Numbers of 3 decimals, as float32."""
    return np.round(np.round(random.standard_normal(shape), 3) * std + mean, 6).astype(np.float32)


def keras_layer(first, settings):
    """A Keras layer's functions: to read its vectors, to train it by one step, to evaluate."""
    import keras

    assert keras.__version__ == VERSIONS["keras"], keras.__version__
    kind, shape, options = settings
    layer = keras.layers.BatchNormalization(
        axis=options["axis"], momentum=options["momentum"], epsilon=options["epsilon"],
        center=options["offset"], scale=options["scale"],
    )
    layer.build(shape)
    assert [w.name for w in layer.weights] == list(first), [w.name for w in layer.weights]
    layer.set_weights(list(first.values()))
    vectors = lambda: {w.name: np.array(keras.ops.convert_to_numpy(w)) for w in layer.weights}

    def train_jax(x, dy):
        import jax

        def loss(trainable):
            statistics = [v.value for v in layer.non_trainable_variables]
            y, other = layer.stateless_call(trainable, statistics, x, training=True)
            return (y * dy).sum(), other

        gradients, other = jax.grad(loss, has_aux=True)([v.value for v in layer.trainable_variables])
        for variable, value in zip(layer.non_trainable_variables, other):
            variable.assign(value)
        for variable, gradient in zip(layer.trainable_variables, gradients):
            variable.assign(variable.value - RATE * gradient)

    def train_torch(x, dy):
        import torch

        y = layer(torch.from_numpy(x), training=True)
        parameters = [v.value for v in layer.trainable_variables]
        gradients = torch.autograd.grad((y * torch.from_numpy(dy)).sum(), parameters) if parameters else []
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients):
                parameter -= RATE * gradient

    train = {"jax": train_jax, "torch": train_torch}[keras.backend.backend()]
    return vectors, train, lambda x: keras.ops.convert_to_numpy(layer(x, training=False))


def flax_options(options):
    fast = options.get("use_fast_variance", True)
    settings = {key: options[key] for key in ("axis", "momentum", "epsilon")}
    return dict(**settings, use_scale=options["scale"], use_bias=options["offset"], use_fast_variance=fast)


def linen_layer(first, settings):
    import flax
    import jax

    assert (flax.__version__, jax.__version__) == (VERSIONS["flax"], VERSIONS["jax"])
    kind, shape, options = settings
    layer = flax.linen.BatchNorm(**flax_options(options))
    fresh = layer.init(jax.random.key(0), np.zeros(shape, np.float32), use_running_average=False)
    names = {collection: sorted(entries) for collection, entries in fresh.items()}
    current = {collection: {name: first[name] for name in entries} for collection, entries in names.items()}
    assert sum(map(len, names.values())) == len(first), names

    def vectors():
        held = {name: np.array(value) for entries in current.values() for name, value in entries.items()}
        return {name: held[name] for name in first}

    def train(x, dy):
        def loss(params):
            variables = {**current, "params": params}
            y, updates = layer.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
            return (y * dy).sum(), updates["batch_stats"]

        params = current.get("params", {})
        gradients, statistics = jax.grad(loss, has_aux=True)(params)
        if params:
            current["params"] = jax.tree.map(lambda value, gradient: value - RATE * gradient, params, gradients)
        current["batch_stats"] = statistics

    return vectors, train, lambda x: np.array(layer.apply(current, x, use_running_average=True))


def nnx_layer(first, settings):
    from flax import nnx

    kind, shape, options = settings
    layer = nnx.BatchNorm(shape[options["axis"]], **flax_options(options), rngs=nnx.Rngs(0))
    assert sorted(nnx.to_pure_dict(nnx.state(layer))) == sorted(first)
    for name, value in first.items():
        getattr(layer, name)[...] = value

    def train(x, dy):
        def loss(layer):
            return (layer(x, use_running_average=False) * dy).sum()

        gradients = nnx.grad(loss)(layer)
        for name, gradient in nnx.to_pure_dict(gradients).items():
            variable = getattr(layer, name)
            variable[...] = variable[...] - RATE * gradient

    vectors = lambda: {name: np.array(getattr(layer, name)[...]) for name in first}
    return vectors, train, lambda x: np.array(layer(x, use_running_average=True))


MAKERS = {KERAS_JAX: keras_layer, KERAS_TORCH: keras_layer, LINEN: linen_layer, NNX: nnx_layer}


def run_layer(index, kind, shape, overrides):
    """Trains one layer and gives its record."""
    epsilon = 1e-3 if kind.startswith("keras") else 1e-5
    options = {**DEFAULTS, "epsilon": epsilon, **overrides}
    random = np.random.default_rng([SEED, index])
    channels = shape[options["axis"]]
    names = ("gamma", "beta", "moving_mean", "moving_variance") if kind.startswith("keras") else (
        "scale", "bias", "mean", "var")
    uniform = lambda: np.round(random.random(channels) + 0.5, 3).astype(np.float32)
    values = (
        uniform() if options["scale"] else None,
        draw(random, channels) if options["offset"] else None,
        draw(random, channels, options["std"], options["mean"]),
        uniform() * np.float32(options["std"]) ** 2,
    )
    first = {name: value for name, value in zip(names, values) if value is not None}
    vectors, train, evaluate = MAKERS[kind](first, (kind, shape, options))
    before = vectors()
    assert all(np.array_equal(before[name], first[name]) for name in first)
    steps = []
    for _ in range(STEPS):
        x, dy = draw(random, shape, options["std"], options["mean"]), draw(random, shape)
        train(x, dy)
        steps.append({"x": x, "dy": dy, "after": vectors()})
    x = draw(random, shape, options["std"], options["mean"])
    evaluation = {"x": x, "y": evaluate(x)}
    after = vectors()
    assert all(np.array_equal(after[name], steps[-1]["after"][name]) for name in first)
    settings = {key: options[key] for key in ("axis", "momentum", "epsilon")}
    fast = kind == KERAS_TORCH or (kind in (LINEN, NNX) and options.get("use_fast_variance", True))
    return {
        "kind": kind, "shape": list(shape), **settings, "count": int(np.prod(shape)) // channels,
        "fastVariance": fast, "before": before, "steps": steps, "evaluation": evaluation,
    }


def run_layers(kinds):
    records = [(index, run_layer(index, *entry)) for index, entry in enumerate(LAYERS) if entry[0] in kinds]
    return {index: jsonable(record) for index, record in records}


# Kind, shape of the weight, what differs from FOLD_DEFAULTS.
FOLD_DEFAULTS = dict(groups=1, stride=1, padding=0, bias=True, scale=True, offset=True)
FOLDS = [
    ("linear", (3, 4), {}),
    ("linear", (2, 3), dict(bias=False)),
    ("conv1d", (4, 3, 2), dict(scale=False)),
    ("conv2d", (4, 2, 2, 1), dict(groups=2, stride=2)),
    ("conv2d", (3, 2, 3, 2), dict(bias=False, offset=False, padding=1)),
    ("conv2d", (2, 2, 1, 1), dict(bias=False, scale=False, offset=False)),
    ("conv_transpose1d", (3, 2, 2), dict(bias=False, offset=False)),
    ("conv_transpose2d", (2, 3, 2, 1), dict(stride=2)),
    ("conv_transpose2d", (4, 2, 3, 2), dict(groups=2, stride=2, padding=1)),
    ("conv_transpose2d", (6, 1, 1, 2), dict(groups=3, bias=False)),
]
EXTENT = 3  # Of each spatial axis of the input.


def run_folds():
    """What torch.nn.utils.fusion makes of layers, and what layer and batch norm give; "exact" is float64, rounded."""
    import torch
    from torch.nn import functional
    from torch.nn.utils import fusion

    assert torch.__version__ == VERSIONS["torch"], torch.__version__
    torch.set_num_threads(1)  # One order of summation, whatever the machine.
    records = []
    for index, (kind, shape, overrides) in enumerate(FOLDS):
        options = FOLD_DEFAULTS | overrides
        random = np.random.default_rng([SEED, 1000 + index])
        transposed, groups = "transpose" in kind, options["groups"]
        inputs, outputs = (shape[0], shape[1] * groups) if transposed else (shape[1] * groups, shape[0])
        layer = {"weight": draw(random, shape), "bias": draw(random, outputs) if options["bias"] else None}
        eps = 1e-5 if index % 2 == 0 else 1e-3
        norm = {
            "weight": draw(random, outputs) if options["scale"] else None,
            "bias": draw(random, outputs) if options["offset"] else None,
            "runningMean": draw(random, outputs, 2.0),
            "runningVar": np.round(random.random(outputs) * 4 + 0.01, 3).astype(np.float32),
        }
        x = draw(random, (1, inputs) + (EXTENT,) * (len(shape) - 2))
        geometry = {} if kind == "linear" else {key: options[key] for key in ("groups", "stride", "padding")}

        def tensors(dtype, *values):
            return [None if value is None else torch.from_numpy(value).to(dtype) for value in values]

        def fuse(dtype):
            weight, bias, mean, var = tensors(dtype, *layer.values(), norm["runningMean"], norm["runningVar"])
            gamma, beta = tensors(dtype, norm["weight"], norm["bias"])
            if kind == "linear":
                assert gamma is not None and beta is not None, "fuse_linear_bn_weights takes no None"
                fused = fusion.fuse_linear_bn_weights(weight, bias, mean, var, eps, gamma, beta)
            else:
                fused = fusion.fuse_conv_bn_weights(weight, bias, mean, var, eps, gamma, beta, transpose=transposed)
            assert all(value.dtype == dtype for value in fused)
            return {name: value.detach().numpy().astype(np.float32) for name, value in zip(("weight", "bias"), fused)}

        def apply(dtype):
            weight, bias, mean, var = tensors(dtype, *layer.values(), norm["runningMean"], norm["runningVar"])
            gamma, beta = tensors(dtype, norm["weight"], norm["bias"])
            z = getattr(functional, kind)(*tensors(dtype, x), weight, bias, **geometry)
            return functional.batch_norm(z, mean, var, gamma, beta, training=False, eps=eps)

        # fuse_conv_bn_weights knows no groups of transposed convolutions.
        fusible = not (transposed and groups > 1)
        y = apply(torch.float64)
        records.append({
            "kind": kind, "shape": list(shape), "transposed": transposed,
            **{key: options[key] for key in ("groups", "stride", "padding")},
            "layer": layer, "batchNorm": {"eps": eps, **norm},
            "torch": fuse(torch.float32) if fusible else None, "exact": fuse(torch.float64) if fusible else None,
            "x": x, "outputShape": list(y.shape), "y": y.numpy().astype(np.float32),
        })
    return jsonable(records)


def jsonable(value):
    """Arrays as lists of float32 in their shortest decimals, in memory order."""
    if isinstance(value, np.ndarray):
        assert value.dtype == np.float32, value.dtype
        assert np.isfinite(value).all()
        return [float(str(number + np.float32(0))) for number in value.reshape(-1)]
    if isinstance(value, dict):
        return {key: jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [jsonable(entry) for entry in value]
    return value


def dump(value, indent=""):
    """JSON with lists of numbers on one line."""
    inner = indent + " "
    if isinstance(value, float):
        return json.dumps(int(value) if value.is_integer() else value)
    if isinstance(value, dict):
        body = ",\n".join(f"{inner}{json.dumps(k)}: {dump(v, inner)}" for k, v in value.items())
        return f"{{\n{body}\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(inner + dump(v, inner) for v in value) + f"\n{indent}]"
    if isinstance(value, list):
        return "[" + ",".join(dump(v) for v in value) + "]"
    return json.dumps(value)


def in_process(backend, kinds):
    """The same in a process of its own, as Keras fixes its backend when it is imported."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *kinds]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def main():
    if sys.argv[1:]:
        print(json.dumps(run_layers(sys.argv[1:])))
        return
    layers = in_process("jax", [KERAS_JAX, LINEN, NNX]) | in_process("torch", [KERAS_TORCH])
    document = {
        "origin": "tests/checkpoint/golden/frameworks.py; FRAMEWORKS.md says what the fields mean",
        "versions": VERSIONS,
        "seed": SEED,
        "rate": RATE,
        "layers": [layers[str(index)] for index in range(len(LAYERS))],
        "folds": run_folds(),
    }
    path = pathlib.Path(__file__).with_name("frameworks.json")
    path.write_text(dump(document) + "\n")
    print(f"{path.name}: {len(LAYERS)} layers, {len(FOLDS)} folds, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
