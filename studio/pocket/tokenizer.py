"""Makes the pocket's CLIP tokenizer: byte-level BPE, 77 tokens, takes any text.

Knows: CLIP's way to split and its two special tokens; merges are learned from captions. Does not know: pictures, models.
"""

import json
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from studio.pocket.captions import caption
from studio.pocket.data import scenes
from studio.pocket.train_loop import Place

LENGTH = 77
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
START, END = "<|startoftext|>", "<|endoftext|>"


def learn(texts: list[str]) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of byte-level BPE over the texts; every byte has a token, alone and at a word's end."""
    engine = Tokenizer(
        models.BPE(
            continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END, fuse_unk=False
        )
    )
    engine.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        min_frequency=2,
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    learned = json.loads(engine.to_str())["model"]
    vocabulary: dict[str, int] = {}
    for token in [
        *letters,
        *(letter + "</w>" for letter in letters),
        *sorted(learned["vocab"], key=learned["vocab"].__getitem__),
        START,
        END,
    ]:
        vocabulary.setdefault(token, len(vocabulary))
    return vocabulary, [
        " ".join(merge) if isinstance(merge, list) else merge for merge in learned["merges"]
    ]


def load(output: Path) -> CLIPTokenizer:
    """The finished tokenizer."""
    return CLIPTokenizer.from_pretrained(output / "tokenizer")


def make(place: Place) -> bool:
    """Learn the merges and write output/tokenizer; takes seconds."""
    rng = np.random.default_rng(3)
    vocabulary, merges = learn([caption(scene, rng) for scene in scenes("train")])
    folder = place.output / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH, pad_token=END).save_pretrained(
        folder
    )
    return True
