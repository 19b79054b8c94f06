"""Files that a picture names: by every hash that programs call them by, by name, and what is said of the others."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from studio.core.generation.recipes import sources
from studio.core.generation.recipes.recipe import FileReference, ImageMetadata, Recipe
from studio.services.recipe_files import look_up_files
from studio.settings import Settings
from studio.storage.home import Home
from studio.storage.models.library import Library

LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def write_lora(path: Path, value: float = 1.0, **metadata: str) -> Path:
    """A LoRA of one layer of SD 1.5, as kohya's trainer names it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{LAYER}.lora_down.weight": np.full((4, 320), value, np.float32),
        f"{LAYER}.lora_up.weight": np.full((320, 4), value, np.float32),
        f"{LAYER}.alpha": np.array(4.0, np.float32),
    }
    save_file(tensors, path, metadata or None)
    return path


def hash_of_tensors(path: Path) -> str:
    """AutoV3: what follows the header of a safetensors file."""
    data = path.read_bytes()
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def recipe_of(*files: FileReference, **values: Any) -> Recipe:
    return Recipe("A1111", values, list(files))


def use(name: str, weight: float = 0.7) -> dict[str, Any]:
    return {"name": name, "unet": weight, "text_encoder": weight}


def test_a_lora_under_another_name(settings: Settings) -> None:
    path = write_lora(settings.loras / "my-ink.safetensors")
    library = Library(settings)
    library.get_content_hash(library.get_lora("my-ink"))  # as after its first use
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for digest in (sha256, sha256[:10]):
        recipe = recipe_of(FileReference("lora", "ink", digest), loras=[use("ink")])
        found, matches = look_up_files(library, recipe)
        assert found.values["loras"] == [use("my-ink")]
        assert found.notes == ["The LoRA ink of that image is called my-ink here."]
        assert matches[0].name == "my-ink"


def test_the_hash_of_the_tensors_that_its_trainer_wrote_down(settings: Settings) -> None:
    stated = "ab" * 32
    write_lora(settings.loras / "my-ink.safetensors", sshs_model_hash=stated)
    recipe = recipe_of(FileReference("lora", "ink", stated[:12]), loras=[use("ink")])
    found, _ = look_up_files(Library(settings), recipe)
    assert found.values["loras"] == [use("my-ink")]


def test_a_file_of_the_right_name_is_compared(settings: Settings) -> None:
    path = write_lora(settings.loras / "ink.safetensors")
    library = Library(settings)
    same = recipe_of(FileReference("lora", "ink", hash_of_tensors(path)[:12]), loras=[use("ink")])
    found, _ = look_up_files(library, same)
    assert (found.values["loras"], found.notes) == ([use("ink")], [])
    other = recipe_of(FileReference("lora", "ink", "0123456789ab"), loras=[use("ink")])
    found, _ = look_up_files(library, other)
    assert found.values["loras"] == [use("ink")]
    assert found.notes == [
        "The LoRA ink here is not the file the image was made with; it will look different."
    ]
    # the right one under another name comes before the wrong one under the right name
    right = write_lora(settings.loras / "right.safetensors", 2.0, sshs_model_hash="cd" * 32)
    assert right.is_file()
    moved = recipe_of(FileReference("lora", "ink", "cd" * 6), loras=[use("ink")])
    assert look_up_files(library, moved)[0].values["loras"] == [use("right")]


def test_what_is_not_here_is_named_and_left_out(settings: Settings) -> None:
    recipe = recipe_of(
        FileReference("model", "dream", "45dee52b"),
        FileReference("lora", "ink", "1c5d5a9d4f3e"),
        FileReference("upscaler", "4x-Sharp"),
        FileReference("vae", "", "735e4c3a44"),
        FileReference("embedding", "hands", "66a7279a88"),
        model="dream",
        vae="a-vae",
        hires_upscaler="4x-Sharp",
        loras=[use("ink"), use("other")],
    )
    found, _ = look_up_files(Library(settings), recipe)
    assert found.values == {"hires_upscaler": "", "loras": []}
    assert found.notes == [
        "The model dream (hash 45dee52b) is not here; the selected one is kept.",
        "The LoRA ink (hash 1c5d5a9d4f3e) is not here; it is left out.",
        "The upscaler 4x-Sharp is not here; Lanczos is used.",
        "The VAE with the hash 735e4c3a44 is not here; the selected one is kept.",
        "The LoRA other is not here; it is left out.",
        "The embedding hands is not here; its name stays in the prompt as words.",
    ]
    assert recipe.values["model"] == "dream"  # what was read stays as it was


def test_civitais_number_by_the_file_beside_it(settings: Settings) -> None:
    write_lora(settings.loras / "my-ink.safetensors")
    info = {"id": 135867, "files": [{"hashes": {"AutoV2": "AABBCCDDEE", "SHA256": 5}}]}
    (settings.loras / "my-ink.civitai.info").write_text(json.dumps(info), "utf-8")
    library = Library(settings)
    by_number = recipe_of(FileReference("lora", "", "", (0.4, 0.4), "135867"))
    found, _ = look_up_files(library, by_number)
    assert found.values["loras"] == [use("my-ink", 0.4)]
    assert found.notes == ["The LoRA of that image is called my-ink here."]
    by_hash = recipe_of(FileReference("lora", "x", "aabbccddee"), loras=[use("x")])
    assert look_up_files(library, by_hash)[0].values["loras"] == [use("my-ink")]


def test_the_short_hash_of_2022(settings: Settings) -> None:
    path = write_lora(settings.loras / "big.safetensors")
    with path.open("ab") as file:
        file.truncate(2**20 + 2**16 + 5)
    digest = hashlib.sha256(path.read_bytes()[2**20 : 2**20 + 2**16]).hexdigest()[:8]
    assert Library(settings).file_hashes.has_digest(path, digest) is True
    assert Library(settings).file_hashes.has_digest(path, "00000000") is None


def test_two_loras_of_one_name_in_folders_both_count(settings: Settings) -> None:
    for folder in ("a", "b"):
        write_lora(settings.loras / folder / "ink.safetensors")
    recipe = recipe_of(loras=[use("a/ink", 0.5), use("b/ink", 0.6)])
    found, _ = look_up_files(Library(settings), recipe)
    assert found.values["loras"] == [use("a/ink", 0.5), use("b/ink", 0.6)]


def test_a_text_from_elsewhere_from_end_to_end(settings: Settings) -> None:
    path = write_lora(settings.loras / "my-ink.safetensors")
    home = Home(settings)
    home.library.get_content_hash(home.library.get_lora("my-ink"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    text = (
        "a boat <lora:ink:0.8>\nSteps: 20, Sampler: Euler, Seed: 1, Size: 64x64, Model: pocket, "
        f'Lora hashes: "ink: {digest}", Version: v1.10.1'
    )
    recipe = sources.read_recipe(ImageMetadata(chunks={"parameters": text}))
    found, _ = look_up_files(home.library, recipe)
    home.close()
    assert found.values["loras"] == [use("my-ink", 0.8)]
    assert found.values["model"] == "pocket"


def test_clip_skip_is_counted_as_the_model_that_paints_wants_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe's model where it is here, else the chosen one; said where neither is known."""
    library = Library(settings)
    pocket = library.get_model("pocket")
    kinds = {"pocket": pocket, "tiny-xl": replace(pocket, name="tiny-xl", family="sdxl")}
    find = library.get_model
    monkeypatch.setattr(library, "get_model", lambda name: kinds.get(name) or find(name))
    text = "a\nSteps: 20, Sampler: Euler, Seed: 1, Clip skip: 3, Version: f2.0.1v1.10.1, Model: {}"

    def look_up(model: str, chosen: str = "") -> Recipe:
        metadata = ImageMetadata(chunks={"parameters": text.format(model)})
        return look_up_files(library, sources.read_recipe(metadata), chosen)[0]

    assert look_up("pocket").values["clip_skip"] == 3
    assert look_up("pocket", "tiny-xl").values["clip_skip"] == 3
    for recipe in (look_up("tiny-xl", "pocket"), look_up("nobodys", "tiny-xl")):
        assert recipe.values["clip_skip"] == 2
        assert recipe.clip_skip is None
        assert recipe.notes[-1].endswith("with Stable Diffusion XL that is 2 here.")
    unknown = look_up("nobodys")
    assert unknown.values["clip_skip"] == 3
    assert unknown.notes[-1].endswith("with SDXL and SD 2.x set it to 2.")
