"""Writes batch_norm.json: the numbers of PyTorch 2.13 that tests/suites/golden.ts compares the library with.

    pip install torch==2.13.0 numpy    # the CPU build
    python tests/golden/generate.py    # from any directory; deterministic, prints what PyTorch itself misses

Every configuration runs twice from the same numbers: in its own dtype ("torch") and in float64 ("exact").
"""

import json
import pathlib

import numpy as np
import torch

assert torch.__version__.startswith("2.13.0"), torch.__version__
torch.set_num_threads(1)  # One order of summation, whatever the machine.

SEED = 2013
MODULES = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}
# torch.testing.assert_close: (rtol, atol). Vectors of length C are float32 whatever the tensors are.
TOLERANCE = {"float32": (1.3e-6, 1e-5), "float16": (1e-3, 1e-5)}
TENSORS = ("y", "dx", "dresidual")
# PyTorch's own error may take half of its tolerance; the other half is for the device that is compared with it.
SHARE = 0.5
# A ReLU gate this near to 0 could fall on either side by rounding alone; such batches are drawn again.
GATE_MARGIN = 2e-3

FIRST, LAST = "channelsFirst", "channelsLast"
DEFAULTS = dict(
    format=FIRST,
    gradOutputFormat=None,  # That of the input.
    dtype="float32",
    eps=1e-5,
    momentum=0.1,
    scale=True,
    offset=True,
    tracked=True,
    activation=None,
    residualFormat=None,  # None: no residual.
    steps=1,
    evaluated=True,
    mean=0.0,
    std=1.0,
    special=None,
)
HALF = dict(dtype="float16")
RELU = dict(activation="relu")

CONFIGURATIONS = [
    # Shapes and formats.
    ("shape (6, 3)", (6, 3), {}),
    ("shape (6, 3), channels last", (6, 3), dict(format=LAST)),
    ("shape (3, 3, 4)", (3, 3, 4), {}),
    ("shape (3, 3, 4), channels last", (3, 3, 4), dict(format=LAST)),
    ("shape (2, 3, 2, 3)", (2, 3, 2, 3), {}),
    ("shape (2, 3, 2, 3), channels last", (2, 3, 2, 3), dict(format=LAST)),
    ("shape (2, 3, 1, 2, 3)", (2, 3, 1, 2, 3), {}),
    ("shape (2, 3, 1, 2, 3), channels last", (2, 3, 1, 2, 3), dict(format=LAST)),
    ("one channel, shape (4, 1, 9, 9)", (4, 1, 9, 9), dict(evaluated=False)),
    ("one channel, shape (4, 1, 9, 9), channels last", (4, 1, 9, 9), dict(format=LAST, evaluated=False)),
    ("one position, shape (4, 9, 1, 1)", (4, 9, 1, 1), {}),
    ("one position, shape (4, 9, 1, 1), channels last", (4, 9, 1, 1), dict(format=LAST, evaluated=False)),
    ("shape (3, 1)", (3, 1), {}),
    ("two values in all, shape (2, 1)", (2, 1), {}),
    ("shape (5, 3, 1), channels last", (5, 3, 1), dict(format=LAST)),
    ("one sample, shape (1, 3, 2, 5)", (1, 3, 2, 5), {}),
    ("one sample, shape (1, 3, 1, 5, 1), channels last", (1, 3, 1, 5, 1), dict(format=LAST)),
    ("odd sizes, shape (5, 7, 2)", (5, 7, 2), dict(evaluated=False)),
    ("gradOutput channels last for a channels-first input", (2, 3, 5, 1), dict(gradOutputFormat=LAST)),
    ("gradOutput channels first for a channels-last input", (2, 3, 5, 1), dict(format=LAST, gradOutputFormat=FIRST)),
    ("5-D gradOutput in the other format", (2, 3, 1, 2, 3), dict(format=LAST, gradOutputFormat=FIRST)),
    ("3-D gradOutput in the other format", (3, 2, 4), dict(gradOutputFormat=LAST)),
    ("PyTorch's arange (4, 5, 6), weight 1..5, eps 1e-4", (4, 5, 6), dict(eps=1e-4, special="arange")),
    # Weight and bias.
    ("neither weight nor bias", (5, 3), dict(scale=False, offset=False, steps=2)),
    ("neither weight nor bias, channels last", (3, 2, 2, 3), dict(format=LAST, scale=False, offset=False)),
    ("weight only", (3, 3, 3), dict(offset=False)),
    ("weight only, channels last", (2, 3, 2, 2), dict(format=LAST, offset=False)),
    ("bias only", (3, 3, 3), dict(scale=False)),
    ("bias only, channels last", (2, 3, 2, 2), dict(format=LAST, scale=False)),
    # Running statistics.
    ("momentum 0.1, 3 steps", (4, 3), dict(steps=3)),
    ("momentum 0.99, 3 steps", (3, 2, 4), dict(momentum=0.99, steps=3)),
    ("momentum 1, 2 steps", (3, 2, 4), dict(momentum=1.0, steps=2)),
    ("momentum 0, 2 steps", (3, 2, 4), dict(momentum=0.0, steps=2)),
    ("cumulative average, 3 steps", (4, 3), dict(momentum=None, steps=3)),
    ("cumulative average, 3 steps, channels last", (2, 3, 2, 2), dict(format=LAST, momentum=None, steps=3)),
    ("no running statistics", (5, 3), dict(tracked=False)),
    ("no running statistics, channels last", (3, 2, 2, 2), dict(format=LAST, tracked=False)),
    ("no running statistics, neither weight nor bias", (3, 2, 5), dict(tracked=False, scale=False, offset=False)),
    # eps and conditioning.
    ("eps 1e-3, 2 steps", (4, 3, 3), dict(eps=1e-3, steps=2)),
    ("eps 0", (5, 3), dict(eps=0.0)),
    ("eps 0 and a constant channel", (5, 3), dict(eps=0.0, special="constant")),
    ("eps 1e-5 and a constant channel", (5, 3), dict(special="constant")),
    ("batch mean exactly 0", (6, 3), dict(special="antithetic")),
    ("mean 1e3, standard deviation 1, 2 steps", (6, 3), dict(mean=1e3, steps=2)),
    ("mean 1e3, channels last, cumulative average", (2, 3, 5, 1), dict(mean=1e3, format=LAST, momentum=None)),
    ("mean -1e3, no running statistics", (3, 2, 5), dict(mean=-1e3, tracked=False)),
    ("scale 1e4", (4, 3, 2), dict(std=1e4, steps=2)),
    ("scale 1e-3", (4, 3, 2), dict(std=1e-3, steps=2)),
    ("scale 1e-3, eps 1e-3, channels last", (3, 2, 2, 3), dict(std=1e-3, eps=1e-3, format=LAST)),
    # Residual and activation.
    ("ReLU", (3, 3, 3), dict(**RELU, steps=2)),
    ("ReLU, channels last", (2, 3, 2, 2), dict(**RELU, format=LAST)),
    ("ReLU, neither weight nor bias", (6, 3), dict(**RELU, scale=False, offset=False)),
    ("ReLU, gradOutput in the other format", (3, 2, 2, 2), dict(**RELU, gradOutputFormat=LAST)),
    ("residual without activation", (3, 3, 4), dict(residualFormat=FIRST)),
    ("residual and ReLU", (3, 2, 2, 2), dict(**RELU, residualFormat=FIRST, steps=2)),
    ("residual and ReLU, channels last", (3, 2, 2, 2), dict(**RELU, format=LAST, residualFormat=LAST)),
    ("residual channels first, input channels last, ReLU", (3, 2, 2, 2), dict(**RELU, format=LAST, residualFormat=FIRST)),
    ("5-D residual channels last, input channels first, ReLU", (2, 2, 2, 3, 1), dict(**RELU, residualFormat=LAST)),
    ("residual and ReLU, no running statistics", (6, 3), dict(**RELU, residualFormat=FIRST, tracked=False)),
    ("mean 1e3, residual and ReLU", (4, 3, 3), dict(**RELU, mean=1e3, residualFormat=FIRST)),
    # float16.
    ("float16, shape (6, 3), 2 steps", (6, 3), dict(**HALF, steps=2)),
    ("float16, shape (3, 3, 4), channels last", (3, 3, 4), dict(**HALF, format=LAST)),
    ("float16, shape (2, 3, 2, 2)", (2, 3, 2, 2), HALF),
    ("float16, shape (2, 3, 2, 2), channels last", (2, 3, 2, 2), dict(**HALF, format=LAST)),
    ("float16, shape (2, 3, 1, 2, 3), channels last", (2, 3, 1, 2, 3), dict(**HALF, format=LAST)),
    ("float16, neither weight nor bias", (5, 3), dict(**HALF, scale=False, offset=False)),
    ("float16, weight only", (4, 3, 2), dict(**HALF, offset=False)),
    ("float16, bias only, gradOutput in the other format", (3, 2, 2, 2), dict(**HALF, scale=False, gradOutputFormat=LAST)),
    ("float16, cumulative average, 3 steps", (4, 3), dict(**HALF, momentum=None, steps=3)),
    ("float16, no running statistics", (5, 3), dict(**HALF, tracked=False)),
    ("float16, ReLU", (4, 3, 3), dict(**HALF, **RELU)),
    ("float16, residual and ReLU", (3, 2, 2, 2), dict(**HALF, **RELU, residualFormat=FIRST)),
    ("float16, residual and ReLU, channels last", (3, 2, 2, 2), dict(**HALF, **RELU, format=LAST, residualFormat=LAST)),
    ("float16, mean 1e3", (6, 3), dict(**HALF, mean=1e3)),
    ("float16, scale 1e4", (6, 3), dict(**HALF, std=1e4)),
    ("float16, scale 1e-2, eps 1e-3", (6, 3), dict(**HALF, std=1e-2, eps=1e-3)),
]


def short(values, dtype="float32", std=1.0, mean=0.0):
    """Rounds standard numbers to 4 decimals, then to the dtype: inputs that print short and are exact."""
    decimal = np.round(np.round(values.double().numpy(), 4) * std + mean, 8)
    return torch.from_numpy(decimal.astype(dtype))


def lay_out(tensor, format):
    """The same logical tensor, in the memory order of the format."""
    if format == FIRST:
        return tensor.contiguous()
    order = [0, *range(2, tensor.dim()), 1]
    back = [0, tensor.dim() - 1, *range(1, tensor.dim() - 1)]
    return tensor.permute(order).contiguous().permute(back)


def draw(shape, options):
    """One input batch."""
    if options["special"] == "arange":
        return torch.arange(float(np.prod(shape))).reshape(shape)
    noise = torch.randn(shape)
    if options["special"] == "antithetic":
        noise[shape[0] // 2 :] = -noise[: shape[0] // 2]
    if options["special"] == "constant":
        noise[:, 1] = 2.7
    return short(noise, options["dtype"], options["std"], options["mean"])


def make_module(shape, options, weight, bias):
    """PyTorch's own module with the given parameters."""
    affine = weight is not None or bias is not None
    module = MODULES[len(shape)](
        shape[1],
        eps=options["eps"],
        momentum=options["momentum"],
        affine=affine,
        track_running_stats=options["tracked"],
    )
    if affine:
        module.weight = None if weight is None else torch.nn.Parameter(weight.clone())
        module.bias = None if bias is None else torch.nn.Parameter(bias.clone())
    return module


def normalize(module, x):
    """module(x); PyTorch's checked entry refuses eps 0 in training, its kernel underneath does not."""
    uses_batch = module.training or module.running_mean is None
    if module.eps != 0 or not uses_batch:
        return module(x)
    assert module.momentum is not None
    if module.training and module.track_running_stats:
        module.num_batches_tracked += 1
    return torch.native_batch_norm(
        x, module.weight, module.bias, module.running_mean, module.running_var, True, module.momentum, 0.0
    )[0]


def run(module, options, batch, dtype):
    """One forward and backward in the given dtype: tensors of the results, and the value before the activation."""
    x = lay_out(batch["x"].to(dtype, copy=True), options["format"]).requires_grad_()
    dy = lay_out(batch["dy"].to(dtype), options["gradOutputFormat"] or options["format"])
    leaves = {"dx": x, "dweight": module.weight, "dbias": module.bias}
    z = normalize(module, x)
    if options["residualFormat"]:
        residual = lay_out(batch["residual"].to(dtype, copy=True), options["residualFormat"]).requires_grad_()
        leaves["dresidual"] = residual
        z = z + residual
    y = torch.relu(z) if options["activation"] else z
    leaves = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    gradients = torch.autograd.grad(y, list(leaves.values()), dy)
    assert y.dtype == dtype and gradients[0].dtype == dtype
    results = {"y": y.detach(), **dict(zip(leaves, gradients))}
    return results, z.detach()


def stored(results, dtype):
    """Rounds once to the storage: tensors to the dtype, vectors to float32. (Tensor.half() of float64 rounds twice.)"""
    return {
        name: value if name == "numBatchesTracked" else value.numpy().astype(
            dtype if name in TENSORS else "float32"
        ).astype(np.float32)
        for name, value in results.items()
    }


def running(module):
    """The running statistics after a step."""
    if module.running_mean is None:
        return {}
    return {
        "runningMean": module.running_mean.clone(),
        "runningVar": module.running_var.clone(),
        "numBatchesTracked": int(module.num_batches_tracked),
    }


def draw_batch(shape, options):
    batch = {"x": draw(shape, options), "dy": short(torch.randn(shape), options["dtype"])}
    if options["residualFormat"]:
        batch["residual"] = short(torch.randn(shape), options["dtype"])
    return batch


def compare(name, batch, own, exact, options):
    """Both modules on one batch, or None where a gate is too near to 0."""
    if options["activation"]:
        before = {key: value.clone() for key, value in exact.state_dict().items()}
        _, z = run(exact, options, batch, torch.float64)
        exact.load_state_dict(before)
        if z.abs().min() < GATE_MARGIN:
            return None
    record = dict(batch)
    misses = {}
    for kind, module, dtype in (("exact", exact, torch.float64), ("torch", own, getattr(torch, options["dtype"]))):
        results, _ = run(module, options, batch, dtype)
        if module.training:
            results |= running(module)
        record[kind] = stored(results, options["dtype"])
    if options["activation"]:
        assert np.array_equal(record["torch"]["y"] > 0, record["exact"]["y"] > 0), "a gate differs"
    for key, wanted in record["exact"].items():
        rtol, atol = TOLERANCE[options["dtype"] if key in TENSORS else "float32"]
        off = np.abs(np.float64(record["torch"][key]) - np.float64(wanted))
        excess = float(np.max(off / (atol + rtol * np.abs(np.float64(wanted)))))
        if excess > SHARE:
            misses[f"{name}.{key}"] = excess
    return record, misses


def step(name, shape, options, own, exact):
    while True:
        result = compare(name, draw_batch(shape, options), own, exact, options)
        if result is not None:
            return result


def evaluate(shape, options, own, exact):
    """Evaluation begins from the same statistics in both."""
    if options["tracked"]:
        own.running_mean.copy_(exact.running_mean)
        own.running_var.copy_(exact.running_var)
    own.eval()
    exact.eval()
    return step("evaluation", shape, options, own, exact)


def configuration(index, name, shape, overrides):
    """Runs one configuration and gives its record."""
    assert set(overrides) <= set(DEFAULTS), name
    options = {**DEFAULTS, **overrides}
    torch.manual_seed(SEED + index)
    C = shape[1]
    sign = torch.where(torch.arange(C) % 3 == 2, -1.0, 1.0)  # Negative weights too.
    weight = short((torch.rand(C) + 0.5) * sign) if options["scale"] else None
    bias = short(torch.randn(C)) if options["offset"] else None
    if options["special"] == "arange":
        weight = torch.arange(1.0, C + 1)
    own = make_module(shape, options, weight, bias)
    exact = make_module(shape, options, weight, bias).double()
    steps, misses = [], {}
    for number in range(options["steps"]):
        record, missed = step(f"steps[{number}]", shape, options, own, exact)
        steps.append(record)
        misses |= missed
        if options["tracked"]:  # The state is float32 between steps, by contract.
            exact.running_mean.copy_(exact.running_mean.float())
            exact.running_var.copy_(exact.running_var.float())
    evaluation, missed = evaluate(shape, options, own, exact) if options["evaluated"] else (None, {})
    misses |= missed
    for key, excess in misses.items():
        print(f"{name}: PyTorch's own {key} is off by {excess:.2f} of its tolerance")
    return {
        "name": name,
        "shape": list(shape),
        **{key: options[key] for key in ("format", "gradOutputFormat", "dtype", "eps", "momentum")},
        "weight": weight,
        "bias": bias,
        **{key: options[key] for key in ("tracked", "activation", "residualFormat")},
        "torchWithinTolerance": not misses,
        **({"torchMisses": sorted(misses)} if misses else {}),
        "steps": steps,
        "evaluation": evaluation,
    }


def number(value):
    """The shortest decimal that is this float32."""
    assert np.isfinite(value)
    text = str(np.float32(value) + np.float32(0))  # No -0.
    return text.removesuffix(".0")


def dump(value, indent=""):
    """JSON with vectors of numbers on one line."""
    if isinstance(value, torch.Tensor):
        value = value.float().numpy()
    if isinstance(value, np.ndarray):
        return "[" + ",".join(number(v) for v in value.reshape(-1)) + "]"
    inner = indent + " "
    if isinstance(value, dict):
        body = f",\n{inner}".join(f"{json.dumps(k)}: {dump(v, inner)}" for k, v in value.items())
        return f"{{\n{inner}{body}\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"[\n{inner}" + f",\n{inner}".join(dump(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value)


def main():
    names = [name for name, _, _ in CONFIGURATIONS]
    assert len(set(names)) == len(names)
    document = {
        "origin": "tests/golden/generate.py: torch.nn.BatchNorm1d/2d/3d and autograd on the CPU; eps 0 in training by"
        " torch.native_batch_norm, as the module refuses it; float16 is a float16 input with float32 parameters",
        "torch": torch.__version__,
        "seed": SEED,
        "notes": [
            "x, dy, residual and the results are in logical order (N, C, ...spatial), channels first, whatever the"
            " format; all are float32 (or float16) values, as the shortest decimal that gives that float32",
            "exact: PyTorch's modules in float64 from the same inputs, rounded once to the storage; running statistics"
            " are rounded to float32 after every step, as the state is float32",
            "torch: the same modules in the dtype itself, with its rounding errors; evaluation begins from the exact"
            " running statistics of the last step",
            "torchMisses: where PyTorch's own rounding error against exact is beyond half the tolerances of"
            " torch.testing.assert_close (float32 rtol 1.3e-6, atol 1e-5; float16 rtol 1e-3, atol 1e-5), mostly because"
            " the mean is far from 0 beside the standard deviation or because float16 is rounded to between its own"
            " steps (before the residual is added, in the gradients); such a configuration has torchWithinTolerance"
            " false and is compared with exact only",
        ],
        "configurations": [configuration(i, *entry) for i, entry in enumerate(CONFIGURATIONS)],
    }
    path = pathlib.Path(__file__).with_name("batch_norm.json")
    path.write_text(dump(document) + "\n")
    missed = sum(not record["torchWithinTolerance"] for record in document["configurations"])
    print(f"{path.name}: {len(names)} configurations, {path.stat().st_size} bytes, PyTorch misses in {missed}")


if __name__ == "__main__":
    main()
