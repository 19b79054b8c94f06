"""Makes the pocket's CLIP tokenizer: byte-level BPE, 77 tokens, takes any text.

Knows: CLIP's way to split and its two special tokens; merges are learned from captions.
Does not know: images, models.
"""

import json
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from studio.pocket.captions import sample_caption
from studio.pocket.data import list_scenes
from studio.pocket.train_loop import RunContext

MAX_TOKENS = 77
VOCABULARY_SIZE = 1500
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
WORD_END = "</w>"
START_TOKEN = "<|startoftext|>"
END_TOKEN = "<|endoftext|>"


def learn_bpe(texts: list[str]) -> tuple[dict[str, int], list[str]]:
    """Learn byte-level BPE; return the vocabulary (token → id) and the merges ("a b").

    Every byte has a token, alone and at a word's end, so that any text can be encoded.
    """
    # 1. Split as CLIP does
    tokenizer = Tokenizer(
        models.BPE(
            continuing_subword_prefix="",
            end_of_word_suffix=WORD_END,
            unk_token=END_TOKEN,
            fuse_unk=False,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    # 2. Learn the merges
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        initial_alphabet=letters,
        end_of_word_suffix=WORD_END,
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    # 3. Number the tokens: bytes first, special tokens last, as in CLIP's own vocabulary
    learned_tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    final_letters = [letter + WORD_END for letter in letters]
    tokens = [*letters, *final_letters, *learned_tokens, START_TOKEN, END_TOKEN]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    # Versions of tokenizers write a merge as a pair or as one string.
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    return vocabulary, merges


def load_tokenizer(output_dir: Path) -> CLIPTokenizer:
    """Load the finished tokenizer."""
    return CLIPTokenizer.from_pretrained(output_dir / "tokenizer")


def train_tokenizer(context: RunContext) -> bool:
    """Learn the merges and write output/tokenizer; takes seconds."""
    rng = np.random.default_rng(3)
    vocabulary, merges = learn_bpe([sample_caption(scene, rng) for scene in list_scenes("train")])
    folder = context.output_dir / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(
        folder, model_max_length=MAX_TOKENS, pad_token=END_TOKEN
    )
    tokenizer.save_pretrained(folder)
    return True
