"""Makes the pocket's captioner: a GIT model that transformers' auto classes load.

Knows: its size and its loss; its image encoder starts as the vision tower of the pocket's CLIP.
Does not know: demo concepts (it calls them by their class).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, GitConfig, GitForCausalLM, GitProcessor

from studio.pocket.captions import SIDE_PHRASES, format_full_caption, get_size_word
from studio.pocket.clip import VISION_CONFIG, build_image_processor
from studio.pocket.data import list_scenes, load_images, to_tensor
from studio.pocket.tokenizer import load_tokenizer
from studio.pocket.train_loop import RunContext, TrainingPlan, train_modules
from studio.pocket.world import Scene

TRAINING_PLAN = TrainingPlan(
    steps=4_000, learning_rate=6e-4, warmup_steps=100, weight_decay=0.02, ema_decay=0.997, seed=21
)
BATCH_SIZE = 32
TEXT_CONFIG: dict[str, Any] = {
    "hidden_size": 144,
    "intermediate_size": 432,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 77,
}


def format_target_caption(scene: Scene) -> str:
    """Return the caption that is learned for a scene.

    It names all four attributes, the side where the thing stands, and its size where that is plain.
    """
    caption = format_full_caption(scene)
    if size := get_size_word(scene):
        opening, noun_and_place = caption.split(" of ", 1)
        _, bare_noun_and_place = noun_and_place.split(" ", 1)
        caption = f"{opening} of a {size} {bare_noun_and_place}"
    return f"{caption} {SIDE_PHRASES[scene.side]}"


def build_captioner(
    vocab_size: int, bos_token_id: int, eos_token_id: int, clip: CLIPModel | None = None
) -> GitForCausalLM:
    """Return an untrained captioner; `clip` gives it a trained vision tower."""
    torch.manual_seed(6)
    config = GitConfig(
        vision_config=VISION_CONFIG,
        **TEXT_CONFIG,
        vocab_size=vocab_size,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = GitForCausalLM(config)
    if clip is not None:
        model.git.image_encoder.vision_model.load_state_dict(clip.vision_model.state_dict())
    return model


def train_captioner(context: RunContext) -> bool:
    """Train the captioner and write output/captioner; return whether it is finished."""
    tokenizer = load_tokenizer(context.output_dir)
    drawings = load_images("train", context.cache_dir, context.num_workers)
    scenes = list_scenes("train")
    clip = CLIPModel.from_pretrained(context.output_dir / "clip", dtype=torch.float32)
    model = build_captioner(
        len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, clip
    ).to(context.device)

    def compute_loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        indices = np.sort(rng.choice(len(drawings), BATCH_SIZE, replace=False))
        texts = [format_target_caption(scenes[k]) for k in indices]
        tokens = tokenizer(texts, padding=True, return_tensors="pt").to(context.device)
        logits = model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            pixel_values=to_tensor(drawings[indices], context.device),
        ).logits
        # The logits of the image's own positions come first.
        text_logits = logits[:, -tokens.input_ids.shape[1] :]
        # The first end token is learned, the padding behind it is not.
        mask = tokens.attention_mask[:, 1:].bool()
        targets = tokens.input_ids[:, 1:][mask]
        return {"loss": functional.cross_entropy(text_logits[:, :-1][mask], targets)}

    is_finished = train_modules(
        "captioner", {"captioner": model}, compute_loss, TRAINING_PLAN, context
    )
    model.generation_config.max_new_tokens = 40
    folder = context.output_dir / "captioner"
    model.half().save_pretrained(folder)
    GitProcessor(build_image_processor(), tokenizer).save_pretrained(folder)
    return is_finished
