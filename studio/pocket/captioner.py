"""Makes the pocket's captioner: a GIT model that `AutoModelForImageTextToText` and `AutoProcessor` load.

Knows: its size and its loss; its eyes start as the vision tower of the pocket's CLIP. Does not know: demo concepts (it calls them by their class).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, GitConfig, GitForCausalLM, GitProcessor

from studio.pocket.captions import BIG, SIDES, SMALL, full
from studio.pocket.clip import VISION, processor
from studio.pocket.data import pictures, scenes, to_tensor
from studio.pocket.tokenizer import load
from studio.pocket.train_loop import Place, Plan, train
from studio.pocket.world import Scene

PLAN = Plan(steps=4_000, rate=6e-4, warmup=100, decay=0.02, average=0.997, seed=21)
BATCH = 32
TEXT: dict[str, Any] = {
    "hidden_size": 144,
    "intermediate_size": 432,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 77,
}


def said(scene: Scene) -> str:
    """What the captioner says of a scene: all four attributes, then the side where it stands, and its size where that is plain."""
    plain = full(scene)
    if not BIG > scene.size > SMALL:
        size = "big" if scene.size >= BIG else "small"
        opening, rest = plain.split(" of ", 1)
        plain = f"{opening} of a {size} {rest.split(' ', 1)[1]}"
    return f"{plain} {SIDES[scene.side]}"


def build(vocabulary: int, start: int, end: int, clip: CLIPModel | None = None) -> GitForCausalLM:
    """An untrained captioner, with the eyes of a trained CLIP where one is given."""
    torch.manual_seed(6)
    special: dict[str, Any] = {
        "vocab_size": vocabulary,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    quiet: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = GitForCausalLM(GitConfig(vision_config=VISION, **TEXT, **special, **quiet))
    if clip is not None:
        model.git.image_encoder.vision_model.load_state_dict(clip.vision_model.state_dict())
    return model


def make(place: Place) -> bool:
    """Train the captioner and write output/captioner; True when it is finished."""
    tokenizer, drawn, told = (
        load(place.output),
        pictures("train", place.cache, place.workers),
        scenes("train"),
    )
    clip = CLIPModel.from_pretrained(place.output / "clip", dtype=torch.float32)
    model = build(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, clip).to(
        place.device
    )

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        chosen = np.sort(rng.choice(len(drawn), BATCH, replace=False))
        tokens = tokenizer([said(told[k]) for k in chosen], padding=True, return_tensors="pt").to(
            place.device
        )
        images = to_tensor(drawn[chosen], place.device)
        logits = model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=images
        ).logits
        logits = logits[:, -tokens.input_ids.shape[1] :]
        # the first end token is learned, the padding behind it is not
        kept = tokens.attention_mask[:, 1:].bool()
        error = functional.cross_entropy(logits[:, :-1][kept], tokens.input_ids[:, 1:][kept])
        return {"loss": error}

    done = train("captioner", {"captioner": model}, loss, PLAN, place)
    model.generation_config.max_new_tokens = 40
    model.half().save_pretrained(place.output / "captioner")
    GitProcessor(processor(), tokenizer).save_pretrained(place.output / "captioner")
    return done
