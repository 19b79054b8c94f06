"""The card beside a LoRA file: its training, its verdict, images without and with it.

Knows: what stands on a card.
Does not know: how images are generated and judged (job.py), which file is recommended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from studio.core.training.verdict import EvaluationPoint
from studio.imaging import decode
from studio.storage import atomic
from studio.storage.training.runs import Run

CARD_IMAGE_SIDE_PX = 192

CARD_TEMPLATE = """# {lora}

{sentences}

- Made for: {model} ({family})
- Trigger word: {trigger}; prompt: `{prompt}`
- Trained on: {dataset}, {num_images} images, {step:,} steps
- Rank {rank}, seed {seed}, trained on {date}

![Top: without the LoRA; bottom: with it]({image_name})

Top: without the LoRA. Bottom: with the LoRA at weight {weight:g}. Each pair has the same seed:

{prompts}

| step | weight | look learned (0% base model, 100% dataset) | images that follow their prompt |
|---|---|---|---|
{rows}
"""


def write_lora_card(
    folder: Path, run: Run, *, evaluation: Mapping[str, Any], best_point: EvaluationPoint
) -> list[Path]:
    """Write the card of the recommended LoRA file, or of the one that shows most.

    Args:
        folder: The folder of the LoRA files.
        run: The training that wrote the file.
        evaluation: What report.json holds.
        best_point: The checkpoint and weight that the card is about.

    Returns:
        The paths of the card (Markdown) and of its image.
    """
    image_path = folder / f"{best_point.lora}.png"
    card_path = folder / f"{best_point.lora}.md"
    with atomic.open_for_writing(image_path) as file:
        _draw_pairs(evaluation["pairs"]).save(file, "PNG")
    rows = [
        f"| {point['step']:,} | {point['weight']:g} "
        f"| {point['concept']:.0%} | {point['following']:.0%} |"
        for point in (evaluation["base"], *evaluation["points"])
    ]
    card = CARD_TEMPLATE.format(
        lora=best_point.lora,
        sentences=" ".join(evaluation["sentences"]),
        model=run.config.model,
        family=run.start_info.get("family", ""),
        trigger=run.config.trigger or "none",
        prompt=f"{evaluation['prompts'][0]} <lora:{best_point.lora}:{best_point.weight:g}>",
        dataset=run.config.dataset,
        num_images=run.start_info.get("showings", "?"),
        step=best_point.step,
        rank=run.config.rank,
        seed=run.config.seed,
        date=run.date,
        image_name=image_path.name,
        weight=best_point.weight,
        prompts="\n".join(f"{k}. {prompt}" for k, prompt in enumerate(evaluation["prompts"], 1)),
        rows="\n".join(rows),
    )
    atomic.write(card_path, card.encode())
    return [card_path, image_path]


def _draw_pairs(pairs: Sequence[Mapping[str, str]]) -> Image.Image:
    """Draw the pairs side by side, without the LoRA above and with it below."""
    side = CARD_IMAGE_SIDE_PX
    strip = Image.new("RGB", (side * len(pairs), side * 2), "white")
    for column, pair in enumerate(pairs):
        for row, key in enumerate(("before", "after")):
            image = decode.load_image(Path(pair[key])).image
            image = image.resize((side, side), Image.Resampling.LANCZOS)
            strip.paste(image, (column * side, row * side))
    return strip
