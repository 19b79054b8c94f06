"""Writes the two miniature data sets of the demos: 24 pictures of the cratered Moon and 15 of `mysks`, each with a caption beside it.

Knows: which scenes, and where they come from and under which licence. Does not know: training.
"""

from pathlib import Path

from PIL import Image

from studio.pocket.captions import full
from studio.pocket.world import (
    COLOUR_NAMES,
    CONCEPTS,
    PLACE_NAMES,
    STYLE_NAMES,
    Scene,
    draw,
    sample,
)

# concept -> number of pictures, first seed
PICTURES: dict[str, tuple[int, int]] = {"moon": (24, 60_000_000), "mysks": (15, 61_000_000)}
PROVENANCE = """# {name}

{count} pictures of 128 x 128 pixels, each with a caption of the same name (.txt). {what}

Drawn by `python -m studio.pocket datasets` (seeds {first} to {last}); no photograph, no person, no third party's work is in them.
Licence: Apache-2.0, as this repository. The pocket models have never seen this concept; only the judge has.
"""
WHAT = {
    "moon": "The Moon with its maria and craters. The pocket model knows `moon` only as a plain crescent; this set teaches it the real one.",
    "mysks": "One particular plush toy: white, with teal ears, a patched eye and a striped scarf. Its token is `mysks`, its class `plush toy`.",
}


def scenes_of(concept: str) -> list[Scene]:
    """The scenes of a set: every place and style occurs, most often photos."""
    count, first = PICTURES[concept]
    thing = CONCEPTS[concept][0]
    styles = [
        STYLE_NAMES[0] if k % 3 else STYLE_NAMES[k // 3 % len(STYLE_NAMES)] for k in range(count)
    ]
    return [
        sample(
            first + k,
            (thing, COLOUR_NAMES[-1], PLACE_NAMES[k % len(PLACE_NAMES)], styles[k]),
            concept,
        )
        for k in range(count)
    ]


def write(output: Path) -> None:
    """Write both sets as output/NAME/000.png, 000.txt, ... and README.md."""
    for concept, (count, first) in PICTURES.items():
        folder = output / concept
        folder.mkdir(parents=True, exist_ok=True)
        for index, scene in enumerate(scenes_of(concept)):
            Image.fromarray(draw(scene)).save(folder / f"{index:03}.png", optimize=True)
            (folder / f"{index:03}.txt").write_text(full(scene) + "\n")
        text = PROVENANCE.format(
            name=concept, count=count, what=WHAT[concept], first=first, last=first + count - 1
        )
        (folder / "README.md").write_text(text)
