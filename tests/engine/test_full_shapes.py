"""The full shapes of the released models, in the original layout, read back bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
NEEDED_BYTES = 13 * GIB  # of memory and of disk
# (family, part) → GiB that the process may take: the numbers twice, and the libraries.
PARTS = {
    ("sd1", "unet"): 5,
    ("sd1", "text_encoder"): 3,
    ("sd1", "vae"): 3,
    ("sd2", "unet"): 5,
    ("sd2", "text_encoder"): 4,
    ("sdxl", "unet"): 12,
    ("sdxl", "text_encoder"): 3,
    ("sdxl", "text_encoder_2"): 5,
    ("sdxl", "vae"): 3,
}
# In a process of its own: writes a checkpoint whose other parts are toys, opens it, compares.
CODE = """
import json, resource, sys, time
from pathlib import Path
import torch
from studio.engine.models import devices
from studio.engine.models.components import load_network
from studio.settings import load
from studio.storage.models.library import Library
from support import ldm_files

home, kind, component = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
parts = ldm_files.make_toy_parts(kind)
stock = parts[component] = ldm_files.build_real_part(kind, component)
for part in parts.values():
    if isinstance(part, torch.nn.Module):
        part.half()
tensors = ldm_files.collect_checkpoint(kind, parts)
ldm_files.stream_checkpoint(home / "models" / "full.safetensors", tensors)
del tensors, parts
info = Library(load(home=home, device="cpu")).get_model("full")
device = devices.resolve("cpu", "float32")
start = time.perf_counter()
network = load_network(type(stock), info, component, device, torch.float16)
seconds = time.perf_counter() - start
expected, loaded = stock.state_dict(), network.state_dict()
print(json.dumps({
    "same": expected.keys() == loaded.keys() and all(torch.equal(expected[n], loaded[n]) for n in expected),
    "count": len(loaded),
    "seconds": seconds,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


@pytest.mark.parametrize(("kind", "component"), PARTS)
def test_a_part_of_full_shape_comes_back_bitwise(tmp_path: Path, kind: str, component: str) -> None:
    free = min(psutil.virtual_memory().available, shutil.disk_usage(tmp_path).free)
    if free < NEEDED_BYTES:
        pytest.skip(f"{free / GIB:.0f} GiB of memory or disk are free; 13 are needed")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "home"), kind, component],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(tmp_path / "home", ignore_errors=True)  # gigabytes
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind} {component}: {told}")
    assert told["same"]
    assert told["peak"] < PARTS[kind, component] * GIB
