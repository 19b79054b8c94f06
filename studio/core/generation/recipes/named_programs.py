"""Programs that write no settings that could be used here: they are named, and their prompt taken.

Knows: the marks by which their images are told. Does not know: programs that write settings.

Sources: documentation of Midjourney's downloads (Description, "Job ID"); the IPTC's digital source
types; Google's "Made with Google AI"; the C2PA's claim generators. Facts, no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.recipes.recipe import ImageMetadata, Recipe, RecipeSource

MAX_XMP_CHARS = 1_000_000
# Texts that say who made an image, not what it shows.
_MAKER_KEYS = (
    *("Software", "Source", "Artist", "Author", "Make", "Model", "HostComputer", "Generator"),
    *("Credit", "Title", "XPTitle"),
)
_IPTC_MAKER_KEYS = ("2:65", "2:80", "2:110", "2:115")  # program, by-line, credit, source
_XMP_MAKERS = re.compile(
    r"(?:CreatorTool|Credit|softwareAgent|claim_generator|creator|source|DigitalSourceType"
    r"|Generator)\b[^<>\"']{0,20}[\"'>]([^<>\"']{1,300})",
    re.IGNORECASE,
)
# In order: the first that stands in one of those texts.
_MARKS = (
    ("Midjourney", ("midjourney",)),
    ("ChatGPT (DALL·E)", ("chatgpt", "dall-e", "dall·e", "dalle", "openai", "gpt-4o", "gpt-image")),
    ("Adobe Firefly", ("firefly",)),
    ("Google's Gemini or Imagen", ("made with google ai", "google ai", "imagen", "gemini")),
    ("Microsoft's Bing Image Creator", ("bing image creator", "microsoft designer")),
    ("Ideogram", ("ideogram",)),
    ("Leonardo.Ai", ("leonardo.ai", "leonardo ai")),
    ("Stability AI", ("dreamstudio", "stability.ai", "stability ai")),
    ("Grok", ("grok", "x.ai", "aurora by xai")),
    ("Recraft", ("recraft",)),
    ("Krea", ("krea.ai", "krea ai")),
    ("Playground", ("playground ai", "playgroundai")),
    ("NightCafe", ("nightcafe",)),
    ("Canva", ("canva magic media",)),
    ("a program that calls it made by AI", ("algorithmicmedia",)),
)
_JOB_ID = re.compile(r"\s*Job ID:\s*[0-9a-f]{8}-[0-9a-f-]{20,40}\s*$", re.IGNORECASE)
_MIDJOURNEY_FLAG = re.compile(r"\s--(?:[a-z]{1,20})(?:\s|$)")
_UNWANTED = re.compile(r"\s--no\s+(.{1,2000}?)(?=\s--[a-z]|$)", re.DOTALL)


def recognises_maker(metadata: ImageMetadata) -> bool:
    """Return whether a file says that such a program made it."""
    return bool(_find_maker(metadata))


def _find_maker(metadata: ImageMetadata) -> str:
    """Return the name of the program that a file names; empty where it names none."""
    if _JOB_ID.search(_find_description(metadata)):
        return "Midjourney"
    texts = [text.casefold() for text in _list_makers(metadata)]
    for name, marks in _MARKS:
        if any(mark in text for mark in marks for text in texts):
            return name
    return ""


def _list_makers(metadata: ImageMetadata) -> Iterator[str]:
    for texts in (metadata.chunks, metadata.exif):
        for key in _MAKER_KEYS:
            yield texts.get(key, "")[:500]
    for key in _IPTC_MAKER_KEYS:
        yield metadata.iptc.get(key, "")[:500]
    for match in _XMP_MAKERS.finditer(metadata.xmp[:MAX_XMP_CHARS]):
        yield match[1]


def _find_description(metadata: ImageMetadata) -> str:
    texts = (
        metadata.chunks.get("Description", ""),
        metadata.exif.get("ImageDescription", ""),
        metadata.iptc.get("2:120", ""),
    )
    return next((text for text in texts if text), "")[:20_000]


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
        words = _JOB_ID.sub("", description)
        unwanted = ", ".join(match[1].strip() for match in _UNWANTED.finditer(words))
        flags = _MIDJOURNEY_FLAG.search(words)
        prompt = words[: flags.start()] if flags else words
        if prompt.strip():
            draft.take_prompt("prompt", prompt.strip())
        if unwanted:
            draft.take_prompt("negative_prompt", unwanted)
        if flags:
            draft.note(f"Not taken over: {words[flags.start() :].strip()!r:.200}.")
    subject = maker[0].upper() + maker[1:]
    taken = "; its prompt is taken" if "prompt" in draft.values else ""
    draft.note(f"{subject} writes no settings that can be used here{taken}.")
    return draft.recipe


SOURCE = RecipeSource("a program without settings", recognises_maker, read_maker)
