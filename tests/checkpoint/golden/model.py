"""Writes model.safetensors and model.json: a small network after a few steps of training, and its batch norms' outputs.

    pip install torch==2.13.0 numpy safetensors==0.8.0    # the CPU build
    python tests/checkpoint/golden/model.py                # from any directory; deterministic
    python tests/checkpoint/golden/model.py --verify FILE  # whether PyTorch loads FILE as what model.safetensors holds

model.json has `entries`, the names of state_dict() in PyTorch's order, and `layers`, for each batch norm a batch `x` of
logical `shape` and what evaluation makes of it, `y`, both in float32 and row by row.
"""

import argparse
import json
import pathlib

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save
from torch import nn

assert torch.__version__.startswith("2.13.0"), torch.__version__
assert safetensors.__version__ == "0.8.0", safetensors.__version__
torch.set_num_threads(1)  # One order of summation, whatever the machine.

HERE = pathlib.Path(__file__).parent
SEED = 2020
STEPS = 3


class Block(nn.Module):
    """The three states that a batch norm may lack something of, around a linear layer."""

    def __init__(self):
        super().__init__()
        self.plain = nn.BatchNorm1d(4, affine=False)
        self.linear = nn.Linear(4, 4)
        self.average = nn.BatchNorm1d(4, momentum=None, eps=1e-3)
        self.untracked = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x):
        return self.untracked(torch.relu(self.average(self.linear(self.plain(x)))))


class Network(nn.Module):
    """(N, 2, 4, 4) to (N, 3, 1, 1, 1)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.add_module("conv", nn.Conv2d(2, 4, 3))
        self.stem.add_module("norm", nn.BatchNorm2d(4, momentum=0.25))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Conv3d(4, 3, 1, bias=False)
        self.norm = nn.BatchNorm3d(3)

    def forward(self, x):
        y = torch.relu(self.stem(x)).mean(dim=(2, 3))
        for block in self.blocks:
            y = y + block(y)
        return self.norm(self.head(y[:, :, None, None, None]))


def trained():
    """The network after some steps on random data, every step with another batch."""
    torch.manual_seed(SEED)
    network = Network()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(STEPS):
        x, target = torch.randn(8, 2, 4, 4) * 2 + 1, torch.randn(8, 3, 1, 1, 1)
        optimiser.zero_grad()
        (network(x) - target).square().mean().backward()
        optimiser.step()
    return network


SHAPES = {nn.BatchNorm1d: (5,), nn.BatchNorm2d: (2, 2, 2), nn.BatchNorm3d: (2, 1, 2, 1)}


def evaluations(network):
    """For each batch norm a batch of its rank and what evaluation makes of it."""
    for name, layer in network.eval().named_modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        batch, *spatial = SHAPES[type(layer)]
        x = torch.randn(batch, layer.num_features, *spatial) * 2 + 1
        yield {
            "name": name,
            "shape": list(x.shape),
            "x": numbers(x),
            "y": numbers(layer(x)),
        }


def numbers(tensor):
    """The shortest decimals that are these float32, without -0."""
    values = tensor.detach().numpy().reshape(-1) + np.float32(0)
    return [float(str(value)) for value in values]


def write():
    """Both files."""
    network = trained()
    state_dict = network.state_dict()
    assert all(int(value) == STEPS for key, value in state_dict.items() if key.endswith("num_batches_tracked"))
    (HERE / "model.safetensors").write_bytes(save(state_dict))
    document = {
        "torch": torch.__version__,
        "safetensors": safetensors.__version__,
        "seed": SEED,
        "entries": [
            {"name": key, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
            for key, value in state_dict.items()
        ],
        "layers": list(evaluations(network)),
    }
    (HERE / "model.json").write_text(dump(document))
    print(f"{len(state_dict)} entries, {len(document['layers'])} batch norms")


def dump(document):
    """JSON with an entry or a layer on each line."""
    lists = lambda items: "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in items) + "\n ]"
    fields = [(key, lists(value) if isinstance(value, list) else json.dumps(value)) for key, value in document.items()]
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {text}" for key, text in fields) + "\n}\n"


def verify(path):
    """Fails unless a fresh network takes the file and then has what model.safetensors has, bit for bit."""
    torch.manual_seed(1)
    network = Network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    result = network.load_state_dict(load_file(path), strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    wanted = load_file(HERE / "model.safetensors")
    loaded = network.state_dict()
    assert set(loaded) == set(wanted)
    changed = 0
    for key, value in loaded.items():
        assert value.dtype == wanted[key].dtype and value.shape == wanted[key].shape, key
        assert value.numpy().tobytes() == wanted[key].numpy().tobytes(), key
        changed += not torch.equal(value, before[key])
    same_file = pathlib.Path(path).read_bytes() == (HERE / "model.safetensors").read_bytes()
    print(f"{len(loaded)} entries loaded, {changed} of them changed, all equal bit for bit; file equal: {same_file}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--verify", metavar="FILE")
    file = parser.parse_args().verify
    verify(file) if file else write()
