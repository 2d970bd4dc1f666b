"""What every step of a run shares: the store, the settings, the prompts, the logs and the encoder's identity."""

from __future__ import annotations

import contextlib
import ctypes
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from taskgalaxy_ops.errors import EncoderError, NotFoundError, ReadOnlyError, SettingsError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.inference.spending import RunBudget
from taskgalaxy_ops.models.encoders.base import CHOICES, Encoder, Recipe, open_encoder
from taskgalaxy_ops.models.opening import register_heif
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.settings import CapSettings, Settings, parse_settings
from taskgalaxy_ops.storage import Store, keys, open_store, s3_options_from_environment
from taskgalaxy_ops.storage.coverage_log import CoverageEntry, CoverageLog
from taskgalaxy_ops.storage.downloads import downloaded
from taskgalaxy_ops.storage.edits import Edits
from taskgalaxy_ops.storage.judge_log import JudgeLog, JudgeMeasure
from taskgalaxy_ops.storage.ledger import NANO, Caps, Ledger, Scopes
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.registry import Registry
from taskgalaxy_ops.storage.review_log import ReviewLog, Reviews
from taskgalaxy_ops.storage.shards import StageOutputs
from taskgalaxy_ops.storage.snapshot import Snapshot

_M_ARENA_MAX = -8  # malloc.h


@dataclass(frozen=True)
class Workspace:
    """An opened store with the settings that rule it."""

    settings: Settings
    store: Store
    run: str = field(default_factory=lambda: uuid.uuid4().hex)  # whose budget its calls use; processes may share it

    @classmethod
    def open(cls, settings: Settings, run: str | None = None) -> Workspace:
        """Open the store that the settings name. ``run``: the run that this process works for; None: a new one.

        Raises StoreError.
        """
        _share_one_arena()
        register_heif()
        s3 = settings.s3
        options = s3_options_from_environment(s3.endpoint_url, s3.region, s3.addressing)
        store = open_store(settings.store, **options)
        return cls(settings, store, run) if run else cls(settings, store)

    def snapshot(self) -> Workspace:
        """The same workspace for readers: the objects of all image shards are listed once and remembered."""
        if isinstance(self.store, Snapshot):
            return self
        frozen = replace(self, store=Snapshot(self.store))
        if self._encoder_is_loaded:  # the copy need not load it again
            frozen.__dict__["encoder"] = self.encoder
        return frozen

    def with_settings(self, **update: Any) -> Workspace:
        """The same store and run under other settings; ``update``: whole fields by name."""
        other = replace(self, settings=self.settings.model_copy(update=update))
        if self._encoder_is_loaded and "encoder" not in update:  # the other need not load it again
            other.__dict__["encoder"] = self.encoder
        return other

    @property
    def _encoder_is_loaded(self) -> bool:
        return "encoder" in self.__dict__

    @property
    def encoder_passes(self) -> int:
        """How many images and texts were encoded here; does not load the encoder."""
        return self.encoder.passes if self._encoder_is_loaded else 0

    @cached_property
    def s3_options(self) -> dict[str, Any]:
        """boto3 arguments for sources that lie in S3."""
        s3 = self.settings.s3
        return s3_options_from_environment(s3.endpoint_url, s3.region, s3.addressing)

    @cached_property
    def stage_outputs(self) -> StageOutputs:
        """The store's stage outputs."""
        return StageOutputs(self.store)

    @cached_property
    def coverage_entry(self) -> CoverageEntry | None:
        """The newest entry of the log of coverage when this was first read; None: there was none."""
        return CoverageLog(self.store).newest()

    @cached_property
    def judge_measure(self) -> JudgeMeasure | None:
        """What was last recorded of the judges when this was first read; None: nothing was."""
        return JudgeLog(self.store).newest()

    @cached_property
    def deciding_reviews(self) -> Reviews | None:
        """People's votes when this was first read; None: there were none, or by the settings they decide nothing."""
        return ReviewLog(self.store).read() if self.settings.review.rule == "veto" else None

    @property
    def judged_reviews(self) -> Reviews | None:
        """The same, where judges are asked about the answers that people give."""
        return self.deciding_reviews if self.settings.review.corrections == "judged" else None

    @cached_property
    def registry(self) -> Registry:
        """The registry of sources, images and image shards."""
        return Registry(self.store)

    @cached_property
    def prompts(self) -> dict[str, str]:
        """The prompts' texts by name."""
        return load_prompts(self.settings.prompts, self.settings.write.variants, self.settings.further_prompts)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, with its weights loaded. Loading takes seconds, so only code that encodes reads this.

        Raises EncoderError.
        """
        chosen = self.settings.encoder
        network = None
        if chosen.precision == "int8":
            with contextlib.suppress(NotFoundError):
                network = self.store.get(self.encoder_network_key)
        return self.open_encoder(Recipe(chosen.runtime, chosen.precision, chosen.decode, chosen.fit, network))

    def open_encoder(self, recipe: Recipe) -> Encoder:
        """The settings' encoder by another recipe, with its weights loaded. Raises EncoderError.

        Weights in S3 are downloaded, once a machine; StoreError where they cannot be.
        """
        chosen, weights = self.settings.encoder, self.settings.encoder.pretrained
        if weights and weights.startswith("s3://"):
            weights = str(downloaded(weights, **self.s3_options))
        compiled: dict[str, Any] = {"compiled": True} if chosen.compiled else {}
        return open_encoder(chosen.name, chosen.model, weights, recipe, **compiled)

    @cached_property
    def encoder_network_key(self) -> str:
        """Where the store keeps the calibrated network of an encoder whose precision is int8."""
        return keys.encoder_network(self._encoder_settings_hash)

    @cached_property
    def _encoder_settings_hash(self) -> str:
        # Neither changes an image's embedding: under others, images need not be encoded again.
        chosen = self.settings.encoder.model_dump(exclude={"templates", "compiled"})
        return fingerprint("encoder.settings", chosen)[:32]

    @cached_property
    def encoder_id(self) -> str:
        """The hash of the encoder's identity in this store (16 hex digits): a part of the embeddings' keys."""
        return fingerprint("encoder", self.encoder_identity)[:16]

    @cached_property
    def type_encoder_id(self) -> str:
        """The same with the templates of task types, where there are any: a part of the task types' embeddings' key."""
        return fingerprint("encoder", self.type_encoder_identity)[:16]

    @property
    def type_encoder_identity(self) -> dict[str, Any]:
        """The encoder's identity, with the templates of task types where there are any."""
        templates = self.settings.encoder.templates
        return {**self.encoder_identity, **({"templates": list(templates)} if templates else {})}

    @cached_property
    def encoder_identity(self) -> dict[str, Any]:
        """The identity of the encoder that the settings named when this store first used them.

        A workspace that only reads does not record it.
        """
        key = keys.encoder(self._encoder_settings_hash)
        try:
            raw = self.store.get(key)
        except NotFoundError:
            raw = json.dumps(dict(self.encoder.identity), sort_keys=True, indent=1).encode()
            with contextlib.suppress(ReadOnlyError):
                self.store.put_if_absent(key, raw)
                raw = self.store.get(key)
        identity: dict[str, Any] = json.loads(raw)
        return identity

    def checked_encoder(self) -> Encoder:
        """The encoder, checked against the identity that the store recorded. Raises EncoderError if they differ."""
        recorded = self.encoder_identity
        local = dict(self.encoder.identity)
        for name in ("name", "weights", "revision", *CHOICES, "network"):
            if recorded.get(name) != local.get(name):
                raise EncoderError(
                    f"encoder {self.settings.encoder.name!r}: this machine has {name} {local.get(name)}, the store was "
                    f"made with {recorded.get(name)}. Install the same weights, or use another store prefix."
                )
        return self.encoder

    def ledger(self) -> Ledger:
        """The store's ledger under the caps of the settings."""
        budget = self.settings.budget
        sources = {name: _caps(caps) for name, caps in budget.sources.items()}
        return Ledger(self.store, _caps(budget), Scopes(self.run, _caps(budget.run), _caps(budget.day), sources))

    def run_budget(self) -> RunBudget:
        """The budget of this run's calls. It knows the source that each image shard's calls count for."""
        return RunBudget(self.ledger(), self.registry.origins())

    def publish_settings(self) -> tuple[int, str]:
        """Append these settings as the newest version, unless they are; returns the version's number and hash.

        Data carry the hash and not the number, so that settings that are rolled back give the same bytes.
        """
        body = self.settings.model_dump(mode="json")
        digest = fingerprint("settings", body)
        log = Log(self.store, keys.SETTINGS_LOG)

        def decide(entries: list[Any]) -> Mapping[str, Any] | None:
            if entries and entries[-1].body["hash"] == digest:
                return None
            return {"hash": digest, "settings": body}

        log.append_if(decide)
        return log.last, digest

    def settings_version(self, number: int) -> Settings:
        """The settings that were published under this number. Raises SettingsError if there are none."""
        entries = Log(self.store, keys.SETTINGS_LOG).read()
        for entry in entries:
            if entry.number == number:
                return parse_settings(entry.body["settings"], f"version {number} of {self.settings.store}")
        raise SettingsError(f"settings version {number}: there are 1 to {len(entries)} (0: none was published yet).")

    def journals(self) -> list[str]:
        """The ids of all shards that have a journal: the taxonomy's, and every image shard."""
        return [keys.TAXONOMY_SHARD, *(shard.id for shard in self.registry.shards())]

    def edits(self) -> Edits:
        """The log of what people changed of the models' answers."""
        return Edits(self.store)


def _caps(budget: CapSettings) -> Caps:
    cost = None if budget.max_cost is None else round(budget.max_cost * NANO)
    return Caps(cost, budget.max_calls, budget.max_tokens)


def _share_one_arena() -> None:
    """Make all threads allocate from one arena, where the C library is glibc.

    By default each thread has an arena of its own and never returns its memory, so that a long run's peak is an eighth
    higher than a short one's. Python's threads take turns anyway and gain nothing from separate arenas.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
