"""Scores the pocket's models: the judge, the autoencoder, prompts, retrieval, captions, speed.

Knows: the targets of every score.
Does not know: how the models were made; it reads their finished folders only.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel, CLIPProcessor

from studio.engine.evaluation.judge import Judge
from studio.pocket.autoencoder import compute_psnr
from studio.pocket.autoencoder import load_autoencoder as load_vae
from studio.pocket.captions import format_full_caption, parse_caption
from studio.pocket.data import list_scenes, load_images, to_tensor
from studio.pocket.judge import HEAD_LABELS, score_accuracy
from studio.pocket.train_loop import RunContext
from studio.pocket.upscaler import score_upscaler
from studio.pocket.world import Combination, Scene, sample_held_out, sample_scene

ATTRIBUTES = ("thing", "colour", "place", "style")
GUIDANCES = (1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 12.0)
RETRIEVAL_GROUP_SIZE = 64
MAX_CAPTION_TOKENS = 40
# score -> the least (or, for seconds, the most) that it should be
TARGETS = {
    "judge": 0.98,
    "round trip": 0.97,
    "psnr": 29.0,
    "prompts": 0.90,
    "retrieval": 0.90,
    "captions": 0.90,
    "picture s": 1.5,
    "caption s": 0.2,
    "embedding s": 0.02,
}
Scores = dict[str, dict[str, float]]


def make_unseen_prompts(count: int) -> list[tuple[Combination, str]]:
    """Return combinations absent from training with their prompts, always the same ones."""
    combinations = sorted(sample_held_out())
    order = np.random.default_rng(512).permutation(len(combinations))[:count]
    prompts = []
    for k in order:
        scene = sample_scene(90_000_000 + int(k), combinations[k])
        prompts.append((combinations[k], format_full_caption(scene)))
    return prompts


def load_pipeline(context: RunContext) -> StableDiffusionPipeline:
    """Load the finished pipeline in fp32, with DPM++ 2M."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        context.output_dir, torch_dtype=torch.float32
    ).to(context.device)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate_images(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    guidance: float,
    steps: int = 20,
    batch_size: int = 32,
) -> np.ndarray:
    """Generate one image per prompt with seeds 0, 1, 2, …: (n, 128, 128, 3), uint8."""
    batches = []
    for start in range(0, len(prompts), batch_size):
        batch = list(prompts[start : start + batch_size])
        images = pipeline(
            batch,
            height=128,
            width=128,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(start + k) for k in range(len(batch))],
            output_type="np",
        ).images
        batches.append(np.round(images * 255).astype(np.uint8))
    return np.concatenate(batches)


def _average_hits(hits: np.ndarray) -> dict[str, float]:
    """Return the share of hits (n, 4) per attribute, and of rows in which all four are hits."""
    shares = dict(zip(ATTRIBUTES, hits.mean(0).tolist(), strict=True))
    return {**shares, "all four": float(hits.all(1).mean())}


def score_prompt_fidelity(
    judge: Judge, images: np.ndarray, combinations: Sequence[Combination]
) -> dict[str, float]:
    """Return the share of images in which the judge sees what was asked for.

    Args:
        images: Images (n, 128, 128, 3), uint8.
        combinations: What was asked for, for each image.

    Returns:
        Shares per attribute and for all four at once.
    """
    predictions = judge.predict_labels(to_tensor(images))
    labels = np.array([predictions[name] for name in ATTRIBUTES]).T
    return _average_hits(labels == np.array(combinations))


@torch.inference_mode()
def score_judge_and_autoencoder(context: RunContext) -> Scores:
    """Score the judge on held-out drawings, noise and decoded latents, and the autoencoder."""
    judge = Judge.load(context.output_dir / "judge")
    images = to_tensor(load_images("check", context.cache_dir))
    scenes = list_scenes("check")
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(512, 3, 128, 128, generator=generator) * 2 - 1
    by_chance = {f"{name} by chance": 1 / len(HEAD_LABELS[name]) for name in ATTRIBUTES}
    scores: Scores = {
        "judge": score_accuracy(judge, images, scenes),
        "judge on noise": {**score_accuracy(judge, noise, scenes[: len(noise)]), **by_chance},
    }
    if (context.output_dir / "vae").exists():
        scores |= _score_autoencoder(context, judge, images, scenes)
    return scores


def _score_autoencoder(
    context: RunContext, judge: Judge, images: Tensor, scenes: Sequence[Scene]
) -> Scores:
    vae = load_vae(context)
    latents = torch.cat([vae.encode(batch).latent_dist.mode() for batch in images.split(32)])
    decoded = torch.cat([vae.decode(batch).sample for batch in latents.split(32)]).clamp(-1, 1)
    psnr = compute_psnr(decoded, images)
    scaled_latents = latents * vae.config.scaling_factor
    psnr_by_style = {}
    for style in HEAD_LABELS["style"]:
        has_style = [scene.style == style for scene in scenes]
        psnr_by_style[f"psnr {style}"] = float(psnr[has_style].mean())
    return {
        "round trip": score_accuracy(judge, decoded, scenes),
        "autoencoder": {
            "psnr": float(psnr.mean()),
            **psnr_by_style,
            "latent mean": float(scaled_latents.mean()),
            "latent deviation": float(scaled_latents.std()),
        },
    }


def score_prompts(context: RunContext, count: int) -> Scores:
    """Score `count` unseen prompts at guidance 7, and 96 of them at other guidances.

    The sheet of the first 48 goes to output/unseen.png.
    """
    judge = Judge.load(context.output_dir / "judge")
    pipeline = load_pipeline(context)
    unseen = make_unseen_prompts(count)
    combinations = [combination for combination, _ in unseen]
    prompts = [prompt for _, prompt in unseen]
    images = generate_images(pipeline, prompts, 7.0)
    draw_verdict_sheet(judge, images[:48], unseen[:48]).save(context.output_dir / "unseen.png")
    scores = {"prompts": score_prompt_fidelity(judge, images, combinations)}
    for guidance in GUIDANCES:
        images = generate_images(pipeline, prompts[:96], guidance)
        scores[f"guidance {guidance:g}"] = score_prompt_fidelity(judge, images, combinations[:96])
    return scores


def draw_verdict_sheet(
    judge: Judge, images: np.ndarray, prompts: Sequence[tuple[Combination, str]]
) -> Image.Image:
    """Draw images in rows of eight; below each what was asked for and what the judge saw."""
    predictions = judge.predict_labels(to_tensor(images))
    num_rows = -(-len(images) // 8)
    page = Image.new("RGB", (8 * 136, num_rows * 178), "white")
    draw = ImageDraw.Draw(page)
    for k, (combination, _) in enumerate(prompts):
        left = k % 8 * 136 + 4
        top = k // 8 * 178 + 4
        page.paste(Image.fromarray(images[k]), (left, top))
        thing, colour, place, style = combination
        caption = f"{colour} {thing}\n{place}, {style.split()[0]}"
        draw.text((left, top + 130), caption, fill="black")
        labels = [predictions[name][k] for name in ATTRIBUTES]
        mistakes = [f"saw {b}" for a, b in zip(combination, labels, strict=True) if a != b]
        verdict = ", ".join(mistakes) or "right"
        draw.text((left, top + 156), verdict, fill="#b00020" if mistakes else "#107030")
    return page


@torch.inference_mode()
def score_retrieval(context: RunContext) -> Scores:
    """Score CLIP: among 64 drawings, how often captions and drawings find each other."""
    folder = context.output_dir / "clip"
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = CLIPProcessor.from_pretrained(folder)
    drawings = load_images("check", context.cache_dir)
    scenes = list_scenes("check")
    # One drawing of each combination: captions must differ.
    index_of = {scene.combination: k for k, scene in enumerate(scenes) if not scene.concept}
    indices = sorted(index_of.values())
    shares: dict[str, list[float]] = {"picture by caption": [], "caption by picture": []}
    targets = torch.arange(RETRIEVAL_GROUP_SIZE)
    for start in range(0, len(indices) - RETRIEVAL_GROUP_SIZE + 1, RETRIEVAL_GROUP_SIZE):
        group = indices[start : start + RETRIEVAL_GROUP_SIZE]
        inputs = processor(
            text=[format_full_caption(scenes[k]) for k in group],
            images=[Image.fromarray(drawings[k]) for k in group],
            return_tensors="pt",
            padding=True,
        )
        logits = model(**inputs).logits_per_text
        shares["picture by caption"].append(float((logits.argmax(1) == targets).float().mean()))
        shares["caption by picture"].append(float((logits.T.argmax(1) == targets).float().mean()))
    return {"retrieval": {key: float(np.mean(values)) for key, values in shares.items()}}


@torch.inference_mode()
def score_captions(context: RunContext, count: int = 256) -> Scores:
    """Score the captioner: how often it names each attribute of held-out drawings rightly."""
    folder = context.output_dir / "captioner"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    drawings = load_images("check", context.cache_dir)
    scenes = list_scenes("check")
    indices = [k for k, scene in enumerate(scenes) if not scene.concept][:count]
    texts: list[str] = []
    for start in range(0, len(indices), 32):
        images = [Image.fromarray(drawings[k]) for k in indices[start : start + 32]]
        inputs = processor(images=images, return_tensors="pt")
        token_ids = model.generate(**inputs, max_new_tokens=MAX_CAPTION_TOKENS)
        texts += processor.batch_decode(token_ids, skip_special_tokens=True)
    labels = np.array([parse_caption(text) for text in texts])
    targets = np.array([scenes[k].combination for k in indices])
    return {"captions": _average_hits(labels == targets)}


def measure_seconds(action: Callable[[], object], runs: int = 5) -> float:
    """Return the median seconds of several runs, after one to warm up."""
    action()
    times = []
    for _ in range(runs):
        start_time = time.perf_counter()
        action()
        times.append(time.perf_counter() - start_time)
    return float(np.median(times))


@torch.inference_mode()
def measure_speed(context: RunContext) -> Scores:
    """Measure the seconds of one image, one caption and one CLIP embedding, for existing parts.

    The image takes 20 steps at guidance 7.
    """
    seconds: dict[str, float] = {}
    image = Image.fromarray(load_images("check", context.cache_dir)[1])
    if (context.output_dir / "model_index.json").exists():
        pipeline = load_pipeline(context)
        prompts = ["a photo of a red ball on a beach"]
        seconds["picture s"] = measure_seconds(lambda: generate_images(pipeline, prompts, 7.0))
    folder = context.output_dir / "captioner"
    if folder.exists():
        captioner = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        captioner_processor = AutoProcessor.from_pretrained(folder)

        def caption_image() -> None:
            inputs = captioner_processor(images=image, return_tensors="pt")
            captioner.generate(**inputs, max_new_tokens=MAX_CAPTION_TOKENS)

        seconds["caption s"] = measure_seconds(caption_image)
    folder = context.output_dir / "clip"
    if folder.exists():
        clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        clip_processor = CLIPProcessor.from_pretrained(folder)
        seconds["embedding s"] = measure_seconds(
            lambda: clip.get_image_features(**clip_processor(images=image, return_tensors="pt"))
        )
    return {"speed": seconds}


def evaluate_models(context: RunContext, num_prompts: int = 512) -> Scores:
    """Return all scores of the parts that exist in the output folder."""
    scores: Scores = {}
    if (context.output_dir / "judge").exists():
        scores |= score_judge_and_autoencoder(context)
    if (context.output_dir / "model_index.json").exists():
        scores |= score_prompts(context, num_prompts)
    if (context.output_dir / "clip").exists():
        scores |= score_retrieval(context)
    if (context.output_dir / "captioner").exists():
        scores |= score_captions(context)
    if (context.output_dir / "upscaler").exists():
        scores["upscaler"] = score_upscaler(context)
    return scores | measure_speed(context)


def format_table(scores: Scores) -> str:
    """Return the scores as a table in Markdown, targets beside them."""
    lines = ["| score | of | value | target |", "|---|---|---|---|"]
    for group, values in scores.items():
        for name, value in values.items():
            target = TARGETS.get(name, TARGETS.get(group))
            target_text = "" if target is None else f"{target:g}"
            lines.append(f"| {group} | {name} | {value:.3f} | {target_text} |")
    return "\n".join(lines)
