"""A1111's names of settings: what its text calls a request's fields, and what relatives call them.

Knows: keys, and words for values. Does not know: how a text is taken apart (a1111_text.py), read
(a1111.py) or written (infotext.py).
"""

from __future__ import annotations

from studio.core.base import field_meta
from studio.core.generation.request import GenerationRequest

MAX_TEXT_CHARS = 1_000_000  # more is no settings text
EMBEDDING_HASH_KEY = "TI hashes"
LORA_HASH_KEY = "Lora hashes"
HASHES_KEY = "Hashes"
# Fields that the studio counts otherwise than A1111: name=value, as they are here.
OWN_VALUES_KEY = "Studio"
# A1111's words for values of (field, value).
VALUE_LABELS = {
    ("invert_mask", True): "Inpaint not masked",
    ("inpaint_area", "only masked"): "Only masked",
    ("hires_resize", "latent"): "Latent",
    ("hires_resize", "pixel"): "Lanczos",
}
LABEL_VALUES = {label: value for (_, value), label in VALUE_LABELS.items()}
# Keys and fields of plain values.
PLAIN_FIELD_KEYS = {
    "steps": "Steps",
    "guidance": "CFG scale",
    "seed": "Seed",
    "clip_skip": "Clip skip",
    "model": "Model",
    "batch_size": "Batch size",
}
# What is written in a way of its own, or is not written: that of one image says nothing of others.
SPECIAL_FIELDS = {
    *("prompt", "negative_prompt", "loras", "width", "height", "scheduler", "noise_schedule"),
    *("num_images", "hires_upscaler", "seed_resize_width", "seed_resize_height", "styles"),
}
# All others, under A1111's names where it has them; written where they are active and differ from
# the default, some always.
OPTIONAL_FIELD_KEYS = {
    name: str(field_meta(GenerationRequest, name).get("infotext", ""))
    for name in GenerationRequest.model_fields
    if name not in SPECIAL_FIELDS and name not in PLAIN_FIELD_KEYS
}
# A1111's own names where ours are others.
FIELDS_BY_FOREIGN_KEY = {
    "Variation seed": "variation_seed",
    "Variation seed strength": "variation_strength",
    "ENSD": "ensd",
    "Eta": "eta",
    "Eta DDIM": "eta",
    "Sigma churn": "s_churn",
    "Sigma tmin": "s_tmin",
    "Sigma tmax": "s_tmax",
    "Sigma noise": "s_noise",
    "Schedule min sigma": "sigma_min",
    "Schedule max sigma": "sigma_max",
    "Schedule rho": "rho",
    "RNG": "noise_source",
    "Emphasis": "emphasis",
    "Skip Early CFG": "guidance_start",
    "CFG end": "guidance_end",
}
# Other spellings of a key, folded: old versions, Forge, SD.Next, Civitai, Stability Matrix.
_OTHER_SPELLINGS = {
    "cfg": "CFG scale",
    "guidance scale": "CFG scale",
    "sampling steps": "Steps",
    "sampler name": "Sampler",
    "sampling method": "Sampler",
    "scheduler": "Schedule type",
    "schedule": "Schedule type",
    "hires scale": "Hires upscale",
    "hires size": "Hires resize",
    "clip-skip": "Clip skip",
    "resolution": "Size",
    "cfg rescale phi": "CFG rescale",
    "sampler sigma": "Schedule type",
    "eta (ancestral)": "Eta",
}
# Said elsewhere or of no use for another picture.
IGNORED_KEYS = (
    *("Model hash", "VAE hash", "Batch pos", "RNG", "Lora hashes", "TI hashes", "Hashes"),
    *("Init image hash", "Refiner hash", OWN_VALUES_KEY),
    *("Civitai resources", "Civitai metadata", "Created Date", "Generator", "User", "Version"),
    # SD.Next: of its own inner parts; Fooocus: what its steps and its prompt say already.
    *("App", "Operations", "Parser", "Pipeline", "Backend"),
    *("Performance", "Raw prompt", "Raw negative prompt"),
)
# Of a setting that is written although it is off, or the same as of the first pass.
_EMPTY_WORDS = frozenset(
    {
        *("", "none", "false", "[]", "use same choices", "use same sampler"),
        *("use same scheduler", "use same checkpoint"),
    }
)
_KNOWN_KEYS = (
    *PLAIN_FIELD_KEYS.values(),
    *filter(None, OPTIONAL_FIELD_KEYS.values()),
    *FIELDS_BY_FOREIGN_KEY,
    *IGNORED_KEYS,
    *("Sampler", "Schedule type", "Size", "Negative prompt", "Prompt", "Negative", "Loras"),
    *("Hires resize", "First pass size", "Seed resize from", "App", EMBEDDING_HASH_KEY),
    *("Lora weights", "Refiner", "Styles"),
)
_KEYS_BY_FOLDED = {**_OTHER_SPELLINGS, **{key.casefold(): key for key in _KNOWN_KEYS}}
# A line of settings holds at least one of them, and a line of a prompt none.
_TELLING_KEYS = {"Steps", "Sampler", "Seed", "CFG scale", "Size", "Model", "Model hash"}


def normalize_key(key: str) -> str:
    """Return A1111's name of a setting in any case and under its relatives' names."""
    stripped = " ".join(key.split())
    return _KEYS_BY_FOLDED.get(stripped.casefold(), stripped)


def is_empty_word(value: str) -> bool:
    """Return whether a setting's value says that there is none."""
    return value.strip().casefold() in _EMPTY_WORDS


def is_telling_key(key: str) -> bool:
    """Return whether a setting of this name stands in no line of a prompt."""
    return normalize_key(key) in _TELLING_KEYS
