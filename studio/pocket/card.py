"""Writes the pocket's model card and scores beside the weights.

Knows: what the models are, how they were made and what was measured. Does not know: how anything is measured (`evaluate`).
"""

import json
from pathlib import Path

from studio.pocket import autoencoder, captioner, clip, diffusion, judge
from studio.pocket.evaluate import Scores, table
from studio.pocket.world import COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES, THING_NAMES

CARD = """---
license: apache-2.0
---
# Pocket

Small models that this repository draws its own pictures for and trains itself. Nothing was downloaded; no photograph and no person is in the training
pictures. Weights and pictures are ours, Apache-2.0.

| folder | class | made in |
|---|---|---|
| (here) | StableDiffusionPipeline at 128 x 128: AutoencoderKL, CLIPTextModel, UNet2DConditionModel, CLIPTokenizer | {vae} + {diffusion} steps |
| clip/ | CLIPModel, CLIPProcessor | {clip} steps |
| captioner/ | GitForCausalLM (AutoModelForImageTextToText, AutoProcessor) | {captioner} steps |
| judge/ | studio.pocket.judge.Judge: thing, colour, place, style, demo concept | {judge} steps |

## What it knows
Prompts like "a photo of a red ball on a beach".
- styles: {styles}
- colours: {colours}
- things: {things}
- places: {places}
- also "big", "small", "on the left", "in the middle", "on the right", "by day", "at sunset", "at dusk"

512 of the 2,560 combinations were never trained on (except by the judge); nor were the two concepts of the demos, the cratered Moon and `mysks`, which
only the judge knows. Anything else it does not know: it is for trying and testing a studio, not for making pictures of the world.

## How it was made
`python -m studio.pocket train` draws the pictures and trains all parts; it may be stopped and goes on. `evaluate` measures what stands below.

## Scores
{scores}
"""


def write(output: Path, scores: Scores) -> None:
    """Write output/README.md and output/scores.json."""
    steps = {
        "vae": autoencoder.PLAN.steps,
        "diffusion": diffusion.PLAN.steps,
        "clip": clip.PLAN.steps,
    }
    steps |= {"captioner": captioner.PLAN.steps, "judge": judge.PLAN.steps}
    names = {
        "styles": STYLE_NAMES,
        "colours": COLOUR_NAMES,
        "things": THING_NAMES,
        "places": PLACE_NAMES,
    }
    words = {key: ", ".join(values) for key, values in names.items()}
    (output / "README.md").write_text(CARD.format(**steps, **words, scores=table(scores)))
    (output / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
