"""A single-file checkpoint opened by the studio and by diffusers' from_single_file: seconds, and memory at the peak.

Each in a process of its own, in the file's own number format, all pages touched; in turns, the file warm in the system's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

GIB = 2**30
WAYS = ("studio", "diffusers")
ROOT = Path(__file__).resolve().parents[2]


def single_files(arguments: argparse.Namespace) -> None:
    """SD 1.5 in full; with `--toy` a small one."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        size = _write(home, is_toy=arguments.toy)
        print(f"SD 1.x in one file of {size / GIB:.2f} GiB (float16): U-Net, text encoder and VAE")
        told: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(arguments.runs + 1):
            for way in WAYS:
                told[way].append(_run_apart(home, way))
        for way in WAYS:
            runs = told[way][1:]  # the first warms the file
            seconds = statistics.median(run["seconds"] for run in runs)
            peak = statistics.median(run["peak"] for run in runs)
            print(
                f"{way:10} {seconds:7.2f} s   {peak / GIB:6.2f} GiB more, {peak / size:.2f} × the file"
            )


def _write(home: Path, is_toy: bool) -> int:
    sys.path.insert(0, str(ROOT / "tests"))
    import torch

    from support import ldm_files

    parts = ldm_files.make_toy_parts("sd1")
    if not is_toy:
        for component in ("unet", "vae", "text_encoder"):
            parts[component] = ldm_files.build_real_part("sd1", component)
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            part.half()
            part.save_config(home / "configs" / name) if hasattr(
                part, "save_config"
            ) else part.config.save_pretrained(home / "configs" / name)
    path = home / "models" / "file.safetensors"
    ldm_files.stream_checkpoint(path, ldm_files.collect_checkpoint("sd1", parts))
    return path.stat().st_size


def _run_apart(home: Path, way: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.single_files", str(home), way]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ}
    )
    run: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return run


def _measure(home: Path, way: str) -> None:
    import time

    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders import single_file_utils
    from transformers import CLIPTextModel

    from studio.engine.models import devices
    from studio.engine.models.components import load_network
    from studio.settings import load
    from studio.storage.models.library import Library

    path = home / "models" / "file.safetensors"
    classes = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    library = Library(load(home=home, device="cpu"))
    device = devices.resolve("cpu", "float32")
    before = _read_rss()
    # Not getrusage: there a process begins with the peak of the one that started it.
    Path("/proc/self/clear_refs").write_text("5")
    start_time = time.perf_counter()
    if way == "studio":
        info = library.get_model("file")
        networks = [
            load_network(network_class, info, name, device, torch.float16)
            for name, network_class in classes.items()
        ]
    else:
        networks = [
            network_class.from_single_file(
                str(path),
                config=str(home / "configs"),
                subfolder=name,
                local_files_only=True,
                torch_dtype=torch.float16,
            )
            for name, network_class in classes.items()
            if name != "text_encoder"
        ]
        checkpoint = single_file_utils.load_single_file_checkpoint(str(path))
        networks.append(
            single_file_utils.create_diffusers_clip_model_from_ldm(
                CLIPTextModel,
                checkpoint,
                config=str(home / "configs"),
                subfolder="text_encoder",
                torch_dtype=torch.float16,
                local_files_only=True,
            )
        )
        del checkpoint
    touched = 0
    for network in networks:
        for weight in network.parameters():
            touched += int(weight.detach().flatten().view(torch.uint8)[::4096].sum())
    seconds = time.perf_counter() - start_time
    peak = _read_peak()
    print(json.dumps({"seconds": seconds, "peak": peak - before, "touched": touched}))


def _read_peak() -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _read_rss() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    _measure(Path(sys.argv[1]), sys.argv[2])
