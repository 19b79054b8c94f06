"""Makes the pocket's `CLIPModel`: pictures and captions in one space, small enough for a hundred embeddings a second on a CPU.

Knows: its size and its loss (contrastive, and at first also naming the attributes; those heads are thrown away).
Does not know: the diffusion model. Its vision tower is what the captioner starts from.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from studio.pocket.captions import caption, full, read
from studio.pocket.data import pictures, scenes, to_tensor
from studio.pocket.judge import HEADS, truth
from studio.pocket.tokenizer import LENGTH, load
from studio.pocket.train_loop import Place, Plan, train
from studio.pocket.world import COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES, THING_NAMES

PLAN = Plan(steps=2_400, rate=1e-3, warmup=150, decay=0.05, average=0.997, seed=15)
BATCH = 64
VISION: dict[str, Any] = {
    "hidden_size": 144,
    "intermediate_size": 432,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "image_size": 128,
    "patch_size": 16,
}
TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
SHARED = 128
ATTRIBUTES = {
    "thing": THING_NAMES,
    "colour": COLOUR_NAMES,
    "place": PLACE_NAMES,
    "style": STYLE_NAMES,
}


def processor() -> CLIPImageProcessor:
    """128 x 128 pixels from -1 to 1, whatever comes in; the same for CLIP and the captioner."""
    halves = [0.5, 0.5, 0.5]
    return CLIPImageProcessor(
        size={"shortest_edge": 128},
        crop_size={"height": 128, "width": 128},
        image_mean=halves,
        image_std=halves,
    )


def build(vocabulary: int, start: int, end: int) -> CLIPModel:
    """An untrained model for a tokenizer of that many tokens."""
    torch.manual_seed(4)
    special: dict[str, Any] = {
        "vocab_size": vocabulary,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
        "max_position_embeddings": LENGTH,
    }
    return CLIPModel(
        CLIPConfig(text_config={**TEXT, **special}, vision_config=VISION, projection_dim=SHARED)
    )


def attributes_loss(heads: nn.ModuleDict, features: Tensor, answers: dict[str, Tensor]) -> Tensor:
    """How badly linear heads name the four attributes; -100 stands for an attribute that is not named."""
    return torch.stack(
        [
            functional.cross_entropy(heads[name](features), answers[name], ignore_index=-100)
            for name in ATTRIBUTES
        ]
    ).mean()


def make(place: Place) -> bool:
    """Train CLIP and write output/clip; True when it is finished."""
    tokenizer, drawn, told = (
        load(place.output),
        pictures("train", place.cache, place.workers),
        scenes("train"),
    )
    model = build(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id).to(place.device)
    widths = {"seen": VISION["hidden_size"], "said": TEXT["hidden_size"]}
    heads = {
        k: nn.ModuleDict({n: nn.Linear(width, len(names)) for n, names in ATTRIBUTES.items()}).to(
            place.device
        )
        for k, width in widths.items()
    }
    answers = {
        name: torch.tensor(
            [HEADS[name].index(label) for label in truth(told)[name]], device=place.device
        )
        for name in ATTRIBUTES
    }

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        chosen = np.sort(rng.choice(len(drawn), BATCH, replace=False))
        texts = [full(told[k]) if rng.random() < 0.5 else caption(told[k], rng) for k in chosen]
        tokens = tokenizer(
            texts, padding=True, max_length=LENGTH, truncation=True, return_tensors="pt"
        ).to(place.device)
        images = to_tensor(drawn[chosen], place.device)
        seen = model.vision_model(
            pixel_values=images + 0.05 * torch.randn_like(images)
        ).pooler_output
        said = model.text_model(**tokens).pooler_output
        one, other = (
            functional.normalize(x, dim=-1)
            for x in (model.visual_projection(seen), model.text_projection(said))
        )
        logits = model.logit_scale.exp().clamp(max=100) * one @ other.T
        index = torch.arange(BATCH, device=place.device)
        contrast = (
            functional.cross_entropy(logits, index) + functional.cross_entropy(logits.T, index)
        ) / 2
        found = [read(text) for text in texts]
        named = {
            n: torch.tensor(
                [ATTRIBUTES[n].index(f[i]) if f[i] else -100 for f in found], device=place.device
            )
            for i, n in enumerate(ATTRIBUTES)
        }
        naming = attributes_loss(heads["seen"], seen, {n: answers[n][chosen] for n in ATTRIBUTES})
        reading = attributes_loss(heads["said"], said, named)
        return {
            "loss": contrast + naming + 0.3 * reading,
            "contrast": contrast,
            "naming": naming,
            "reading": reading,
        }

    done = train("clip", {"clip": model, **heads}, loss, PLAN, place)
    save(
        model,
        place.output / "clip",
        CLIPProcessor(image_processor=processor(), tokenizer=tokenizer),
    )
    return done


def save(model: nn.Module, folder: Path, reader: CLIPProcessor) -> None:
    """Write model (fp16) and processor, as transformers reads them."""
    model.half().save_pretrained(folder)  # type: ignore[operator]
    reader.save_pretrained(folder)
