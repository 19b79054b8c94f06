"""Pickles of weights → safetensors, in a process of its own: `python -m …pickle_reader`.

Knows: torch's restricted unpickler, what A1111, diffusers and trainers of upscalers wrap tensors
in, the limits of this process. Does not know: who asks and where files lie for good
(storage/models/pickles.py), what the tensors are.

It reads a JSON object from stdin, `{"files": [[source, target], …], "max_bytes": n}`, and answers
each file with a line `{"problem": …}`, empty where the target is written. A pickle is a program:
whatever it tries, `weights_only=True` refuses all but tensors and plain values, and what is left
(memory, time) is limited by the system, so that the worst it can do is to end this process.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from studio.errors import DiskError
from studio.storage import atomic

try:
    import resource  # Windows has none
except ImportError:
    resource = None  # type: ignore[assignment]

MIB = 2**20
SPARE_BYTES = 512 * MIB  # for what is neither the file nor its tensors
CPU_SECONDS = 60  # of one file
MAX_TENSORS = 20_000
MAX_TEXT_CHARS = 200
# What trainers of upscalers put around a state dict; the better weights come first.
WRAPPERS = ("params_ema", "params", "state_dict")
# Of A1111's embeddings.
KEPT_TEXTS = ("name", "step", "sd_checkpoint_name", "sd_checkpoint")
TOO_LARGE = "unpacks to more than it should"
NO_TENSORS = "is a pickle without tensors by name"


class Unreadable(Exception):
    """A pickle that gives no tensors; the text ends a sentence that begins with its name."""


def main() -> None:
    """Answer what stdin asks for."""
    question = json.load(sys.stdin)
    import torch  # after the question: a parent that gave up meanwhile is heard

    torch.set_num_threads(1)
    limit_memory(4 * question["max_bytes"] + SPARE_BYTES)
    for source, target in question["files"]:
        limit_time(CPU_SECONDS)
        answer = answer_file(Path(source), Path(target), question["max_bytes"])
        print(json.dumps(answer), flush=True)


def answer_file(source: Path, target: Path, max_bytes: int) -> dict[str, str]:
    """Convert a file; return what spoke against it, or that the disk did not take it."""
    try:
        convert_file(source, target, max_bytes)
    except Unreadable as error:
        return {"problem": str(error)}
    except DiskError as error:
        return {"disk": str(error)}
    except MemoryError:
        return {"problem": TOO_LARGE}
    except Exception as error:  # of odd bytes torch raises anything
        return {"problem": _explain(error)}
    return {"problem": ""}


def convert_file(source: Path, target: Path, max_bytes: int) -> None:
    """Write the tensors of a pickle as safetensors.

    Args:
        source: The pickle; it is only read.
        target: The file to write, whole or not at all.
        max_bytes: What the file and its tensors may have.

    Raises:
        Unreadable: It is none, holds no tensors, or too much.
        DiskError: The target cannot be written.
    """
    import safetensors.torch
    import torch

    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 2 * max_bytes:
                raise Unreadable(TOO_LARGE)
    with torch.serialization.safe_globals([torch.nn.ParameterDict]):
        content = torch.load(source, map_location="cpu", weights_only=True)
    tensors, texts = flatten(content)
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > max_bytes:
        raise Unreadable(TOO_LARGE)
    # Copies: tensors of a pickle may lie over each other, those of safetensors never do.
    copies = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    atomic.write(target, safetensors.torch.save(copies, texts))


def flatten(content: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tensors of a pickle by name, and the texts worth keeping.

    Raises Unreadable where there are none.
    """
    values = _as_mapping(content)
    if "string_to_param" in values:
        params = list(_find_tensors(_as_mapping(values["string_to_param"])))
        if len(params) != 1:
            raise Unreadable(f"holds {len(params)} embeddings where one is usual")
        return {"emb_params": params[0][1]}, _keep_texts(values)
    for wrapper in WRAPPERS:
        if _as_mapping(values.get(wrapper)):
            values = _as_mapping(values[wrapper])
            break
    tensors = dict(_find_tensors(values))
    if not tensors:
        raise Unreadable(NO_TENSORS)
    if len(tensors) > MAX_TENSORS:
        raise Unreadable(f"has more than {MAX_TENSORS:,} tensors")
    return tensors, {}


def _find_tensors(values: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    import torch

    for name, value in values.items():
        is_plain = isinstance(value, torch.Tensor) and value.layout == torch.strided
        if is_plain and isinstance(name, str) and not value.is_quantized and not value.is_meta:
            yield name, value


def _as_mapping(value: Any) -> dict[Any, Any]:
    """Return a dict, also the one inside of torch's ParameterDict; an empty one of all else."""
    import torch

    if isinstance(value, torch.nn.ParameterDict):
        value = vars(value).get("_parameters")  # those of torch 1 have no more than that
    return value if isinstance(value, dict) else {}


def _keep_texts(values: dict[Any, Any]) -> dict[str, str]:
    texts = {key: values[key] for key in KEPT_TEXTS if isinstance(values.get(key), str | int)}
    return {key: str(text)[:MAX_TEXT_CHARS] for key, text in texts.items()}


def _explain(error: Exception) -> str:
    text = str(error)
    if "Unsupported global" in text or "Unsupported operand" in text or "WeightsUnpickler" in text:
        return "is a pickle that wants to run a program, and was not opened"
    if "alloc" in text.lower() or "not enough memory" in text:
        return TOO_LARGE
    return "is damaged, or no pickle of weights"


def limit_memory(num_bytes: int) -> None:
    """Let this process take so much more memory than it has now."""
    statm = Path("/proc/self/statm")
    if resource is None or not statm.exists():
        return
    taken_bytes = int(statm.read_text().split()[0]) * resource.getpagesize()
    _set_limit(resource.RLIMIT_AS, taken_bytes + num_bytes)
    _set_limit(resource.RLIMIT_CORE, 0)


def limit_time(seconds: int) -> None:
    """Let this process compute for so many seconds more; then the system ends it."""
    if resource is None:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _set_limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + seconds)


def _set_limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    set_limit: Callable[..., None] = resource.setrlimit
    set_limit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
