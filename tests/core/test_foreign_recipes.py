"""What no foreign recipe brings along: pictures of this home, somebody's folders."""

from __future__ import annotations

import json

import pytest

from studio.core.base import validate
from studio.core.generation.recipes.foreign import INPUT_FIELDS, clean_recipe
from studio.core.generation.recipes.recipe import FileReference, ImageMetadata, Recipe
from studio.core.generation.recipes.sources import read_recipe
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec
from support.sentences import check_sentence

DIGEST = "ab" * 32
SETTINGS = "Steps: 4, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 64x64"


def takes_hashes_alone(name: str) -> bool:
    def is_valid(value: object) -> bool:
        try:
            validate(GenerationRequest, {"image": DIGEST, name: value})
        except InvalidSpec:
            return False
        return True

    return is_valid(DIGEST) and not is_valid("a name")


def test_every_field_that_names_an_input_is_known() -> None:
    inputs = {name for name in GenerationRequest.model_fields if takes_hashes_alone(name)}
    assert inputs == set(INPUT_FIELDS)


@pytest.mark.parametrize("value", [DIGEST, "/home/jane/in.png", "x"])
def test_a_foreign_text_names_no_input(value: str) -> None:
    text = f"a boat\n{SETTINGS}, Init image: {value}, Mask: {value}, Version: v1.10.1"
    recipe = read_recipe(ImageMetadata(chunks={"parameters": text}))
    assert not recipe.values.keys() & set(INPUT_FIELDS)
    notes = [note for note in recipe.notes if "not in the file" in note]
    assert len(notes) == len(INPUT_FIELDS)
    for note in notes:
        check_sentence(note)


def test_our_own_text_names_its_input() -> None:
    text = f"a boat\n{SETTINGS}, Init image: {DIGEST}, Version: studio 1.0"
    recipe = read_recipe(ImageMetadata(chunks={"parameters": text}))
    assert recipe.values["image"] == DIGEST


def test_no_text_of_a_recipe_holds_a_folder() -> None:
    path = "/home/jane/O'Brien, x/ink"
    inner = Recipe("ComfyUI", {"model": path, "loras": [{"name": path}]}, notes=[path])
    files = [FileReference("lora", path)]
    recipe = Recipe("ComfyUI", {"prompt": f"a {path}"}, files, [path], path, [(path, inner)])
    cleaned = clean_recipe(recipe)
    assert "jane" not in str(cleaned)
    assert "O'Brien" not in str(cleaned)
    assert (cleaned.values["prompt"], cleaned.files[0].name) == ("a ink", "ink")
    check_sentence(cleaned.notes[-1])


def test_a_prompt_with_slashes_is_taken_as_it_is() -> None:
    prompt = "and/or, w/ f/1.8, https://civitai.com/models/1"
    recipe = read_recipe(ImageMetadata(chunks={"parameters": f"{prompt}\n{SETTINGS}"}))
    assert recipe.values["prompt"] == prompt
    assert "folders" not in json.dumps(recipe.notes)
