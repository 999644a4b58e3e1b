"""An independent check of the payload's format: Python's safetensors reads what Holdfast writes, and vice versa.

usage: payload_test.py FOLDER_OF_OUR_PROGRAMS
Ends with status 77 (skipped) if this Python has no torch or no safetensors.
"""

import json
import os
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip


def raw(tensor):
    """All bytes of a tensor, in memory order."""
    flat = tensor.contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def described(tensors):
    return {t["name"]: (t["dtype"], t["shape"], t["bytes"]) for t in tensors}


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def check_what_holdfast_writes(peer, folder):
    path, tensors = run(peer, "write", os.path.join(folder, "written"))
    loaded = load_file(path)
    assert set(loaded) == {t["name"] for t in tensors}, sorted(loaded)
    for t in tensors:
        tensor = loaded[t["name"]]
        assert tensor.dtype == DTYPES[t["dtype"]], (t["name"], tensor.dtype)
        assert list(tensor.shape) == t["shape"], (t["name"], tensor.shape)
        assert raw(tensor).hex() == t["bytes"], f"{t['name']} has other bytes"
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}, file.metadata()
    assert {t["dtype"] for t in tensors} == set(DTYPES), "not every dtype was written"
    return len(tensors)


def check_what_python_writes(peer, folder):
    os.makedirs(os.path.join(folder, "read", "data"))
    generator = torch.Generator().manual_seed(1)
    tensors = {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), 'odd " \\ é\n': torch.ones(2, dtype=torch.int8)}
    for name, dtype in DTYPES.items():
        random = torch.randint(0, 256, (3, 5, 16), generator=generator, dtype=torch.uint8)
        tensors[name] = (random % 2 == 1) if dtype == torch.bool else random.view(dtype)
    names = {dtype: name for name, dtype in DTYPES.items()}
    for file, metadata in (("plain", None), ("metadata", {"format": "pt", "é": "\n"})):
        save_file(tensors, os.path.join(folder, "read", "data", file), metadata=metadata)
        read = described(run(peer, "read", os.path.join(folder, "read"), file))
        expected = {n: (names[t.dtype], list(t.shape), raw(t).hex()) for n, t in tensors.items()}
        assert read == expected, [n for n in expected if read.get(n) != expected[n]]
    return len(tensors)


peer = os.path.join(sys.argv[1], "payload_peer")
with tempfile.TemporaryDirectory() as folder:
    written = check_what_holdfast_writes(peer, folder)
    read = check_what_python_writes(peer, folder)
print(f"python peer: written={written} read={read} dtypes={len(DTYPES)} differences=0")
