"""Scores the pocket: how often the judge is right, what the autoencoder loses, and whether pictures show what was asked.

Knows: the targets of every score. Does not know: how the models were made; it reads their finished folders only.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image, ImageDraw
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel, CLIPProcessor

from studio.pocket.autoencoder import load as load_vae
from studio.pocket.autoencoder import psnr
from studio.pocket.captions import full, read
from studio.pocket.data import pictures, scenes, to_tensor
from studio.pocket.judge import HEADS, Judge, right, truth
from studio.pocket.train_loop import Place
from studio.pocket.world import Combination, held_out, sample

ATTRIBUTES = ("thing", "colour", "place", "style")
GUIDANCES = (1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 12.0)
GROUP = 64
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


def unseen(count: int) -> list[tuple[Combination, str]]:
    """Combinations absent from training with their prompts, always the same."""
    chosen = sorted(held_out())
    order = np.random.default_rng(512).permutation(len(chosen))[:count]
    return [(chosen[k], full(sample(90_000_000 + int(k), chosen[k]))) for k in order]


def load_pipeline(place: Place) -> StableDiffusionPipeline:
    """The finished pipeline in fp32, with DPM++ 2M."""
    pipeline = StableDiffusionPipeline.from_pretrained(place.output, torch_dtype=torch.float32).to(
        place.device
    )
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    guidance: float,
    steps: int = 20,
    batch: int = 32,
) -> np.ndarray:
    """One picture per prompt, seeds 0, 1, 2, ..., as uint8."""
    found = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        seeds = [torch.Generator().manual_seed(start + k) for k in range(len(part))]
        made = pipeline(
            part,
            height=128,
            width=128,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=seeds,
            output_type="np",
        ).images
        found.append(np.round(made * 255).astype(np.uint8))
    return np.concatenate(found)


def kept(judge: Judge, images: np.ndarray, wanted: Sequence[Combination]) -> dict[str, float]:
    """The share of pictures in which the judge sees what was asked, per attribute and for all four at once."""
    said = judge.verdicts(to_tensor(images))
    hits = np.array(
        [
            [said[name][k] == wish[i] for i, name in enumerate(ATTRIBUTES)]
            for k, wish in enumerate(wanted)
        ]
    )
    return {
        **dict(zip(ATTRIBUTES, hits.mean(0).tolist(), strict=True)),
        "all four": float(hits.all(1).mean()),
    }


@torch.inference_mode()
def judged(place: Place) -> Scores:
    """The judge on held-out drawings, on noise, and after the autoencoder's round trip; the autoencoder's own score."""
    judge, images, told = (
        Judge.load(place.output / "judge"),
        to_tensor(pictures("check", place.cache)),
        scenes("check"),
    )
    said, meant = (
        judge.verdicts(
            torch.rand(512, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
        ),
        truth(told),
    )
    noise = {
        name: float(np.mean([a == b for a, b in zip(said[name], meant[name], strict=False)]))
        for name in HEADS
    }
    chance = {f"{name} by chance": 1 / len(HEADS[name]) for name in ATTRIBUTES}
    scores: Scores = {"judge": right(judge, images, told), "judge on noise": {**noise, **chance}}
    if (place.output / "vae").exists():
        vae = load_vae(place)
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in images.split(32)])
        back = torch.cat([vae.decode(part).sample for part in latents.split(32)]).clamp(-1, 1)
        value, scaled = psnr(back, images), latents * vae.config.scaling_factor
        styles = {
            f"psnr {style}": float(value[[s.style == style for s in told]].mean())
            for style in HEADS["style"]
        }
        scores["round trip"] = right(judge, back, told)
        scores["autoencoder"] = {
            "psnr": float(value.mean()),
            **styles,
            "latent mean": float(scaled.mean()),
            "latent deviation": float(scaled.std()),
        }
    return scores


def prompted(place: Place, count: int) -> Scores:
    """Unseen prompts at guidance 7, all of them; a few at other guidances. The sheet of the first 48 goes to output/unseen.png."""
    judge, pipeline = Judge.load(place.output / "judge"), load_pipeline(place)
    asked = unseen(count)
    images = generate(pipeline, [prompt for _, prompt in asked], 7.0)
    verdict_sheet(judge, images[:48], asked[:48]).save(place.output / "unseen.png")
    scores = {"prompts": kept(judge, images, [wish for wish, _ in asked])}
    few = asked[:96]
    for guidance in GUIDANCES:
        made = generate(pipeline, [prompt for _, prompt in few], guidance)
        scores[f"guidance {guidance:g}"] = kept(judge, made, [wish for wish, _ in few])
    return scores


def verdict_sheet(
    judge: Judge, images: np.ndarray, asked: Sequence[tuple[Combination, str]]
) -> Image.Image:
    """Pictures in rows of eight; under each what was asked, and in red what the judge saw instead."""
    said = judge.verdicts(to_tensor(images))
    rows = -(-len(images) // 8)
    page = Image.new("RGB", (8 * 136, rows * 178), "white")
    draw = ImageDraw.Draw(page)
    for k, (wish, _) in enumerate(asked):
        left, top = k % 8 * 136 + 4, k // 8 * 178 + 4
        page.paste(Image.fromarray(images[k]), (left, top))
        saw = [said[name][k] for name in ATTRIBUTES]
        wrong = [f"saw {b}" for a, b in zip(wish, saw, strict=True) if a != b]
        draw.text(
            (left, top + 130), f"{wish[1]} {wish[0]}\n{wish[2]}, {wish[3].split()[0]}", fill="black"
        )
        draw.text(
            (left, top + 156), ", ".join(wrong) or "right", fill="#b00020" if wrong else "#107030"
        )
    return page


@torch.inference_mode()
def retrieved(place: Place) -> Scores:
    """Among 64 drawings with different captions: how often the caption finds its picture and the picture its caption."""
    model = CLIPModel.from_pretrained(place.output / "clip", dtype=torch.float32).eval()
    reader = CLIPProcessor.from_pretrained(place.output / "clip")
    drawn, told = pictures("check", place.cache), scenes("check")
    first = {scene.combination: k for k, scene in enumerate(told) if not scene.concept}
    index = sorted(first.values())
    found: dict[str, list[float]] = {"picture by caption": [], "caption by picture": []}
    for start in range(0, len(index) - GROUP + 1, GROUP):
        group = index[start : start + GROUP]
        inputs = reader(
            text=[full(told[k]) for k in group],
            images=[Image.fromarray(drawn[k]) for k in group],
            return_tensors="pt",
            padding=True,
        )
        logits = model(**inputs).logits_per_text
        for key, table_ in (("picture by caption", logits), ("caption by picture", logits.T)):
            found[key].append(float((table_.argmax(1) == torch.arange(GROUP)).float().mean()))
    return {"retrieval": {key: float(np.mean(values)) for key, values in found.items()}}


@torch.inference_mode()
def captioned(place: Place, count: int = 256) -> Scores:
    """How often a caption of a held-out drawing names each attribute rightly."""
    model = AutoModelForImageTextToText.from_pretrained(
        place.output / "captioner", dtype=torch.float32
    ).eval()
    reader = AutoProcessor.from_pretrained(place.output / "captioner")
    drawn, told = pictures("check", place.cache), scenes("check")
    index = [k for k, scene in enumerate(told) if not scene.concept][:count]
    texts: list[str] = []
    for start in range(0, len(index), 32):
        inputs = reader(
            images=[Image.fromarray(drawn[k]) for k in index[start : start + 32]],
            return_tensors="pt",
        )
        texts += reader.batch_decode(
            model.generate(**inputs, max_new_tokens=40), skip_special_tokens=True
        )
    hits = np.array(
        [
            [a == b for a, b in zip(read(text), told[k].combination, strict=True)]
            for text, k in zip(texts, index, strict=True)
        ]
    )
    return {
        "captions": {
            **dict(zip(ATTRIBUTES, hits.mean(0).tolist(), strict=True)),
            "all four": float(hits.all(1).mean()),
        }
    }


def seconds(action: Callable[[], object], runs: int = 5) -> float:
    """The middle of several runs, after one to warm up."""
    action()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


@torch.inference_mode()
def timed(place: Place) -> Scores:
    """Seconds for one picture (20 steps, guidance 7), one caption and one CLIP embedding, for the parts that are there."""
    found: dict[str, float] = {}
    picture = Image.fromarray(pictures("check", place.cache)[1])
    if (place.output / "model_index.json").exists():
        pipeline = load_pipeline(place)
        found["picture s"] = seconds(
            lambda: generate(pipeline, ["a photo of a red ball on a beach"], 7.0)
        )
    if (place.output / "captioner").exists():
        model = AutoModelForImageTextToText.from_pretrained(
            place.output / "captioner", dtype=torch.float32
        ).eval()
        reader = AutoProcessor.from_pretrained(place.output / "captioner")
        found["caption s"] = seconds(
            lambda: model.generate(**reader(images=picture, return_tensors="pt"), max_new_tokens=40)
        )
    if (place.output / "clip").exists():
        clip = CLIPModel.from_pretrained(place.output / "clip", dtype=torch.float32).eval()
        eyes = CLIPProcessor.from_pretrained(place.output / "clip")
        found["embedding s"] = seconds(
            lambda: clip.get_image_features(**eyes(images=picture, return_tensors="pt"))
        )
    return {"speed": found}


def evaluate(place: Place, prompts: int = 512) -> Scores:
    """All scores of the parts that are there."""
    scores = judged(place) if (place.output / "judge").exists() else {}
    if (place.output / "model_index.json").exists():
        scores |= prompted(place, prompts)
    if (place.output / "clip").exists():
        scores |= retrieved(place)
    if (place.output / "captioner").exists():
        scores |= captioned(place)
    return scores | timed(place)


def table(scores: Scores) -> str:
    """The scores as a table in Markdown, targets beside them."""
    lines = ["| score | of | value | target |", "|---|---|---|---|"]
    for group, values in scores.items():
        for name, value in values.items():
            target = TARGETS.get(name, TARGETS.get(group))
            lines.append(
                f"| {group} | {name} | {value:.3f} | {'' if target is None else f'{target:g}'} |"
            )
    return "\n".join(lines)
