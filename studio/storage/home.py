"""A home folder: all its stores, in one place for page, command line and worker.

Knows: which stores there are and how each is opened. Does not know: what is in them; who asks;
    torch; gradio.
"""

from __future__ import annotations

from functools import cached_property

from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.core.training.config import TrainingConfig
from studio.settings import Settings, shipped
from studio.storage import sqlite_repair
from studio.storage.datasets.caption_cache import CaptionCache
from studio.storage.datasets.dataset import DatasetStore
from studio.storage.datasets.embedding_cache import EmbeddingCache
from studio.storage.datasets.training_set import TrainingSets
from studio.storage.gallery import Gallery
from studio.storage.image_links import link_images
from studio.storage.inputs import Inputs
from studio.storage.jobs import Jobs
from studio.storage.logins import LoginSessions, load_secret
from studio.storage.models.library import Library
from studio.storage.models.transformers_models import TransformersModels
from studio.storage.presets import Presets
from studio.storage.prompt_files import HomePromptFiles
from studio.storage.sweeps import Sweeps
from studio.storage.training.runs import Runs
from studio.storage.uploads import Uploads

STORES_TO_CLOSE = (
    "jobs",
    "gallery",
    "sweeps",
    "datasets",
    "training_sets",
    "embeddings",
    "login_sessions",
    "uploads",
)


class Home:
    """The stores of one home folder.

    Each is opened when it is first asked for, and stays open until `close`.

    Opening a store raises BadFile where its file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def notices(self) -> list[str]:
        """Sentences that the owner should read: which files were damaged and begin anew.

        A notice stays as long as the damaged file, which the owner may delete.
        """
        folders = (self.settings.home, self.settings.home / "cache")
        return [notice for folder in folders for notice in sqlite_repair.list_notices(folder)]

    @cached_property
    def jobs(self) -> Jobs:
        """The queue."""
        return Jobs(self.settings.home / "jobs.sqlite")

    @cached_property
    def gallery(self) -> Gallery:
        """Generated images."""
        return Gallery(self.settings)

    @cached_property
    def library(self) -> Library:
        """Models and LoRAs."""
        return Library(self.settings)

    @property
    def inputs(self) -> Inputs:
        """Images and masks to work on."""
        return self.library.inputs

    @cached_property
    def uploads(self) -> Uploads:
        """Files that visitors sent to the page."""
        return Uploads(self.settings)

    @cached_property
    def sweeps(self) -> Sweeps:
        """Sweeps with their cells and verdicts."""
        return Sweeps(self.settings, self.gallery)

    @cached_property
    def runs(self) -> Runs:
        """Training runs."""
        return Runs(self.settings)

    @cached_property
    def training_sets(self) -> TrainingSets:
        """Datasets as a training sees them."""
        return TrainingSets(self.settings)

    @cached_property
    def datasets(self) -> DatasetStore:
        """Datasets with their captions and the history of their edits."""
        return DatasetStore(self.settings, self.training_sets)

    @cached_property
    def embeddings(self) -> EmbeddingCache:
        """What CLIP models saw in images."""
        return EmbeddingCache(self.settings.home)

    def link_images(self) -> int:
        """Complete the gallery's index where it was made anew; return for how many images."""
        return link_images(self.gallery, self.sweeps, self.runs)

    def get_caption_cache(self, captioner_key: str) -> CaptionCache:
        """Return what a captioner wrote; each has a file of its own, which does not stay open."""
        return CaptionCache(self.settings.home, captioner_key)

    @cached_property
    def login_sessions(self) -> LoginSessions:
        """Who is logged in."""
        return LoginSessions(self.settings.home / "logins.sqlite")

    @cached_property
    def secret(self) -> bytes:
        """The key by which this home signs what it gives to browsers."""
        return load_secret(self.settings.home / "secret.key")

    @cached_property
    def transformers_models(self) -> TransformersModels:
        """Captioners and CLIP models."""
        return TransformersModels(self.settings)

    @cached_property
    def prompt_files(self) -> HomePromptFiles:
        """Wildcards and styles."""
        return HomePromptFiles(self.settings.home)

    @cached_property
    def presets(self) -> Presets[GenerationRequest]:
        """Presets of images."""
        folder = self.settings.presets / "pictures"
        return Presets(GenerationRequest, shipped("presets") / "pictures", folder)

    @cached_property
    def sweep_presets(self) -> Presets[SweepSpec]:
        """Presets of sweeps."""
        folder = self.settings.presets / "sweeps"
        return Presets(SweepSpec, shipped("presets") / "sweeps", folder)

    @cached_property
    def training_presets(self) -> Presets[TrainingConfig]:
        """Presets of trainings."""
        folder = self.settings.presets / "training"
        return Presets(TrainingConfig, shipped("presets") / "training", folder)

    def close(self) -> None:
        """Close the tables that were opened; what is asked for afterwards is opened anew."""
        for name in STORES_TO_CLOSE:
            store = self.__dict__.pop(name, None)
            if store is not None:
                store.close()
