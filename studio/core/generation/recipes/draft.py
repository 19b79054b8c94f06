"""A recipe as it is read, value by value: what fits a field is taken, all else is noted.

Knows: a request's fields with their bounds, how a file's name and LoRAs are written down in a
recipe. Does not know: any program's spellings but those of samplers (sampler_names.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from studio.core.base import validate
from studio.core.generation.fields import RequestFields
from studio.core.generation.lora_use import MAX_LORA_WEIGHT, MAX_LORAS, LoraUse
from studio.core.generation.recipes.clip_skip import ClipSkip, ClipSkipCounting
from studio.core.generation.recipes.file_names import (
    clean_file_name,
    get_civitai_kind,
    hide_paths,
)
from studio.core.generation.recipes.json_text import as_number, as_text, as_whole_number
from studio.core.generation.recipes.lora_tags import ForeignTag, split_tags
from studio.core.generation.recipes.note_words import list_names, shorten
from studio.core.generation.recipes.recipe import FileKind, FileReference, Recipe
from studio.core.generation.recipes.sampler_names import read_sampler
from studio.core.generation.recipes.seeds import read_seed
from studio.errors import InvalidSpec, quote

MAX_NOTES = 40
MAX_NAME_CHARS = 200
MAX_SHOWN_CHARS = 20_000
MAX_LINE_CHARS = 2_000
_DIGEST = re.compile(r"(?:0x|sha256:)?([0-9a-fA-F]{8,64})")
# Civitai's names of files: by the numbers of a model and its version.
_CIVITAI_URN = re.compile(r"urn:air:[\w.-]{1,40}:(\w{1,40}):civitai:\d{1,12}@(\d{1,12})\S{0,40}")
_NO_FILE_WORDS = frozenset({"", "none", "automatic", "default", "undefined", "baked vae"})


def get_file_name(path: str) -> str:
    """Return a weights file's name without folders and ending; empty for a word for none."""
    name = clean_file_name(path)
    return "" if name.casefold() in _NO_FILE_WORDS else name


class RecipeDraft:
    """Collects a recipe."""

    def __init__(self, program: str, text: str = "") -> None:
        """Begin a recipe of a program; `text` is shown as the file's own words."""
        self.recipe = Recipe(program, text=hide_paths(text[:MAX_SHOWN_CHARS]))

    @property
    def values(self) -> dict[str, Any]:
        """The request's fields that were taken."""
        return self.recipe.values

    def note(self, sentence: str) -> None:
        """Note what is not taken over, or will differ; each sentence once."""
        notes = self.recipe.notes
        if sentence not in notes and len(notes) < MAX_NOTES:
            notes.append(sentence)

    def show(self, settings: Mapping[str, Any]) -> None:
        """Give the file's own words: its settings, one a line."""
        lines = (f"{key:.60}: {value}"[:MAX_LINE_CHARS] for key, value in settings.items())
        self.recipe.text = hide_paths("\n".join(lines)[:MAX_SHOWN_CHARS])

    def note_unused(self, names: Iterable[Any]) -> None:
        """Note the names of settings that nothing here corresponds to."""
        words = list_names(sorted({str(name) for name in names}))
        if words:
            self.note(f"Not loaded: {words}.")

    def take(self, name: str, value: Any) -> bool:
        """Take a value for a field if it fits; note it otherwise. Return whether it was taken."""
        if value is None:
            return False
        try:
            checked = validate(RequestFields, {name: value})
        except InvalidSpec as error:
            self.note(f"Left unchanged: {shorten(error.faults[0])}")
            return False
        self.values[name] = getattr(checked, name)
        return True

    def take_number(self, name: str, value: Any) -> None:
        """Take a number, also one that is written as text."""
        is_whole = RequestFields.model_fields[name].annotation is int
        number = as_whole_number(value) if is_whole else as_number(value)
        if number is None and value is not None:
            title = RequestFields.model_fields[name].title
            self.note(f"{title}: {quote(value)} is not a number; left unchanged.")
        self.take(name, number)

    def take_prompt(self, name: str, text: Any, *, has_lora_tags: bool = False) -> None:
        """Take a prompt as the file has it.

        Args:
            name: "prompt" or "negative_prompt".
            text: The words; anything but text leaves the prompt as it is.
            has_lora_tags: Whether the program reads `<lora:x:1>`; elsewhere it is only words there,
                and left out. What is odd about a tag is noted, and costs no other word.
        """
        words = as_text(text)
        if words is None:
            if isinstance(text, str):
                title = RequestFields.model_fields[name].title
                self.note(
                    f"{title}: {len(text):,} characters are too long for a prompt; left unchanged."
                )
            return
        words = "".join(
            character
            for character in words
            if character not in "\0\ufeff" and not _is_lone(character)
        )
        stripped, tags, num_unread = split_tags(words)
        if self.take(name, stripped):
            self._take_tags(tags, num_unread, has_lora_tags and name == "prompt")

    def _take_tags(self, tags: list[ForeignTag], num_unread: int, are_read: bool) -> None:
        """Take the tags of a prompt, and note those that come to something else here."""
        hypernetworks = [tag.name or tag.text for tag in tags if not tag.is_lora]
        if hypernetworks:
            names = list_names(hypernetworks)
            self.note(
                f"Hypernetworks are not available here, left out: {names}; the image will look "
                "different."
            )
        loras = [tag for tag in tags if tag.is_lora]
        if loras and not are_read:
            verb, pronoun = ("is", "it") if len(loras) == 1 else ("are", "them")
            names = list_names(tag.text for tag in loras)
            reason = f"{self.recipe.program} does not read {pronoun} there"
            self.note(f"{names} {verb} left out: {reason}.")
        nameless = [tag.text for tag in loras if are_read and not tag.name]
        if nameless:
            self.note(f"Left out because it names no LoRA: {list_names(nameless)}.")
        if num_unread:
            self.note(f"{num_unread:,} more tags in the prompt are left out.")
        for tag in loras if are_read else ():
            if tag.name and self._add_use(tag.name, tag.unet, tag.text_encoder):
                self._note_unread_parts(tag)

    def _note_unread_parts(self, tag: ForeignTag) -> None:
        self.add_file("lora", tag.name, "", (tag.unet, tag.text_encoder))
        if tag.unread:
            self.note(
                f"LoRA {quote(tag.name)}: {list_names(tag.unread)} has no meaning here; the image "
                "will look different."
            )

    def take_seed(self, value: Any, *, is_cpu_noise: bool = True) -> None:
        """Take a seed; of one that is too large here, what torch takes of it on the CPU.

        Args:
            value: The seed.
            is_cpu_noise: Whether the program draws its noise on the CPU, whose generator takes the
                last 32 bits of a seed alone.
        """
        if value is None:
            return
        seed, note = read_seed(value, is_cpu_noise)
        if note:
            self.note(note)
        self.take("seed", seed)
        if is_cpu_noise:
            self.take("noise_source", "CPU")

    def take_clip_skip(self, value: Any, counting: ClipSkipCounting = "ComfyUI") -> None:
        """Take a Clip skip that counts from the text encoder's last layer, also one below 0.

        What it is here depends on the model, which the library knows: it is translated there. Of a
        program that counts as the studio does, `take` the value.

        Args:
            value: 2, or -2 as ComfyUI writes it.
            counting: What the program makes of the number with SDXL.
        """
        number = as_whole_number(value)
        if number is None:
            self.take_number("clip_skip", value)
            return
        number = abs(number) or 1
        if self.take("clip_skip", number):
            self.recipe.clip_skip = ClipSkip(number, counting)

    def take_size(self, width: Any, height: Any) -> None:
        """Take width and height, each cut to a multiple of 8 as a latent is."""
        for name, value in (("width", width), ("height", height)):
            side = as_whole_number(value)
            if side is None:
                continue
            if side % 8 and side > 8:
                self.note(f"{name.title()}: {quote(side)} is rounded to {side // 8 * 8}.")
                side = side // 8 * 8
            self.take(name, side)

    def add_model(self, path: Any, digest: Any = "") -> None:
        """Name the checkpoint."""
        name = self.add_file("model", path, digest)
        if name:
            self.take("model", name)

    def add_vae(self, path: Any, digest: Any = "") -> None:
        """Name the autoencoder."""
        name = self.add_file("vae", path, digest)
        if name:
            self.take("vae", name)

    def add_file(
        self,
        kind: FileKind,
        path: Any,
        digest: Any = "",
        weights: tuple[float, float] = (1.0, 1.0),
    ) -> str:
        """Name a file of weights. Return its name; empty where there is none."""
        text = as_text(path)
        if text and self._add_civitai_file(text, weights):
            return ""
        name = get_file_name(text)[:MAX_NAME_CHARS] if text else ""
        match = _DIGEST.fullmatch(digest.strip()) if isinstance(digest, str) else None
        short_digest = match[1].lower() if match else ""
        if not name and not short_digest:
            return ""
        reference = FileReference(kind, name, short_digest, weights)
        if reference not in self.recipe.files:
            self.recipe.files.append(reference)
        return name

    def _add_civitai_file(self, text: str, weights: tuple[float, float] = (1.0, 1.0)) -> bool:
        """Name a file by Civitai's number of it. Return whether that is how it is named."""
        urn = _CIVITAI_URN.fullmatch(text.strip())
        if not urn:
            return False
        kind = get_civitai_kind(urn[1])
        if kind:
            self.recipe.files.append(FileReference(kind, "", "", weights, urn[2]))
        else:
            self.note(f"A {urn[1]} from Civitai (version {urn[2]}) is not here.")
        return True

    def add_lora(
        self, path: Any, unet: Any = 1.0, text_encoder: Any = None, digest: Any = ""
    ) -> None:
        """Name a LoRA with its weights; one that is there twice counts with their sum.

        Args:
            path: Its file, as the program writes it.
            unet: Its weight in the picture.
            text_encoder: Its weight in the reading of the prompt; None is the same.
            digest: The beginning of a hash of the file.
        """
        text = as_text(path)
        weight = as_number(unet)
        encoder_weight = weight if text_encoder is None else as_number(text_encoder)
        weights = (weight or 0.0, encoder_weight or 0.0)
        if text and self._add_civitai_file(text, weights):
            return
        name = get_file_name(text) if text else ""
        if not name or weight is None or encoder_weight is None:
            if name:
                self.note(f"LoRA {quote(name)}: its weight {quote(unet)} is not a number.")
            return
        if self._add_use(name, weight, encoder_weight):
            self.add_file("lora", name, digest, (weight, encoder_weight))

    def _add_use(self, name: str, unet: float, text_encoder: float) -> bool:
        """Take a LoRA under its name. Return whether it counts."""
        if not unet and not text_encoder:
            return False
        uses: list[dict[str, Any]] = self.values.get("loras", [])
        use = next((use for use in uses if use["name"] == name), None)
        if use is None and len(uses) >= MAX_LORAS:
            self.note(f"At most {MAX_LORAS} LoRAs are used: the others are left out.")
            return False
        if use is None:
            use = {"name": name, "unet": 0.0, "text_encoder": 0.0}
            try:
                validate(LoraUse, use)
            except InvalidSpec as error:
                self.note(f"LoRA {quote(name)} is left out: {shorten(error.faults[0])}")
                return False
            self.values["loras"] = [*uses, use]
        use["unet"] = self._bound_weight(name, use["unet"] + unet)
        use["text_encoder"] = self._bound_weight(name, use["text_encoder"] + text_encoder)
        return True

    def _bound_weight(self, name: str, weight: float) -> float:
        bounded = max(-MAX_LORA_WEIGHT, min(MAX_LORA_WEIGHT, weight))
        if bounded != weight:
            self.note(f"LoRA {quote(name)}: its weight {weight:g} is limited to {bounded:g} here.")
        return bounded

    def take_sampler(self, sampler: Any, schedule: Any = "") -> None:
        """Take a sampler and a noise schedule under any program's names; note what is not here."""
        reading = read_sampler(as_text(sampler) or "", as_text(schedule) or "")
        if reading.scheduler:
            self.values["scheduler"] = reading.scheduler
        if reading.noise_schedule:
            self.values["noise_schedule"] = reading.noise_schedule
        for sentence in reading.notes:
            self.note(sentence)

    def take_named(self, data: Mapping[str, Any], keys: Mapping[str, str]) -> None:
        """Take numbers by a table: the program's key, the field."""
        for key, name in keys.items():
            if key in data:
                self.take_number(name, data[key])


def _is_lone(character: str) -> bool:
    return 0xD800 <= ord(character) <= 0xDFFF  # half of a pair: no text
