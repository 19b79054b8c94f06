"""The flags of all commands, most of them derived from the fields of specs.

Knows: argparse, which flags a command has, which module does it. Does not know: what the commands
do; it imports none of them, so that `studio --help` answers at once.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from studio import __version__
from studio.core.base import field_schemas, former_names
from studio.core.captions.spec import CaptionSpec
from studio.core.generation.export_spec import ExportSpec
from studio.core.generation.request import GenerationRequest
from studio.core.generation.upscaling import UpscaleSpec
from studio.settings import Settings

GUEST_FLAGS = tuple(
    name for name in Settings.model_fields if name.startswith(("guest_", "all_guests_"))
)
CARRY_FLAGS = ("pictures_carry", "mark_ai", "comfyui_graphs")
HOME_FLAGS = ("home", "device", "precision", "keep_free", "memory", "preview_every", *CARRY_FLAGS)


def add_field_flags(
    parser: argparse.ArgumentParser, spec_class: type[BaseModel], *exclude: str
) -> None:
    """Add a flag for every field but some, also under the names that fields had before.

    The flag of a list may be given again, that of a yes or no has no value. Only what was typed
    lands in the namespace, as text: the model converts and checks it.
    """
    former: dict[str, list[str]] = defaultdict(list)
    for old, name in former_names(spec_class).items():
        former[name].append(old)
    for name, field in field_schemas(spec_class).items():
        if name not in exclude:
            _add_field_flag(parser, name, former[name], _merge_variant(field))


def _add_field_flag(
    parser: argparse.ArgumentParser, name: str, former: list[str], schema: dict[str, Any]
) -> None:
    is_list = schema.get("type") == "array"
    singular = name.removesuffix("s") if is_list else name
    flags = [f"--{spelling.replace('_', '-')}" for spelling in (singular, *former)]
    help_text = f"{schema.get('description', '')} {format_limits(schema)}".strip().replace(
        "%", "%%"
    )
    options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": help_text}
    if schema.get("type") == "boolean":
        parser.add_argument(*flags, **options, action="store_true")
        return
    metavar = "TEXT"
    if schema.get("type") in ("integer", "number"):
        metavar = "N"
    elif name == "loras":
        metavar = "NAME:WEIGHT"
    elif is_list:
        metavar = "NAME"
    action = "append" if is_list else "store"
    parser.add_argument(*flags, **options, metavar=metavar, action=action)


def _merge_variant(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an optional field as that of its value."""
    for variant in schema.get("anyOf", ()):
        if variant.get("type") != "null":
            return {**schema, **variant}
    return schema


def format_limits(field: dict[str, Any]) -> str:
    """Return a field's choices or range, and its default, in words."""
    words = ["one of " + ", ".join(field["enum"])] if "enum" in field else []
    if "minimum" in field and "maximum" in field:
        words.append(f"{field['minimum']} to {field['maximum']}")
    if field.get("default") not in (None, "", []):
        words.append(f"default {field['default']}")
    return f"({'; '.join(words)})" if words else ""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their flags."""
    description = "Make images with Stable Diffusion. Without a command it opens the page."
    root = argparse.ArgumentParser("studio", description=description, allow_abbrev=False)
    root.add_argument("--version", action="version", version=f"studio {__version__}")
    root.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    root.add_argument("--port", type=int, help="port (default 7860; 0 takes a free one)")
    root.add_argument(
        "--share", action="store_true", default=None, help="create a public link; requires a login"
    )
    root.add_argument("--auth", metavar="USER:PASSWORD", help="login that visitors must enter")
    _add_access_flags(root)
    root.add_argument(
        "--bin-days",
        type=int,
        metavar="N",
        help="days that images stay in the bin; 0 keeps them until it is emptied (default: as "
        "chosen in the Gallery, at first 30)",
    )
    root.add_argument("--open", action="store_true", help="open the page in the browser")
    _add_home_flags(root)
    limits = root.add_argument_group("limits for guests (the owner has none)")
    for name in GUEST_FLAGS:
        field = Settings.model_fields[name]
        help_text = f"{field.description} (default {field.default:g})"
        limits.add_argument(f"--{name.replace('_', '-')}", metavar="N", help=help_text)
    root.set_defaults(command="studio.cli.page:run")
    commands = root.add_subparsers(title="commands", metavar="")
    for name, (description, add_flags) in _COMMANDS.items():
        parser = commands.add_parser(
            name, help=description, description=description, allow_abbrev=False
        )
        parser.set_defaults(command=f"studio.cli.{name}:run")
        add_flags(parser)
    return root


def _add_access_flags(parser: argparse.ArgumentParser) -> None:
    flags = {
        "--guest": ("guests", "NAME:PASSWORD", "a guest's own login; can be repeated"),
        "--allow-host": (
            "allow_hosts",
            "NAME",
            "a host name of the page, such as behind a proxy; can be repeated",
        ),
        "--trusted-proxy": (
            "trusted_proxies",
            "ADDRESS",
            "a proxy whose X-Forwarded headers are trusted; can be repeated",
        ),
        "--allow-embedding": (
            "allow_embedding",
            "SITE",
            "a site that may show the page in a frame; can be repeated",
        ),
    }
    for flag, (name, metavar, help_text) in flags.items():
        parser.add_argument(flag, dest=name, metavar=metavar, action="append", help=help_text)
    parser.add_argument(
        "--root-path",
        metavar="PATH",
        help=("path under which a proxy serves the page, such as /studio"),
    )
    parser.add_argument(
        "--new-visitors",
        type=int,
        metavar="N",
        help="new guests an hour from one address (default 60); four times as many from all",
    )


def _add_generate_flags(parser: argparse.ArgumentParser) -> None:
    add_field_flags(parser, GenerationRequest)
    parser.add_argument(
        "--prompts-from",
        type=Path,
        metavar="FILE",
        help="a list of prompts, one per line, also A1111's --prompt … --steps …; flags apply to "
        "what a line does not set",
    )
    parser.add_argument(
        "--from",
        dest="recipe_file",
        type=Path,
        metavar="FILE",
        help="load the settings of an image from any program, or of its text or JSON; other flags "
        "take precedence",
    )
    parser.add_argument(
        "--recipe",
        dest="recipe_number",
        type=int,
        default=0,
        metavar="N",
        help="which of several recipes in that file, counting from 1",
    )
    parser.add_argument(
        "--strip",
        type=int,
        metavar="N",
        help="instead of the image, save a sheet showing every N-th denoising step",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="also copy the images into this folder"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per line: path, request, digest, seconds",
    )
    _add_home_flags(parser, argparse.SUPPRESS)


def _add_upscale_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="an image, or a folder of them"
    )
    add_field_flags(parser, UpscaleSpec, "image")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="also copy the images into this folder"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per line: path, source, upscaler, size, digest, seconds",
    )
    _add_home_flags(parser, argparse.SUPPRESS)


def _add_export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="an image, or a folder of them"
    )
    add_field_flags(parser, ExportSpec)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where the files go (default: the folder you are in)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line: path, source, notes"
    )
    _add_home_flags(parser, argparse.SUPPRESS)


def _add_sweep_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        metavar="SPEC.toml",
        help="base and axes; run it again to continue where it stopped",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print the cells in order and an estimate; generate nothing",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="batch several cells in one U-Net call: faster, but the last bits may differ",
    )
    parser.add_argument(
        "--remake-binned",
        action="store_true",
        help="also generate again the images that are in the bin",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="also put images, sheet, viewer and index into this folder",
    )
    _add_home_flags(parser, argparse.SUPPRESS)


def _add_train_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print settings, steps, layers and a note on every key; train nothing",
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume the last run with these settings"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting",
    )
    parser.add_argument(
        "--as-meant", action="store_true", help="read kohya's keys as intended, not literally"
    )
    _add_home_flags(parser, argparse.SUPPRESS)


def _add_caption_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="a folder, or the name of a dataset")
    add_field_flags(parser, CaptionSpec, "dataset")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object: counts, rows with before and after, failures",
    )
    _add_home_flags(parser, argparse.SUPPRESS)


def _add_dataset_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="a folder, or the name of a dataset")
    parser.add_argument(
        "--trigger", default="", metavar="WORD", help="a word that every caption must contain"
    )
    parser.add_argument(
        "--resolution", default=0, metavar="N", help="list images with fewer than N x N pixels"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_home_flags(parser, argparse.SUPPRESS)


def _add_inspect_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="or the https address of an image")
    parser.add_argument(
        "--yes", action="store_true", help="also ask sites the studio does not know"
    )


def _add_models_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--kind",
        default="",
        help="only this kind: model, lora, vae, embedding, upscaler or text encoder",
    )
    parser.add_argument("--family", default="", help="only this family: sd1, sd2, sdxl, z-image …")
    _add_home_flags(parser, argparse.SUPPRESS)
    parser.set_defaults(action="list")
    actions = parser.add_subparsers(title="actions", metavar="")
    add = actions.add_parser(
        "add-folder",
        help="use the models of another program in place; nothing is copied",
        allow_abbrev=False,
    )
    add.add_argument("path", metavar="PATH", help="its folder, or one file of weights")
    add.add_argument("--name", default="", help="prefix for the names of its files, such as a1111")
    add.set_defaults(action="add-folder")
    remove = actions.add_parser(
        "remove-folder", help="stop using such a folder; nothing is deleted", allow_abbrev=False
    )
    remove.add_argument("name", metavar="NAME", help="prefix of the names of its files")
    remove.set_defaults(action="remove-folder")
    for action in (add, remove):
        _add_home_flags(action, argparse.SUPPRESS)


def _add_get_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "link", metavar="LINK", help="org/name on the hub, a Civitai page, or a file's address"
    )
    parser.add_argument("--name", default="", help="its name here")
    parser.add_argument(
        "--variant",
        default="auto",
        help="auto, fp16 or full (default auto: fp16 if all of it is available)",
    )
    parser.add_argument(
        "--yes", action="store_true", help=("do not ask for confirmation, whatever the site")
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: what it is, where, the plan"
    )
    _add_home_flags(parser, argparse.SUPPRESS)


def _add_doctor_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--clean",
        action="store_true",
        help="instead, list what could be cleaned up in the home, one line per kind, with files "
        "and MB; nothing is removed",
    )
    parser.add_argument("--yes", action="store_true", help="with --clean: remove it")
    _add_home_flags(parser, argparse.SUPPRESS)


def _add_home_flags(parser: argparse.ArgumentParser, default: Any = None) -> None:
    parser.add_argument(
        "--home",
        type=Path,
        metavar="DIR",
        default=default,
        help="your models, images, queue (~/studio-home)",
    )
    parser.add_argument(
        "--device", default=default, help="auto, cpu, cuda, cuda:1, mps or xpu (default auto)"
    )
    parser.add_argument(
        "--precision", default=default, help="auto, float32, float16 or bfloat16 (default auto)"
    )
    parser.add_argument(
        "--keep-free",
        default=default,
        metavar="GIB",
        help=("memory to leave for other programs (default 1)"),
    )
    parser.add_argument(
        "--memory",
        default=default,
        help="auto saves only as much as necessary; low keeps models in 8 bits, lowest loads them "
        "onto the card layer by layer (default auto)",
    )
    parser.add_argument(
        "--preview-every",
        default=default,
        metavar="N",
        help="steps between previews, 0 for none (default 3)",
    )
    parser.add_argument(
        "--pictures-carry",
        default=default,
        metavar="WHAT",
        help="what new images say about how they were made: everything, text (A1111's only) or "
        "nothing (default: as chosen in the Gallery, at first everything)",
    )
    parser.add_argument(
        "--mark-ai",
        default=default,
        metavar="yes|no",
        help="whether new images are marked as made with AI, as defined by IPTC (default: as "
        "chosen in the Gallery, at first yes)",
    )
    parser.add_argument(
        "--comfyui-graphs",
        default=default,
        metavar="yes|no",
        help="whether new images also carry a workflow that ComfyUI opens (default: as chosen in "
        "the Gallery, at first no)",
    )


# By name, which is that of its module: what its help says, what adds its flags.
_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "generate": (
        "Make images; print one path per line. A prompt that starts with - is given as "
        "--prompt=-x. --image takes a file, or a folder for all images in it; --mask takes a "
        "file, or transparency for the image's own.",
        _add_generate_flags,
    ),
    "upscale": (
        "Enlarge images without repainting them; print one path per line.",
        _add_upscale_flags,
    ),
    "export": (
        "Export images as PNG, JPEG, WebP or AVIF, with all, some or none of their settings, or "
        "as a ComfyUI workflow; print one path per line. Existing files are never overwritten.",
        _add_export_flags,
    ),
    "sweep": (
        "Make a grid of images; print one path per line: the cells in order, then sheet, viewer "
        "and index.",
        _add_sweep_flags,
    ),
    "train": (
        "Train a LoRA; print its file. FILE: the studio's TOML, kohya's TOML or JSON, or a LoRA "
        "made here.",
        _add_train_flags,
    ),
    "caption": (
        "Caption a folder of images; print one line for each. Finished captions are kept when it "
        "is stopped.",
        _add_caption_flags,
    ),
    "dataset": (
        "Check a folder of images and captions, and report what is wrong with it.",
        _add_dataset_flags,
    ),
    "models": (
        "List models, LoRAs and other weights files, one per line; add model folders of other "
        "programs.",
        _add_models_flags,
    ),
    "inspect": (
        "Describe an image, model folder, LoRA or other safetensors file as JSON; also text or "
        "JSON with an image's settings.",
        _add_inspect_flags,
    ),
    "get": (
        (
            "Download a model, LoRA, VAE, embedding or upscaler; an interrupted download resumes "
            "next time."
        ),
        _add_get_flags,
    ),
    "doctor": ("Report what this machine has and what is missing.", _add_doctor_flags),
}
