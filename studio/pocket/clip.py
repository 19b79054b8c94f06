"""Makes the pocket's CLIPModel: images and captions in one space, quick on a CPU.

Knows: its size and its loss (contrastive, and also naming the attributes; those heads are thrown
away). It embeds about a hundred images a second on a CPU.
Does not know: the diffusion model. Its vision tower is what the captioner starts from.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from studio.pocket.captions import format_full_caption, parse_caption, sample_caption
from studio.pocket.data import list_scenes, load_images, to_tensor
from studio.pocket.judge import HEAD_LABELS, get_true_labels
from studio.pocket.tokenizer import MAX_TOKENS, load_tokenizer
from studio.pocket.train_loop import RunContext, TrainingPlan, train_modules
from studio.pocket.world import COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES, THING_NAMES

TRAINING_PLAN = TrainingPlan(
    steps=2_400, learning_rate=1e-3, warmup_steps=150, weight_decay=0.05, ema_decay=0.997, seed=15
)
BATCH_SIZE = 64
VISION_CONFIG: dict[str, Any] = {
    "hidden_size": 144,
    "intermediate_size": 432,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "image_size": 128,
    "patch_size": 16,
}
TEXT_CONFIG: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
PROJECTION_DIM = 128
ATTRIBUTE_LABELS = {
    "thing": THING_NAMES,
    "colour": COLOUR_NAMES,
    "place": PLACE_NAMES,
    "style": STYLE_NAMES,
}
NOT_NAMED = -100  # the label that cross entropy ignores


def build_image_processor() -> CLIPImageProcessor:
    """Return what brings any image to 128 x 128 pixels from -1 to 1, for CLIP and the captioner."""
    halves = [0.5, 0.5, 0.5]
    return CLIPImageProcessor(
        size={"shortest_edge": 128},
        crop_size={"height": 128, "width": 128},
        image_mean=halves,
        image_std=halves,
    )


def build_clip(vocab_size: int, bos_token_id: int, eos_token_id: int) -> CLIPModel:
    """Return an untrained model for a tokenizer of `vocab_size` tokens."""
    torch.manual_seed(4)
    special: dict[str, Any] = {
        "vocab_size": vocab_size,
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": eos_token_id,
        "max_position_embeddings": MAX_TOKENS,
    }
    config = CLIPConfig(
        text_config={**TEXT_CONFIG, **special},
        vision_config=VISION_CONFIG,
        projection_dim=PROJECTION_DIM,
    )
    return CLIPModel(config)


def compute_contrastive_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, scale: Tensor
) -> Tensor:
    """Return CLIP's loss of n pairs of embeddings (n, width); Radford et al., arXiv:2103.00020."""
    logits = scale * image_embeddings @ text_embeddings.T
    targets = torch.arange(len(logits), device=logits.device)
    by_image = functional.cross_entropy(logits, targets)
    by_text = functional.cross_entropy(logits.T, targets)
    return (by_image + by_text) / 2


def compute_attribute_loss(
    heads: nn.ModuleDict, features: Tensor, labels: dict[str, Tensor]
) -> Tensor:
    """Return how badly linear heads name the four attributes; NOT_NAMED labels do not count."""
    losses = [
        functional.cross_entropy(heads[name](features), labels[name], ignore_index=NOT_NAMED)
        for name in ATTRIBUTE_LABELS
    ]
    return torch.stack(losses).mean()


def _build_attribute_heads(width: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {name: nn.Linear(width, len(labels)) for name, labels in ATTRIBUTE_LABELS.items()}
    )


def _label_captions(texts: Sequence[str], device: str) -> dict[str, Tensor]:
    """Return the indices (n,) of the attributes that captions name."""
    labels: dict[str, list[int]] = {name: [] for name in ATTRIBUTE_LABELS}
    for text in texts:
        for (name, words), word in zip(ATTRIBUTE_LABELS.items(), parse_caption(text)):
            labels[name].append(words.index(word) if word else NOT_NAMED)
    return {name: torch.tensor(indices, device=device) for name, indices in labels.items()}


def train_clip(context: RunContext) -> bool:
    """Train CLIP and write output/clip; return whether it is finished."""
    tokenizer = load_tokenizer(context.output_dir)
    drawings = load_images("train", context.cache_dir, context.num_workers)
    scenes = list_scenes("train")
    model = build_clip(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id).to(
        context.device
    )
    image_heads = _build_attribute_heads(VISION_CONFIG["hidden_size"]).to(context.device)
    text_heads = _build_attribute_heads(TEXT_CONFIG["hidden_size"]).to(context.device)
    scene_labels = get_true_labels(scenes)
    image_labels = {
        name: torch.tensor([HEAD_LABELS[name].index(label) for label in scene_labels[name]]).to(
            context.device
        )
        for name in ATTRIBUTE_LABELS
    }

    def choose_caption(index: int, rng: np.random.Generator) -> str:
        if rng.random() < 0.5:
            return format_full_caption(scenes[index])
        return sample_caption(scenes[index], rng)

    def compute_loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        # 1. A batch of images, slightly noisy, and captions
        indices = np.sort(rng.choice(len(drawings), BATCH_SIZE, replace=False))
        texts = [choose_caption(index, rng) for index in indices]
        tokens = tokenizer(
            texts, padding=True, max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        ).to(context.device)
        images = to_tensor(drawings[indices], context.device)
        images = images + 0.05 * torch.randn_like(images)
        # 2. Their features and embeddings
        image_features = model.vision_model(pixel_values=images).pooler_output
        text_features = model.text_model(**tokens).pooler_output
        image_embeddings = functional.normalize(model.visual_projection(image_features), dim=-1)
        text_embeddings = functional.normalize(model.text_projection(text_features), dim=-1)
        # 3. Pairs belong together, and attributes can be read off both sides
        scale = model.logit_scale.exp().clamp(max=100)
        contrast = compute_contrastive_loss(image_embeddings, text_embeddings, scale)
        batch_labels = {name: labels[indices] for name, labels in image_labels.items()}
        naming = compute_attribute_loss(image_heads, image_features, batch_labels)
        text_labels = _label_captions(texts, context.device)
        reading = compute_attribute_loss(text_heads, text_features, text_labels)
        total = contrast + naming + 0.3 * reading
        return {"loss": total, "contrast": contrast, "naming": naming, "reading": reading}

    modules = {"clip": model, "seen": image_heads, "said": text_heads}
    is_finished = train_modules("clip", modules, compute_loss, TRAINING_PLAN, context)
    processor = CLIPProcessor(image_processor=build_image_processor(), tokenizer=tokenizer)
    save_clip(model, context.output_dir / "clip", processor)
    return is_finished


def save_clip(model: nn.Module, folder: Path, processor: CLIPProcessor) -> None:
    """Write model (fp16) and processor, as transformers reads them."""
    model.half().save_pretrained(folder)  # type: ignore[operator]
    processor.save_pretrained(folder)
