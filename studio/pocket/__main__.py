"""The recipe's command line.

    python -m studio.pocket train [PART ...] | evaluate [--json] | datasets

Knows: flags.
Does not know: anything else.
"""

import argparse
import json
from pathlib import Path

import torch

from studio.pocket import train
from studio.pocket.train_loop import RunContext


def main() -> int:
    """Read the flags and do what they say; return 0 when it is finished, else 1."""
    parser = _build_parser()
    args = parser.parse_args()
    if unknown := set(args.parts) - set(train.PARTS):
        parser.error(
            f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(train.PARTS)}"
        )
    if args.threads:
        torch.set_num_threads(args.threads)
    context = RunContext(args.device, args.cache, args.output, args.budget, args.threads or 4)
    if args.verb == "train":
        return 0 if train.train_parts(args.parts, context) else 1
    if args.verb == "datasets":
        from studio.pocket.datasets import write_datasets

        write_datasets(args.output)
        return 0
    from studio.pocket import card
    from studio.pocket.evaluate import evaluate_models, format_table

    scores = evaluate_models(context, args.prompts)
    card.write_model_card(args.output, scores)
    print(json.dumps(scores, indent=1) if args.json else format_table(scores))
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studio.pocket")
    parser.add_argument("verb", choices=("train", "evaluate", "datasets"))
    parser.add_argument(
        "parts", nargs="*", help=f"parts to train (all if none): {', '.join(train.PARTS)}"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("assets/pocket"), help="folder of the finished models"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "picture-studio",
        help="folder of drawings and checkpoints",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--budget",
        type=float,
        default=5400.0,
        help="seconds after which training stops and can go on later",
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="threads on the CPU (0: as many as cores)"
    )
    parser.add_argument("--json", action="store_true", help="print scores as JSON")
    parser.add_argument(
        "--prompts", type=int, default=512, help="unseen prompts to draw for the scores"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
