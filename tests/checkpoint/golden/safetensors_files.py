"""Writes the *.safetensors that the tests read, most by Python's safetensors, and safetensors_files.json: what PyTorch
holds of the same tensors.

    pip install torch==2.13.0 numpy safetensors==0.8.0    # the CPU build
    python tests/checkpoint/golden/safetensors_files.py   # from any directory; deterministic
"""

import json
import math
import pathlib

import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

assert torch.__version__.startswith("2.13.0"), torch.__version__
assert safetensors.__version__ == "0.8.0", safetensors.__version__

HERE = pathlib.Path(__file__).parent
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ODD = [0.0, -0.0, 1.5, -2.0, 0.1, math.inf, -math.inf]
# As the integers that have the bits: quiet and signalling NaNs with payloads, the smallest and the largest subnormal,
# the smallest normal, the largest finite number.
BITS = {
    torch.float64: (
        torch.int64,
        [0x7FF8000000001234, -0x7FFFFFFFFEDCC, 0x7FF0000000000001, 1, 0xFFFFFFFFFFFFF, 1 << 52, 0x7FEFFFFFFFFFFFFF],
    ),
    torch.float32: (torch.int32, [0x7FC01234, -0x3FEDCC, 0x7F800001, 1, 0x7FFFFF, 1 << 23, 0x7F7FFFFF]),
    torch.float16: (torch.int16, [0x7E12, -0x1EE, 0x7C01, 1, 0x3FF, 1 << 10, 0x7BFF]),
    torch.bfloat16: (torch.int16, [0x7FD2, -0x2E, 0x7F81, 1, 0x7F, 1 << 7, 0x7F7F]),
}


def odd_values():
    """One tensor of each dtype, with the values that a conversion on the way would lose."""
    tensors = {}
    for dtype, (integers, bits) in BITS.items():
        odd = torch.tensor(bits, dtype=integers).view(dtype)
        tensors[DTYPES[dtype].lower()] = torch.cat([torch.tensor(ODD, dtype=dtype), odd]).reshape(2, 7)
    tensors["i64"] = torch.tensor([-(2**63), 2**63 - 1, 2**53 + 1, -1, 0])
    tensors["i32"] = torch.tensor([-(2**31), 2**31 - 1, 1], dtype=torch.int32)
    tensors["u8"] = torch.arange(256).to(torch.uint8).reshape(16, 16)
    tensors["bool"] = torch.tensor([True, False, False, True, True])
    return tensors


def shapes():
    tensors = {f"scalar.{name}": torch.ones((), dtype=dtype) for dtype, name in DTYPES.items()}
    tensors |= {f"empty.{name}": torch.ones((0,), dtype=dtype) for dtype, name in DTYPES.items()}
    tensors |= {
        "empty.2x0x3": torch.ones(2, 0, 3),
        "empty.large": torch.ones(0, 2**31),
        "rank 7": torch.arange(24.0).reshape(1, 2, 1, 3, 1, 4, 1),
        "column": torch.arange(5.0).reshape(5, 1),
    }
    return tensors


NAMES = [
    "", " ", "__proto__", "constructor", "metadata", "10", "9", "1e3", "a", "A", "a.b.c", "a/b", "\"quoted\"", "back\\slash",
    "\x00\x01\x08\t\n\x0b\x0c\r\x1b\x1f\x7f\x80\x9f", "\u2028\u2029\ufeff", "é", "e\u0301", "Gewicht.größe", "重み", "вес",
    # In UTF-16 the second comes before the first, in UTF-8 and here behind it.
    "\uffff", "\U0001f600", "\U0010ffff", "x" * 300,
]  # fmt: skip


def batch_norm():
    torch.manual_seed(2013)
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, bias=False), torch.nn.BatchNorm2d(3))
    module(torch.randn(4, 2, 5, 5))
    return module.state_dict()


# Written by hand in every way that the format leaves open: entries out of order, fields too, white space, escapes,
# metadata of several names at the end, a header that is not padded, tensors without data among others.
BY_HAND = r"""{ "c" : {"data_offsets":[13,21],"shape":[1],"dtype":"I64"},
  "\u0061\/\ud83d\ude00": {"shape": [ 2 , 2 ], "dtype":"F16","data_offsets":[0,8]},
	"none.2":{"dtype":"F32","shape":[0],"data_offsets":[8,8]},
  "none.1":{"dtype":"U8","shape":[3,0],"data_offsets":[8,8]},
  "b":{"\u0064type":"\u0055\u0038","shape":[5],"data_offsets":[8,13]},
  "first":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},
  "last":{"dtype":"BOOL","shape":[1,0],"data_offsets":[21,21]}
, "__metadata__":{"zwei":"2","eins":"\u0031","":"\"\t"}}
	 """


def by_hand():
    header = BY_HAND.encode()
    return len(header).to_bytes(8, "little") + header + bytes(range(1, 22))


def described(path, tensors, canonical):
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    entries = []
    for name, tensor in tensors.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        again = loaded[name]
        assert (again.dtype, again.shape) == (tensor.dtype, tensor.shape)
        assert again.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == raw
        shape = "x".join(map(str, tensor.shape))
        entries.append({"name": name, "dtype": DTYPES[tensor.dtype], "shape": shape, "bytes": raw.hex()})
    entries.sort(key=lambda entry: entry["name"])
    return {
        "file": path.name,
        # Whether Python's writer made it, so that ours must make the same bytes of it.
        "canonical": canonical,
        "metadata": [{"name": name, "text": metadata[name]} for name in sorted(metadata)],
        "tensors": entries,
    }


def main():
    named = {name: torch.tensor([at], dtype=torch.uint8) for at, name in enumerate(NAMES)}
    written = {
        "values": (odd_values(), {"format": "pt"}),
        "shapes": (shapes(), None),
        "names": (named, {"\"nämé\"\n\U0001f600": "\x00\x1f\\/\u2028 ü"}),
        "batch_norm": (batch_norm(), {"format": "pt"}),
        "empty": ({}, None),
        "metadata": ({}, {"format": "pt"}),
    }
    descriptions = []
    for name, (tensors, metadata) in written.items():
        path = HERE / f"{name}.safetensors"
        path.write_bytes(save(tensors, metadata))
        descriptions.append(described(path, tensors, True))
    path = HERE / "by_hand.safetensors"
    path.write_bytes(by_hand())
    descriptions.append(described(path, load_file(path), False))
    text = json.dumps(
        {"safetensors": safetensors.__version__, "torch": torch.__version__.split("+")[0], "files": descriptions}, indent=2
    )
    (HERE / "safetensors_files.json").write_text(text + "\n")
    print(f"safetensors {safetensors.__version__}, torch {torch.__version__}: {len(descriptions)} files")


if __name__ == "__main__":
    main()
