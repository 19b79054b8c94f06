"""Steps of training against diffusers' example loop, both warm, in turns; and what our loop costs beside its bare arithmetic.

The other side does what examples/text_to_image/train_text_to_image_lora.py of diffusers does at each step, call by call: pictures
through the autoencoder, captions through the text encoder, accelerate's backward and clipping, a look at the loss (twice), a
progress bar. With the text encoder it is that of examples/dreambooth/train_dreambooth_lora.py. Pictures are decoded beforehand
for both. Written anew; nothing of theirs is copied.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RANK, BATCH = 16, 4


def training(flags: argparse.Namespace) -> None:
    """Print seconds a step of theirs, ours and the bare arithmetic, and their ratios; --steps in each turn, --runs turns."""
    from studio.engine.context import WorkerContext
    from studio.settings import load

    with tempfile.TemporaryDirectory() as place:
        settings = load(
            home=Path(place),
            device=flags.device,
            precision=flags.precision,
            keep_free=0,
            preview_every=0,
        )
        bench = WorkerContext.open(settings)
        print(
            f"training: pocket 128², moon, rank {RANK}, batch {BATCH}, attention, {bench.pipelines.device.title}, "
            f"{flags.precision}, {flags.runs} turns of {flags.steps} steps"
        )
        for reads, goal in ((False, 1.5), (True, 1.2)):
            ours, bare = _ours(bench, flags, reads)
            ways = {"diffusers": _theirs(bench, flags, reads), "ours": ours, "bare": bare}
            times: dict[str, list[float]] = {name: [] for name in ways}
            busy = dict.fromkeys(
                ways, 0.0
            )  # of this process: tells more than the clock where others share the cores
            for turn in range(flags.runs + 1):  # the first one warms
                for name, way in ways.items():
                    began, worked = time.perf_counter(), time.process_time()
                    way(flags.steps)
                    if turn:
                        times[name].append((time.perf_counter() - began) / flags.steps)
                        busy[name] += time.process_time() - worked
            print(f" {'U-Net and text encoder' if reads else 'U-Net only'}")
            middle = {name: statistics.median(taken) for name, taken in times.items()}
            for name, taken in times.items():
                print(
                    f"  {name:10s} {middle[name] * 1000:7.1f} ms a step ({min(taken) * 1000:.1f} … {max(taken) * 1000:.1f})"
                )
            least = {name: min(taken) for name, taken in times.items()}
            print(
                f"  diffusers ÷ ours {middle['diffusers'] / middle['ours']:.2f}, of the quickest turns "
                f"{least['diffusers'] / least['ours']:.2f} (goal ≥ {goal}); ours ÷ bare {middle['ours'] / middle['bare']:.3f}, "
                f"of the quickest {least['ours'] / least['bare']:.3f} (goal ≤ 1.05); in processor time "
                f"{busy['diffusers'] / busy['ours']:.2f} and {busy['ours'] / busy['bare']:.3f}"
            )


def _config(flags: argparse.Namespace, reads: bool) -> Any:
    from studio.core.base import validate
    from studio.core.training.config import TrainingConfig

    return validate(
        TrainingConfig,
        {
            "dataset": "moon",
            "name": "moon",
            "train_batch_size": BATCH,
            "rank": RANK,
            "steps": 1_000_000,
            "targets": "attention",
            "train_text_encoder": reads,
            "buckets": False,
            "seed": 7,
            "precision": flags.precision,
        },
    )


def _ours(
    bench: Any, flags: argparse.Namespace, reads: bool
) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """Our steps, with report and log, and the arithmetic alone: one batch forward, backward, clipped, stepped."""
    import torch

    from studio.engine.models import loaded_model
    from studio.engine.reporter import Reporter
    from studio.engine.training import prepare
    from studio.engine.training.checkpoint import CheckpointManager
    from studio.engine.training.data_loader import BatchLoader
    from studio.engine.training.latent_cache import TensorCache
    from studio.engine.training.lora_network import LoraNetwork
    from studio.engine.training.monitor import TrainingMonitor
    from studio.engine.training.trainer import Trainer, fit
    from studio.storage.jobs import Jobs

    id = bench.home.runs.add(_config(flags, reads), "bench")
    run = bench.home.runs.get(id)
    found = prepare.prepare_training(bench, run.config, lambda progress: None)
    jobs = Jobs(bench.settings.home / "jobs.sqlite")
    job = jobs.submit("train", {"run": id})
    jobs.claim("cpu", job)

    def trainer() -> Any:
        own = LoraNetwork(
            loaded_model.load_model(found.model_info, found.content_hash, found.device),
            found.config,
            found.target_modules,
        )
        data = BatchLoader(found.plan, TensorCache(), own.model, not own.trains_text_encoder)
        data.fill_cache(own.model)
        return Trainer(own, data, found.config, found.total_steps)

    one, plain = trainer(), trainer()
    watcher = TrainingMonitor(
        bench,
        run,
        setup=found,
        checkpoint_manager=CheckpointManager(Path(bench.settings.home / "none"), "", 0),
        validation_loader=None,
        report=Reporter(jobs, job),
        working_bytes=0,
    )
    watcher.is_due = lambda step: False  # type: ignore[method-assign]

    def ours(steps: int) -> None:
        one.total_steps = one.global_step + steps
        fit(one, watcher)

    batch = plain.loader.load_batch(0)
    ids = plain._tokenize(batch.captions) if reads else []
    noise, times = (
        torch.randn_like(batch.latents),
        torch.randint(0, 1000, (len(batch.samples),), device=batch.latents.device),
    )
    parts, dtype = plain.model, plain.device.dtype

    def bare(steps: int) -> None:
        """Nothing but the networks: no chance, no noise, no log."""
        for _ in range(steps):
            with torch.autocast(plain.device.kind, dtype, enabled=dtype != torch.float32):
                rows = (
                    parts.text_encoders[0](ids[0].flatten(0, 1).to(noise.device))[0]
                    if reads
                    else batch.prompt_embeds
                )
                said = parts.denoiser(batch.latents.to(dtype), times, rows, return_dict=False)[0]
            torch.nn.functional.mse_loss(said.float(), noise).backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters, 1.0)
            plain.optimizer.step()
            plain.optimizer.zero_grad(set_to_none=True)
        if plain.device.kind == "cuda":
            torch.cuda.synchronize()

    return ours, bare


def _theirs(bench: Any, flags: argparse.Namespace, reads: bool) -> Callable[[int], None]:
    """The example's loop; each call goes on where the last one ended."""
    import torch
    from accelerate import Accelerator
    from diffusers import DDPMScheduler, DiffusionPipeline
    from diffusers.optimization import get_scheduler
    from peft import LoraConfig
    from tqdm.auto import tqdm

    info = bench.home.library.get_model("pocket")
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
        flags.precision
    ]
    mixed = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[flags.precision]
    accelerator = Accelerator(cpu=flags.device == "cpu", mixed_precision=mixed)
    pipe = DiffusionPipeline.from_pretrained(info.path, dtype=dtype)
    unet, vae, encoder = pipe.unet, pipe.vae, pipe.text_encoder
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    for network in (unet, vae, encoder):
        network.requires_grad_(False).to(accelerator.device)
    unet.add_adapter(
        LoraConfig(
            r=RANK,
            lora_alpha=RANK,
            init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0"],
        )
    )
    if reads:
        encoder.add_adapter(
            LoraConfig(
                r=RANK,
                lora_alpha=RANK,
                init_lora_weights="gaussian",
                target_modules=["q_proj", "k_proj", "v_proj", "out_proj"],
            )
        )
    weights = [
        weight
        for network in (unet, encoder)
        for weight in network.parameters()
        if weight.requires_grad
    ]
    for weight in weights:
        weight.data = weight.data.float()
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    rates = get_scheduler("constant", optimizer)
    loader = torch.utils.data.DataLoader(_Pictures(bench, pipe.tokenizer), BATCH, shuffle=True)
    unet, encoder, optimizer, loader, rates = accelerator.prepare(
        unet, encoder, optimizer, loader, rates
    )
    batches = _endless(loader)
    unet.train()
    encoder.train(reads)

    def steps(many: int) -> None:
        bar, total = tqdm(total=many, file=open("/dev/null", "w")), 0.0  # noqa: SIM115
        for _ in range(many):
            batch = next(batches)
            with accelerator.accumulate(unet):
                latents = (
                    vae.encode(batch["pixels"].to(dtype)).latent_dist.sample()
                    * vae.config.scaling_factor
                )
                noise = torch.randn_like(latents)
                timesteps = torch.randint(
                    0, scheduler.config.num_train_timesteps, (len(latents),), device=latents.device
                ).long()
                noisy = scheduler.add_noise(latents, noise, timesteps)
                predicted = unet(noisy, timesteps, encoder(batch["ids"])[0]).sample
                loss = torch.nn.functional.mse_loss(
                    predicted.float(), noise.float(), reduction="mean"
                )
                total += accelerator.gather(loss.repeat(BATCH)).mean().item()
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                rates.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                bar.update(1)
                accelerator.log({"train_loss": total})
            bar.set_postfix(step_loss=loss.detach().item(), lr=rates.get_last_lr()[0])

    return steps


class _Pictures:
    """The data set as their script reads it: resized, cropped, made numbers of, and captions in tokens, at each access."""

    def __init__(self, bench: Any, tokenizer: Any) -> None:
        from PIL import Image

        self._tokenizer = tokenizer
        self._items = [
            (Image.open(item.path).convert("RGB"), item.caption)
            for item in bench.home.training_sets.load_training_set("moon").images
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, k: int) -> dict[str, Any]:
        import numpy as np
        import torch

        image, caption = self._items[k]
        pixels = (
            torch.from_numpy(np.asarray(image.resize((128, 128), 2)).copy())
            .permute(2, 0, 1)
            .contiguous()
            .float()
            / 127.5
            - 1
        )
        ids = self._tokenizer(
            caption, max_length=77, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids[0]
        return {"pixels": pixels, "ids": ids}


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader
