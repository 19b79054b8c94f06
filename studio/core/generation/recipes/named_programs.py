"""Programs that write no settings that could be used here: they are named, and their prompt taken.

Knows: the marks by which their images are told. Does not know: programs that write settings.

Only what names a program counts, and only its whole name, maybe with a version: somebody may be
called Gemini, sign as Max.Ai or credit a Mr Grok.

Sources: documentation of Midjourney's downloads (Description, "Job ID"); the IPTC's digital source
types; Google's "Made with Google AI"; the C2PA's claim generators. Facts, no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe, RecipeSource

FieldKind = Literal["program", "credit", "type"]
MAX_XMP_CHARS = 1_000_000
MAX_MAKER_CHARS = 300
MAX_DESCRIPTION_CHARS = 20_000
# Texts that name a program; authors and artists are people.
_PROGRAM_KEYS = ("Software", "Generator")
# Cameras and people are named here too, so only what no camera or person is called counts.
_CREDIT_KEYS = ("Credit", "Source", "Make", "Model")
_IPTC_FIELDS: tuple[tuple[str, FieldKind], ...] = (
    ("2:65", "program"),
    ("2:110", "credit"),
    ("2:115", "credit"),
)
_XMP_KINDS: dict[str, FieldKind] = {
    "creatortool": "program",
    "softwareagent": "program",
    "claim_generator": "program",
    "generator": "program",
    "credit": "credit",
    "digitalsourcetype": "type",
}
_XMP_FIELDS = re.compile(
    r"(?<![A-Za-z])(CreatorTool|softwareAgent|claim_generator|Generator|Credit|DigitalSourceType)\b"
    r"[^<>\"']{0,20}[\"'>]([^<>\"']{1,300})",
    re.IGNORECASE,
)
# In order: what a field that names a program says, and what a credit says; all of it.
_MARKS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Midjourney", ("midjourney",), ("midjourney",)),
    (
        "ChatGPT (DALL·E)",
        (
            *("chatgpt", "openai chatgpt", "openai", "openai-api", "dall-e", "dall·e", "dalle"),
            *("openai dall-e", "openai dall·e", "gpt-4o", "gpt-image", "sora"),
        ),
        ("openai", "chatgpt", "made with openai", "made with chatgpt"),
    ),
    ("Adobe Firefly", ("firefly", "adobe firefly"), ("adobe firefly",)),
    (
        "Google's Gemini or Imagen",
        ("gemini", "google gemini", "imagen", "google imagen", "google ai", "made with google ai"),
        ("made with google ai", "edited with google ai", "google ai"),
    ),
    (
        "Microsoft's Bing Image Creator",
        ("bing image creator", "microsoft bing image creator", "microsoft designer"),
        ("bing image creator", "microsoft designer"),
    ),
    ("Ideogram", ("ideogram", "ideogram ai", "ideogram.ai"), ("ideogram ai", "ideogram.ai")),
    ("Leonardo.Ai", ("leonardo.ai", "leonardo ai"), ("leonardo.ai",)),
    (
        "Stability AI",
        ("dreamstudio", "stability.ai", "stability ai"),
        ("dreamstudio", "stability.ai", "stability ai"),
    ),
    ("Grok", ("grok", "xai", "x.ai", "xai grok", "aurora by xai"), ("aurora by xai", "xai grok")),
    ("Recraft", ("recraft", "recraft.ai"), ("recraft.ai",)),
    ("Krea", ("krea", "krea.ai", "krea ai"), ("krea.ai", "krea ai")),
    ("Playground", ("playground ai", "playgroundai"), ("playground ai", "playgroundai")),
    ("NightCafe", ("nightcafe", "nightcafe studio"), ("nightcafe", "nightcafe studio")),
    ("Canva", ("canva magic media",), ("canva magic media",)),
)
_MARKED_AS_AI = "a program that calls it made by AI"
# What separates stands in no version, so that there is one way to read it.
_VERSION = re.compile(r"(?:[\s/_-]+v?\d[a-z0-9.]{0,30}|\s*\([^()]{0,100}\))+$")
_JOB_MARK = "job id:"
_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{20,40}", re.IGNORECASE)
_MIDJOURNEY_FLAG = re.compile(r"\s--([a-z]{1,20})(?=\s|$)")


def recognises_maker(metadata: ImageMetadata) -> bool:
    """Return whether a file says that such a program made it."""
    return bool(_find_maker(metadata))


def _find_maker(metadata: ImageMetadata) -> str:
    """Return the name of the program that a file names; empty where it names none."""
    description = _find_description(metadata)
    if _split_job_id(description) != description:
        return "Midjourney"
    fields = {
        (kind, name)
        for kind, text in _list_fields(metadata)
        for name in _list_spellings(text[:MAX_MAKER_CHARS])
    }
    for name, programs, phrases in _MARKS:
        if any(("program", text) in fields for text in programs):
            return name
        if any(("credit", text) in fields for text in phrases):
            return name
    types = (text.rpartition("/")[2] for kind, text in fields if kind == "type")
    return _MARKED_AS_AI if any(text.endswith("algorithmicmedia") for text in types) else ""


def _list_spellings(text: str) -> tuple[str, str]:
    """Return a text without case, with and without a version at its end."""
    folded = " ".join(text.casefold().split())
    return folded, _VERSION.sub("", folded)


def _list_fields(metadata: ImageMetadata) -> Iterator[tuple[FieldKind, str]]:
    for texts in (metadata.chunks, metadata.exif):
        for key in _PROGRAM_KEYS:
            yield "program", texts.get(key, "")
        for key in _CREDIT_KEYS:
            yield "credit", texts.get(key, "")
    for key, kind in _IPTC_FIELDS:
        yield kind, metadata.iptc.get(key, "")
    for match in _XMP_FIELDS.finditer(metadata.xmp[:MAX_XMP_CHARS]):
        yield _XMP_KINDS[match[1].casefold()], match[2]


def _find_description(metadata: ImageMetadata) -> str:
    texts = (
        metadata.chunks.get("Description", ""),
        metadata.exif.get("ImageDescription", ""),
        metadata.iptc.get("2:120", ""),
    )
    return next((text for text in texts if text), "")[:MAX_DESCRIPTION_CHARS]


def _split_job_id(description: str) -> str:
    """Return what stands before Midjourney's number of a job; all where there is none."""
    start = description.casefold().rfind(_JOB_MARK)
    if start < 0 or not _JOB_ID.fullmatch(description[start + len(_JOB_MARK) :].strip()):
        return description
    return description[:start].rstrip()


def read_maker(metadata: ImageMetadata) -> Recipe:
    """Return who made an image, with its prompt if that is there.

    Raises ValueError where nobody is named.
    """
    maker = _find_maker(metadata)
    if not maker:
        raise ValueError("it does not say who made it.")
    draft = RecipeDraft(maker)
    description = _find_description(metadata)
    draft.recipe.text = description
    if maker == "Midjourney" and description:
        _take_midjourney_prompt(_split_job_id(description), draft)
    subject = maker[0].upper() + maker[1:]
    taken = "; its prompt is used" if "prompt" in draft.values else ""
    draft.note(f"{subject} saves no settings that can be used here{taken}.")
    return draft.recipe


def _take_midjourney_prompt(words: str, draft: RecipeDraft) -> None:
    flags = list(_MIDJOURNEY_FLAG.finditer(words))
    first = flags[0].start() if flags else len(words)
    ends = [flag.start() for flag in flags[1:]] + [len(words)]
    unwanted = [
        words[flag.end() : end].strip()
        for flag, end in zip(flags, ends, strict=True)
        if flag[1] == "no"
    ]
    prompt = words[:first].strip()
    if prompt:
        draft.take_prompt("prompt", prompt)
    if any(unwanted):
        draft.take_prompt("negative_prompt", ", ".join(filter(None, unwanted)))
    if flags:
        draft.note(f"Not loaded: {words[first:].strip()!r:.200}.")


SOURCE = RecipeSource("a program without settings", recognises_maker, read_maker)
