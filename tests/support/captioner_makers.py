"""What tests of captioners share: toy GIT, BLIP, Florence-2 and CLIP folders of real classes and processors; a small dataset."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import torch
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import (
    BartConfig,
    BartTokenizer,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
)

from studio.pocket.world import Scene, render_scene, sample_held_out, sample_scene

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "photo",
    "of",
    "the",
    "boat",
    "moon",
    "red",
    "lake",
    "cat",
    "by",
]


def scenes(count: int, first: int = 0) -> list[Scene]:
    """Scenes of combinations that no captioner and no CLIP was trained on."""
    chosen = sorted(sample_held_out())
    return [
        sample_scene(95_000_000 + k, chosen[(37 * k) % len(chosen)])
        for k in range(first, first + count)
    ]


def dataset(folder: Path, count: int, first: int = 0) -> list[Scene]:
    """A folder of such pictures without captions."""
    folder.mkdir(parents=True, exist_ok=True)
    made = scenes(count, first)
    for k, scene in enumerate(made):
        (folder / f"{k:03}.png").write_bytes(draw(scene))
    return made


@functools.cache
def draw(scene: Scene) -> bytes:
    """A scene as a file, drawn once: many tests have the same."""
    file = io.BytesIO()
    Image.fromarray(render_scene(scene)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def bert(folder: Path) -> BertTokenizer:
    """The tokenizer that GIT and BLIP come with, of a few words."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "words.txt"
    file.write_text("\n".join(WORDS) + "\n")
    made = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    file.unlink()
    return made


def git(folder: Path) -> Path:
    torch.manual_seed(1)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    model = GitForCausalLM(
        GitConfig(
            vision_config=vision,
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=24,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        )
    )
    _lively(model)
    eyes = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return _saved(folder, model, GitProcessor(eyes, bert(folder)))


def blip(folder: Path) -> Path:
    torch.manual_seed(2)
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {
        **small,
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 16,
        "max_position_embeddings": 24,
        "bos_token_id": 2,
        "pad_token_id": 0,
        "sep_token_id": 3,
        "eos_token_id": 3,
        "projection_dim": 8,
    }
    model = BlipForConditionalGeneration(
        BlipConfig(
            text_config=text,
            vision_config={**small, "image_size": 32, "patch_size": 8},
            projection_dim=8,
            image_text_hidden_size=8,
        )
    )
    _lively(model)
    return _saved(
        folder,
        model,
        BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), bert(folder)),
    )


def florence2(folder: Path) -> Path:
    torch.manual_seed(3)
    letters = {
        token: number
        for number, token in enumerate(
            [
                "<s>",
                "<pad>",
                "</s>",
                "<unk>",
                "<mask>",
                *sorted(pre_tokenizers.ByteLevel.alphabet()),
            ]
        )
    }
    tokenizer = BartTokenizer(
        vocab=letters, merges=[], extra_special_tokens={"image_token": "<image>"}
    )
    vision = {
        "depths": (1, 1),
        "patch_size": (7, 3),
        "patch_stride": (4, 2),
        "patch_padding": (3, 1),
        "patch_prenorm": (False, True),
        "embed_dim": (8, 16),
        "num_heads": (2, 2),
        "num_groups": (2, 2),
        "window_size": 4,
        "projection_dim": 16,
    }
    text = BartConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=128,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    model = Florence2ForConditionalGeneration(
        Florence2Config(
            vision_config=vision,
            text_config=text.to_dict(),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )
    _lively(model)
    eyes = CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    eyes.image_seq_length = 1 + (32 // 8) ** 2
    return _saved(folder, model, Florence2Processor(eyes, tokenizer))


def clip(folder: Path, tokenizer: CLIPTokenizer) -> Path:
    torch.manual_seed(4)
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = CLIPModel(
        CLIPConfig(
            text_config={**small, "vocab_size": len(tokenizer), **ends},
            projection_dim=8,
            vision_config={**small, "image_size": 32, "patch_size": 8},
        )
    )
    eyes = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return _saved(folder, model, CLIPProcessor(eyes, tokenizer))


MAKERS = {"git": git, "blip": blip, "florence2": florence2}


def _lively(model: torch.nn.Module) -> None:
    """Untrained models say one thing for ever; these say another for every picture."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.6)


def _saved(folder: Path, model: torch.nn.Module, reader: object) -> Path:
    model.save_pretrained(folder)  # type: ignore[operator]
    reader.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder
