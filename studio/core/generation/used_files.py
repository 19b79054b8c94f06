"""The files of weights that an image was made with, as other programs and sites know them.

Knows: which hash each program shows of which kind of file, how many digits of it. Does not know:
how a file is hashed (storage/models/used_files.py), the text around the hashes (infotext.py).

- Checkpoints and VAEs: the file's sha256, ten digits (A1111, Forge; Civitai's AutoV2).
- Textual inversions: the file's sha256, twelve digits.
- LoRAs: the sha256 of what follows a safetensors' header, twelve digits (Civitai's AutoV3; A1111
  takes `sshs_model_hash` of the header where there is one, as its built-in Lora extension says).

A model in a folder has no hash that anybody else knows: nothing is said of it.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import ConfigDict, Field

from studio.core.base import Spec

UsedKind = Literal["model", "vae", "lora", "embedding"]
MAX_USED_FILES = 200
MODEL_HASH_DIGITS = 10
TENSORS_HASH_DIGITS = 12
# What Civitai's and A1111's patterns for lists of hashes cannot have in a name.
_LIST_MARKS = str.maketrans("", "", ':,{}"\\')
_CIVITAI_PREFIXES: dict[UsedKind, str] = {
    "model": "model",
    "vae": "vae",
    "lora": "lora:",
    "embedding": "embed:",
}


class UsedFile(Spec):
    """One file; what a later studio adds is ignored.

    Attributes:
        kind: What it is.
        name: What the request calls it; of the model and its VAE that may be empty.
        file_name: With its ending, without folders.
        sha256: Of the whole file.
        tensors_sha256: Of what follows a safetensors' header; only of LoRAs.
    """

    model_config = ConfigDict(extra="ignore")

    kind: UsedKind
    name: str = Field("", max_length=1000)
    file_name: str = Field("", max_length=1000, pattern=r"^[^/\\]*$")
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    tensors_sha256: str = Field("", pattern="^([0-9a-f]{64})?$")

    @property
    def shown_hash(self) -> str:
        """The digits by which A1111 and Civitai know it; empty where they know none."""
        if self.kind == "lora":
            return self.tensors_sha256[:TENSORS_HASH_DIGITS]
        if self.kind == "embedding":
            return self.sha256[:TENSORS_HASH_DIGITS]
        return self.sha256[:MODEL_HASH_DIGITS]


class UsedFiles(Spec):
    """All files of an image, and what its owner decided about the model beside them.

    Attributes:
        files: The files that have hashes.
        overrides: What was decided about the model, such as ("prediction_type", "v_prediction").
        family: The name of the model's family; empty where it is not known, as of images that were
            made before it was kept.
    """

    model_config = ConfigDict(extra="ignore")

    files: tuple[UsedFile, ...] = Field((), max_length=MAX_USED_FILES)
    overrides: tuple[tuple[str, str], ...] = Field((), max_length=20)
    family: str = Field("", max_length=100)

    def get(self, kind: UsedKind) -> UsedFile | None:
        """Return the first file of a kind, for those of which there is one."""
        return next((file for file in self.files if file.kind == kind), None)

    def get_hash(self, kind: UsedKind) -> str | None:
        """Return the digits that are shown of the model or its VAE; None where there are none."""
        file = self.get(kind)
        return file.shown_hash or None if file else None

    def list_hashes(self, kind: UsedKind) -> dict[str, str]:
        """Return the digits that are shown of each file of a kind, by the request's name for it."""
        return {
            file.name: file.shown_hash
            for file in self.files
            if file.kind == kind and file.shown_hash
        }

    def format_lora_hashes(self) -> str | None:
        """Return what A1111 writes behind `Lora hashes`; None where there is nothing to say."""
        pairs = [
            f"{shorten_name(name).translate(_LIST_MARKS)}: {digits}"
            for name, digits in self.list_hashes("lora").items()
        ]
        return ", ".join(pairs) or None

    def format_civitai_hashes(self) -> str | None:
        """Return the JSON that Civitai reads behind `Hashes`; None where there is nothing to say.

        It looks for `, Hashes: {…}` and takes all up to the first closing brace, so it stands there
        without quotes around it (civitai/sd_civitai_extension).
        """
        hashes = {}
        for file in self.files:
            key = _CIVITAI_PREFIXES[file.kind]
            if key.endswith(":"):
                key += shorten_name(file.name).translate(_LIST_MARKS)
            if file.shown_hash:
                hashes[key] = file.shown_hash
        return json.dumps(hashes) if hashes else None


NO_FILES = UsedFiles()


def shorten_name(name: str) -> str:
    """Return a library name as other programs know it: without folders and names of folders."""
    return name.rpartition("/")[2] or name
