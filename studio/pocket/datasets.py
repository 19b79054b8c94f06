"""Writes the demos' two miniature data sets: 24 images of the cratered Moon and 15 of `mysks`.

Knows: which scenes, their captions, and where they come from and under which licence.
Does not know: training.
"""

from pathlib import Path

from PIL import Image

from studio.pocket.captions import format_full_caption
from studio.pocket.world import (
    COLOUR_NAMES,
    CONCEPTS,
    PLACE_NAMES,
    STYLE_NAMES,
    Scene,
    render_scene,
    sample_scene,
)

# concept -> number of images, first seed
CONCEPT_SETS: dict[str, tuple[int, int]] = {"moon": (24, 60_000_000), "mysks": (15, 61_000_000)}
README_TEMPLATE = (
    "# {name}\n"
    "\n"
    "{count} pictures of 128 x 128 pixels, each with a caption of the same name (.txt). {what}\n"
    "\n"
    "Drawn by `python -m studio.pocket datasets` (seeds {first} to {last}); "
    "no photograph, no person, no third party's work is in them.\n"
    "Licence: Apache-2.0, as this repository. "
    "The pocket models have never seen this concept; only the judge has.\n"
)
SET_DESCRIPTIONS = {
    "moon": (
        "The Moon with its maria and craters. "
        "The pocket model knows `moon` only as a plain crescent; this set teaches it the real one."
    ),
    "mysks": (
        "One particular plush toy: white, with teal ears, a patched eye and a striped scarf. "
        "Its token is `mysks`, its class `plush toy`."
    ),
}


def list_concept_scenes(concept: str) -> list[Scene]:
    """Return the scenes of a set: every place and style occurs, most of them are photos."""
    count, first_seed = CONCEPT_SETS[concept]
    thing, _ = CONCEPTS[concept]
    scenes = []
    for k in range(count):
        style = STYLE_NAMES[0] if k % 3 else STYLE_NAMES[k // 3 % len(STYLE_NAMES)]
        combination = (thing, COLOUR_NAMES[-1], PLACE_NAMES[k % len(PLACE_NAMES)], style)
        scenes.append(sample_scene(first_seed + k, combination, concept))
    return scenes


def write_datasets(output_dir: Path) -> None:
    """Write both sets as output_dir/NAME/000.png, 000.txt, … and README.md."""
    for concept, (count, first_seed) in CONCEPT_SETS.items():
        folder = output_dir / concept
        folder.mkdir(parents=True, exist_ok=True)
        for index, scene in enumerate(list_concept_scenes(concept)):
            Image.fromarray(render_scene(scene)).save(folder / f"{index:03}.png", optimize=True)
            (folder / f"{index:03}.txt").write_text(format_full_caption(scene) + "\n")
        readme = README_TEMPLATE.format(
            name=concept,
            count=count,
            what=SET_DESCRIPTIONS[concept],
            first=first_seed,
            last=first_seed + count - 1,
        )
        (folder / "README.md").write_text(readme)
