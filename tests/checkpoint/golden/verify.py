"""Reads files of our writer with Python's safetensors and PyTorch, and writes them again.

    deno run --allow-write=FOLDER tests/checkpoint/dicts.ts FOLDER --files 200 --seed 2026
    python tests/checkpoint/golden/verify.py FOLDER    # torch==2.13.0 numpy safetensors==0.8.0

Demands of each the dtypes, shapes, bits and metadata that the JSON beside it gives, and of the file that Python makes of
the same tensors the same bytes. Python draws the order of several metadata: there all but that order must be the same.
"""

import json
import pathlib
import sys

import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def header_of(file):
    """Pairs in the order of the file, and what comes behind them."""
    length = int.from_bytes(file[:8], "little")
    pairs = json.loads(file[8 : 8 + length], object_pairs_hook=lambda pairs: pairs)
    return [(name, sorted(value) if name == "__metadata__" else value) for name, value in pairs], file[8 + length :]


def verify(path):
    """Returns the number of tensors and whether the bytes could be compared as they are."""
    wanted = json.loads(path.with_suffix(".json").read_text())
    tensors = load_file(path)
    assert tensors.keys() == {tensor["name"] for tensor in wanted["tensors"]}, "names"
    for tensor in wanted["tensors"]:
        found = tensors[tensor["name"]]
        assert found.dtype == DTYPES[tensor["dtype"]], (tensor["name"], found.dtype)
        assert "x".join(map(str, found.shape)) == tensor["shape"], (tensor["name"], found.shape)
        assert found.reshape(-1).view(torch.uint8).numpy().tobytes().hex() == tensor["bytes"], tensor["name"]
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert (metadata or {}) == {entry["name"]: entry["text"] for entry in wanted["metadata"]}, "metadata"
    ours, theirs = path.read_bytes(), save(tensors, metadata)
    if len(metadata or {}) < 2:
        assert ours == theirs, "bytes"
        return len(tensors), True
    assert len(ours) == len(theirs) and header_of(ours) == header_of(theirs), "bytes"
    return len(tensors), False


def main():
    assert torch.__version__.startswith("2.13.0") and safetensors.__version__ == "0.8.0"
    paths = sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors"))
    assert paths, "no files"
    failed, counted = 0, []
    for path in paths:
        try:
            counted.append(verify(path))
        except Exception as error:  # A file that Python cannot read is what is looked for.
            failed += 1
            print(f"{path.name}: {error!r}")
    equal = sum(same for _, same in counted)
    print(
        f"{len(counted)} files of {sum(count for count, _ in counted)} tensors read alike; {equal} the same bytes, "
        f"{len(counted) - equal} but for the order of metadata; {failed} failed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
