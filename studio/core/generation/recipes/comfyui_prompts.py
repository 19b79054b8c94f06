"""The prompts of a ComfyUI graph: from a sampler's conditioning back to the words.

Knows: what nodes do to a conditioning, and how ComfyUI's grammar is said in A1111's. Does not know:
samplers, models.

    Combine     the predictions' mean            a :0.5 AND b :0.5
    Concat      one after the other              a BREAK b
    (a (b:1.2))  there an inner weight replaces the outer, in A1111's grammar it multiplies
    [a]  AND  BREAK   only words there

Source: what comfyanonymous/ComfyUI does with weights (sd1_clip) and conditionings (samplers).
"""

from __future__ import annotations

import re
from typing import Any

from studio.core.generation.recipes.comfyui_graph import Link, Node
from studio.core.generation.recipes.comfyui_nodes import (
    CONDITIONING_PATCHES,
    ENCODER_TEXTS,
    LORA_TAG_ENCODERS,
)
from studio.core.generation.recipes.comfyui_tags import (
    LORA_TAG,
    has_block_weights,
    read_tagged_text,
)
from studio.core.generation.recipes.comfyui_values import MAX_NESTING, GraphValues
from studio.core.generation.recipes.draft import RecipeDraft, get_file_name
from studio.core.generation.recipes.json_text import as_number, as_text

EMPHASIS_FACTOR = 1.1
_OPERATOR_WORDS = re.compile(r"\b(AND|BREAK)\b")
_BARE_BRACKETS = re.compile(r"(?<!\\)([\[\]])")
# Bounded: with open ends a long line of digits takes hours.
_COLON_NUMBER = re.compile(r":\s{0,9}([+-]?(?:\d{1,9}(?:\.\d{0,20})?|\.\d{1,20}))\s{0,9}$")
_WILDCARD = re.compile(r"__[^\s_]|\{")
_PLAIN_ENCODERS = ("CLIPTextEncode", "CLIPTextEncodeSDXL")
_MIN_SDXL_SIDE_PX = 640  # smaller ones are of SD 1.x
# Of shiimizu's smZ CLIPTextEncode: they read schedules, AND and BREAK too.
_A1111_PARSERS = ("A1111", "full")
_LOW_WEIGHT = re.compile(r":\s*(?:-|0?\.\d|0\s*\))")


def adapt_words(text: str) -> str:
    """Return a prompt of ComfyUI's grammar in A1111's, so that it means the same.

    Signs that are only words there are escaped or written small (CLIP knows no capitals).
    """
    text = _BARE_BRACKETS.sub(r"\\\1", text)
    text = _OPERATOR_WORDS.sub(lambda word: word[0].lower(), text)
    return _flatten_weights(text) if _has_inner_weight(text) else text


def _has_inner_weight(text: str) -> bool:
    depth = 0
    for place, character in enumerate(text):
        if place and text[place - 1] == "\\":
            continue
        if character == "(":
            depth += 1
        elif character == ")":
            if depth > 1 and _COLON_NUMBER.search(text[max(0, place - 24) : place]):
                return True
            depth = max(0, depth - 1)
    return False


def _flatten_weights(text: str) -> str:
    """Return a prompt without brackets in brackets: each stretch with the weight it comes to.

    A bracket's own number holds for what is in it, and replaces what the outer ones come to.
    """
    parts = re.split(r"(?<!\\)([()])", text)
    closings = _match_brackets(parts)
    weights, pieces = [1.0], []
    for place, part in enumerate(parts):
        if part == "(" and place in closings:
            number = _COLON_NUMBER.search(parts[closings[place] - 1])
            weights.append(float(number[1]) if number else weights[-1] * EMPHASIS_FACTOR)
        elif part == ")" and len(weights) > 1:
            weights.pop()
        elif part in ("(", ")"):
            pieces.append(f"\\{part}")
        elif part:
            is_last = parts[place + 1 : place + 2] == [")"] and len(weights) > 1
            words = _COLON_NUMBER.sub("", part) if is_last else part
            weight = weights[-1]
            pieces.append(words if weight == 1 or not words else f"({words}:{weight:.6g})")
    return "".join(pieces)


def _match_brackets(parts: list[str]) -> dict[int, int]:
    """Return the place of the closing bracket of each opening one that has one."""
    closings: dict[int, int] = {}
    open_places: list[int] = []
    for place, part in enumerate(parts):
        if part == "(":
            open_places.append(place)
        elif part == ")" and open_places:
            closings[open_places.pop()] = place
    return closings


class PromptReader:
    """Reads both prompts of a sampler; `clip` is the text encoder that the words went to."""

    def __init__(self, values: GraphValues, draft: RecipeDraft) -> None:
        """Take a graph and the recipe that notes go to."""
        self._values = values
        self._draft = draft
        self.clip: Any = None
        self.guidance: float | None = None  # Flux's, which the model is told
        self._emphasis = "compel"  # ComfyUI's own way is compel's, for weights above 1
        self._words: dict[tuple[Link, str], str | None] = {}

    def take_prompts(self, positive: Any, negative: Any) -> None:
        """Read both prompts into the recipe; one that cannot be read stays as it is."""
        for name, link in (("prompt", positive), ("negative_prompt", negative)):
            if link is None:
                continue
            words = self.read_words(link, name, 0)
            if words is None:
                title = name.replace("_", " ").capitalize()
                self._draft.note(f"{title}: its text is not in the file; left unchanged.")
                continue
            self._draft.take_prompt(name, words)
            self._note_emphasis(words)
            if name == "negative_prompt":
                self._note_empty(link, words)

    def _note_empty(self, link: Any, words: str) -> None:
        """Say what an empty negative prompt is with SDXL: there it is read, here it is zeros."""
        node = self._values.get_node(link)
        sides = [self._draft.values.get(name) for name in ("width", "height")]
        is_large = all(isinstance(side, int) and side >= _MIN_SDXL_SIDE_PX for side in sides)
        is_asked = self._draft.values.get("guidance") != 1 and self.guidance is None
        if node and node.kind in _PLAIN_ENCODERS and not words and is_large and is_asked:
            self._draft.note(
                "Its empty negative prompt was encoded as text; with SDXL it is zeros here: the "
                "image will differ slightly."
            )

    def _note_emphasis(self, words: str) -> None:
        """Say how weights are meant: mostly as steps away from an empty prompt, as compel does."""
        self._draft.take("prompt_syntax", "A1111")
        if "(" not in words:
            return
        self._draft.take("emphasis", self._emphasis)
        if self._emphasis == "compel" and _LOW_WEIGHT.search(words):
            self._draft.note("Weights below 1 will differ slightly from ComfyUI's.")

    def read_words(self, link: Any, name: str, depth: int) -> str | None:
        """Return the words of a conditioning; None where they are not in the graph.

        Each is read once, whatever joins it how often.
        """
        if isinstance(link, str):  # a loader that takes the prompts themselves
            return adapt_words(link)
        if not isinstance(link, Link):
            return None
        if (link, name) in self._words:
            return self._words[link, name]
        node = self._values.get_node(link)
        if node is None or depth > MAX_NESTING:
            return None
        words = as_text(self._read_node(node, link, name, depth))
        self._values.spend_on_text(words or "")
        self._words[link, name] = words
        return words

    def _read_node(self, node: Node, link: Link, name: str, depth: int) -> str | None:
        if node.kind == "ConditioningZeroOut":
            self._note_zeros(name)
            return ""
        if node.kind in LORA_TAG_ENCODERS:
            self.clip = self.clip or Link(node.node_id, 1)
            return self._read_tagged(node)
        if node.kind in ("ConditioningCombine", "ConditioningConcat", "ConditioningAverage"):
            return self._read_joined(node, name, depth)
        if self.clip is None and "clip" in node.inputs:
            self.clip = node.inputs["clip"]
        if node.kind in ENCODER_TEXTS:
            return self._read_encoder(node)
        key = self._find_passed_input(node, link.slot, name)
        if key:
            self._note_patch(node)
            return self.read_words(node.inputs[key], name, depth + 1)
        if self.clip is None and "ckpt_name" in node.inputs:
            self.clip = link
        text = self._values.read_text(node.inputs.get(name.removesuffix("_prompt")))
        text = self._values.read_text(link) if text is None else text
        if text is None:
            return None
        if self._read_interpretation(node) in _A1111_PARSERS:
            return text
        return adapt_words(text)

    def _read_tagged(self, node: Node) -> str | None:
        """Return the words of a node that loads the LoRAs of their tags, and knows BREAK."""
        text = read_tagged_text(self._values, node)
        if text is None:
            return None
        if not self._values.read_text(node.inputs.get("populated_text")) and _WILDCARD.search(text):
            self._draft.note("Its wildcards were filled in there; the result is not in the file.")
        if has_block_weights(text):
            self._draft.note("LoRA block weights are not available here: the image will differ.")
        parts = LORA_TAG.sub("", text).split("BREAK")
        return " BREAK ".join(adapt_words(part).strip() for part in parts)

    def _note_zeros(self, name: str) -> None:
        """Say that a prompt was zeros, where it is asked."""
        if name == "prompt":
            self._draft.note("Its prompt was zeros instead of text: the image will differ.")
        elif self._draft.values.get("guidance") != 1:
            self._draft.note(
                "Its negative prompt was zeros, like an empty one here with SDXL; with other "
                "models the image will differ."
            )

    def _read_interpretation(self, node: Node) -> str:
        """Take how an encoder that can choose weighs words. Return its parser's name, if any."""
        parser, way = (
            self._values.resolve(node.inputs.get(key), key)
            for key in ("parser", "weight_interpretation")
        )
        if parser in _A1111_PARSERS or way == "A1111":
            is_normalized = node.inputs.get("mean_normalization") is not False
            self._emphasis = "Original" if is_normalized else "No norm"
        return parser if isinstance(parser, str) else ""

    def _find_passed_input(self, node: Node, slot: int, name: str) -> str:
        """Return the input through which a conditioning comes into a node that changes it."""
        side = "negative" if name == "negative_prompt" else "positive"
        links = {key for key, value in node.inputs.items() if isinstance(value, Link)}
        if {"positive", "negative"} <= links:
            side = ("positive", "negative")[slot] if slot < 2 else side
        for key in ("conditioning", side, "cond", "CONDITIONING"):
            if key in links:
                return key
        return ""

    def _note_patch(self, node: Node) -> None:
        if node.kind == "FluxGuidance":
            self.guidance = as_number(self._values.resolve(node.inputs.get("guidance"), "guidance"))
        elif "ControlNet" in node.kind:
            loader = self._values.get_node(node.inputs.get("control_net"))
            path = as_text(loader.inputs.get("control_net_name")) if loader else None
            words = f" {get_file_name(path)!r:.80}" if path else ""
            self._draft.note(f"ControlNet{words} is not available here: the image will differ.")
        elif node.kind in CONDITIONING_PATCHES:
            self._draft.note(
                f"Not available here: {CONDITIONING_PATCHES[node.kind]}; the image will differ."
            )
        elif node.kind != "InpaintModelConditioning":
            self._draft.note(f"Node {node.kind!r:.80} changes the prompt in a way unknown here.")

    def _read_encoder(self, node: Node) -> str | None:
        texts = []
        for key in ENCODER_TEXTS[node.kind]:
            if node.inputs.get(key) is not None:
                texts.append(self._values.read_text(node.inputs[key]))
        if not texts or None in texts:
            return None
        words = list(dict.fromkeys(adapt_words(text) for text in texts if text))
        if len(words) > 1:
            self._draft.note(
                "Its text encoders read different prompts; here all of them read both."
            )
        return ", ".join(words)

    def _read_joined(self, node: Node, name: str, depth: int) -> str | None:
        keys = ("conditioning_to", "conditioning_from")
        if node.kind == "ConditioningCombine":
            keys = ("conditioning_1", "conditioning_2")
        words = [self.read_words(node.inputs.get(key), name, depth + 1) for key in keys]
        first, second = words
        if first is None or second is None:
            return self._join_plainly(node, first, second)
        if node.kind == "ConditioningConcat" and " AND " not in first + second:
            return f"{first} BREAK {second}"
        if node.kind == "ConditioningCombine" and name == "prompt":
            return _weigh_branches(first, second)
        return self._join_plainly(node, first, second)

    def _join_plainly(self, node: Node, first: str | None, second: str | None) -> str | None:
        """Return the words of both where the grammar cannot say how they were joined."""
        if first is None or second is None:
            self._draft.note("A part of a prompt is not in the file.")
            return None
        if node.kind == "ConditioningAverage":
            key = "conditioning_to_strength"
            share = as_number(self._values.resolve(node.inputs.get(key), key))
            kept = first if (1.0 if share is None else share) >= 0.5 else second
            other = second if kept is first else first
            self._draft.note(f"Two prompts were mixed: {other!r:.80} is left out.")
            return kept
        self._draft.note(
            "Two prompts were joined by a node; here they are one: the image will differ."
        )
        return ", ".join(filter(None, (first, second)))


def _weigh_branches(*prompts: str) -> str:
    """Return prompts as one whose predictions are averaged: all count alike."""
    branches = []
    for prompt in prompts:
        parts = prompt.split(" AND ")
        branches += [part.rpartition(" :")[0] for part in parts] if len(parts) > 1 else parts
    return " AND ".join(f"{branch} :{1 / len(branches):.6g}" for branch in branches)
