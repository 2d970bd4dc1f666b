"""The keys of stage outputs: the one place where a stage declares the settings and inputs that its output depends on.

Nothing else changes its keys: no price, pool, time-out, URL or parallelism. Each key comes with a record, by name, of
what it is made of, which goes into the output's marker, so that a plan can say what changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from taskgalaxy_ops.generation import starving
from taskgalaxy_ops.generation.corrected import answers_by_shard
from taskgalaxy_ops.generation.groups import Groups
from taskgalaxy_ops.generation.pictures import Apart, images_apart, of_model
from taskgalaxy_ops.generation.staged import staged
from taskgalaxy_ops.generation.stages import ASKING, INPUTS, STAGE, Role, before
from taskgalaxy_ops.generation.stages.asking import Templates, prompt_name, pure
from taskgalaxy_ops.generation.store_groups import StoreGroups
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models.request import RENDER_VERSION
from taskgalaxy_ops.settings import Model, Settings
from taskgalaxy_ops.sources.context import Context, by_image, context_of
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import Key, short, stage_output_key
from taskgalaxy_ops.workspace import Workspace

_GROUPS = "groups of images"
_SHARDS_KEPT = 16  # whose contexts and groups are in memory


class StageKeys:
    """Makes the keys of a workspace's stage outputs, and the request templates of the stages that ask models."""

    def __init__(self, workspace: Workspace) -> None:
        settings = workspace.settings
        self._workspace = workspace
        self._plain = {name: pure(name).templates(workspace.prompts, settings) for name in ASKING}
        self._fields = {name: frozenset(getattr(settings, name).context) for name in ASKING}
        self._rules: dict[str, dict[str, Any]] = {}  # of the stages that were asked for
        self._contexts: dict[str, Context] = {}  # of the image shards that were asked for last
        self._fingerprints: dict[str, dict[tuple[tuple[int, int], ...], str | None]] = {}  # of rendered apart, by shard
        self._store_groups = StoreGroups(workspace)
        self._groups: dict[str, Groups] = {}  # of the image shards that were asked for last
        self._made_of = {name: _named(STAGE[name].role, settings, self._plain[name]) for name in ASKING}

    def _rules_of(self, name: str) -> dict[str, Any]:
        if name not in self._rules:
            self._rules[name] = pure(name).rules(staged(self._workspace, stage=name))
        return self._rules[name]

    @cached_property
    def _apart(self) -> Apart:
        settings = self._workspace.settings
        return images_apart(self._workspace, [settings.teacher, *settings.judges])

    @cached_property
    def _answers(self) -> dict[str, str]:
        return answers_by_shard(self._workspace)

    @cached_property
    def _templates(self) -> dict[str, Templates]:
        """By stage. They know the store's images that are rendered otherwise than most (``pictures``)."""
        return {
            name: {form: replace(each, apart=of_model(self._apart, each.model)) for form, each in templates.items()}
            for name, templates in self._plain.items()
        }

    def templates_for(self, shard: str) -> dict[str, Templates]:
        """By stage, as they ask about an image shard: they know the context of its images that they show."""
        found = dict(self._templates)
        for name in ASKING:
            if said := self._shown(name, shard):
                found[name] = {form: replace(each, context=said) for form, each in found[name].items()}
        if (groups := self._grouped("write", shard)) is not None:
            found["write"] = {
                form: each if each.groups is None else replace(each, groups=groups)
                for form, each in found["write"].items()
            }
        return found

    @cached_property
    def _shards(self) -> dict[str, ImageShard]:
        return {shard.id: shard for shard in self._workspace.registry.shards()}

    @cached_property
    def _dead(self) -> dict[str, str]:
        return self._workspace.registry.dead_hashes()

    def _grouped(self, name: str, shard: str) -> Groups | None:
        """The groups of an image shard's images; None where the stage asks about no group."""
        if not shard or all(each.groups is None for each in self._plain[name].values()):
            return None
        if shard not in self._groups:
            embedded = str(self.embed(self._shards[shard], self._dead.get(shard)).key)
            self._groups[shard] = self._store_groups.of(self._shards[shard], embedded)
            if len(self._groups) > _SHARDS_KEPT:
                del self._groups[next(iter(self._groups))]
        return self._groups[shard]

    def _shown(self, name: str, shard: str) -> Context:
        """What a stage shows of the context of an image shard's images; {} where it shows none."""
        fields = self._fields[name]
        if not fields or not shard:
            return {}
        if shard not in self._contexts:
            there = by_image(self._workspace.registry.claims_of(shard))
            every = {field for each in self._fields.values() for field in each}
            self._contexts[shard] = {image: context_of(claims, every) for image, claims in there.items()}
            if len(self._contexts) > _SHARDS_KEPT:
                del self._contexts[next(iter(self._contexts))]
        shown = (
            (image, {k: v for k, v in said.items() if k in fields}) for image, said in self._contexts[shard].items()
        )
        return {image: said for image, said in shown if said}

    def embed(self, shard: ImageShard, gone: str | None) -> Key:
        """The key of embed: images, and the encoder's identity.

        gone: the hash of the image shard's images that no source claims (None: there are none). Where images are not
        copied, these cannot be encoded, and come back only with a scan.
        """
        encoder, left_out = self._workspace.encoder_id, gone if shard.referred else None
        inputs = {"images": shard.output, "dead": left_out}
        key = stage_output_key("embed", STAGE["embed"].version, {"encoder": encoder}, inputs)
        made_of = {"code": STAGE["embed"].version, "encoder": short(encoder), "images": short(shard.output)}
        return Key(key, {**made_of, **({"images no source claims": short(left_out)} if left_out else {})})

    def match(self, embedded: str | None, types: str | None, gone: str | None) -> Key:
        """The key of match: the output of ``embed``, the hash of the task types' embeddings, that of the images that no
        source claims (None: there are none), k, and what else is set of the match's settings; with
        ``prefer_starving``, the hash of the coverage entry. It is None while an input is not known."""
        k, breadth = self._workspace.settings.match.k, self._workspace.settings.match.breadth
        counted = starving.entry(self._workspace) if "prefer_starving" in breadth else None
        key = None
        if embedded is not None and types is not None:
            inputs = {"images": embedded, "types": types, "dead": gone}
            inputs |= {"coverage": counted.hash} if counted else {}
            key = stage_output_key("match", STAGE["match"].version, {"k": k, **breadth}, inputs)
        made_of = {
            "code": STAGE["match"].version,
            "k": k,
            **breadth,
            STAGE["match"].input: embedded and short(embedded),
            "task types": types and short(types),
            "images no source claims": short(gone) if gone else "none",
            **({"coverage entry": counted.number} if counted else {}),
        }
        return Key(key, made_of)

    def asking(self, name: str, before_: str | None, edits: int, shard: str = "", subset: str | None = None) -> Key:
        """The key of a stage that asks models about an image shard: the output of the stage before, the models'
        identities, the prompts, the stage's rules, the number of the image shard's edits, how its images are
        rendered that are rendered otherwise than most, the context that is shown of them, their groups, and people's
        answers that judges are asked about.

        subset: the hash of the matches that targets take (None: all), which is an input of the filter alone.
        """
        version, rules = STAGE[name].version, self._rules_of(name)
        asked = [
            {**_identity(each.model), "prompt": each.prompt, "head": each.head, "form": each.form}
            for each in self._plain[name].values()
        ]
        apart = self._rendered_apart(name, shard)
        said = self._shown(name, shard)
        context = fingerprint("context", said) if said else None
        subset = subset if name == ASKING[0] else None
        # What is not matched yet may not be encoded: nothing is encoded to know a key that is not known.
        grouped = None if before_ is None else self._grouped(name, shard)
        groups = None if grouped is None else fingerprint("groups", grouped)
        inputs = {before(name): before_, "edits": edits, "apart": apart, "context": context, "subset": subset}
        answers = self._answers.get(shard) if name == "vote" else None
        inputs |= {"groups": groups, "corrections": answers}
        key = None if before_ is None else stage_output_key(name, version, {**rules, "asked": asked}, inputs)
        plain = {rule: _in_words(rule, value) for rule, value in rules.items()}
        made_of = {
            "code": version,
            STAGE[name].input: before_ and short(before_),
            "forgets and take-downs": edits,
            **plain,
            **({"images rendered otherwise than most": short(apart)} if apart else {}),
            **({"context of images": short(context)} if context else {}),
            **({_GROUPS: short(groups)} if groups else {}),
            **({"matches that targets take": short(subset)} if subset else {}),
            **({"people's answers": short(answers)} if answers else {}),
        }
        return Key(key, {**made_of, **self._made_of[name]})

    def _rendered_apart(self, name: str, shard: str) -> str | None:
        """Fingerprint of how an image shard's images are rendered that are rendered otherwise; None: there are none."""
        if not (images := self._apart.get(shard)):
            return None
        # One model for all that are shown the same. Mostly teacher and judges are, and the stages share what is found.
        sizes = {(each.model.image_side, each.model.image_min_side): each.model for each in self._plain[name].values()}
        known = self._fingerprints.setdefault(shard, {})
        if tuple(sizes) not in known:
            how: dict[str, list[dict[str, Any]]] = {}
            for image, found in images.items():
                for part in (found.apart(model) for model in sizes.values()):
                    if part and part not in how.setdefault(image, []):
                        how[image].append(part)
            how = {image: parts for image, parts in how.items() if parts}
            known[tuple(sizes)] = fingerprint("rendered apart", how) if how else None
        return known[tuple(sizes)]


def _in_words(rule: str, value: Any) -> Any:
    """A stage's rule as a plan shows it to people."""
    if isinstance(value, Mapping):
        return short(fingerprint(rule, value))
    return ", ".join(value) if isinstance(value, list) else value


def _named(role: Role, settings: Settings, templates: Templates) -> dict[str, Any]:
    """Whom an asking stage asks and how, by name, for people."""
    found: dict[str, Any]
    if role == "teacher":
        found = {"teacher": settings.teacher.name, **_model("teacher", settings.teacher)}
    else:
        found = {"judges": ", ".join(judge.name for judge in settings.judges)}
        for judge in settings.judges:
            found |= _model(f"judge {judge.name}", judge)
        if blind := settings.vote.blind:
            found |= {"blind probe": f"{blind.model.name}, {blind.tries} tries", **_model("blind probe", blind.model)}
    for template in templates.values():
        found[f"prompt {prompt_name(template)}"] = short(fingerprint("prompt", template.prompt))
        if template.form:
            found[f"question form {template.form['name']}"] = f"version {template.form['version']}"
    return found


def _identity(model: Model) -> dict[str, Any]:
    """The settings of a model that its answers depend on, and the name that it has in the data."""
    return {
        "name": model.name,
        "model": model.model,
        "revision": model.revision,
        "temperature": model.temperature,
        "sampling": model.sampling or None,
        "render": [RENDER_VERSION, model.image_side, model.image_quality],
    }


def _model(role: str, model: Model) -> dict[str, Any]:
    """The same settings by name, as a plan shows them to people."""
    return {
        f"{role}: model": model.model,
        f"{role}: revision": model.revision,
        f"{role}: temperature": model.temperature,
        **{f"{role}: {name}": str(value) for name, value in model.sampling.items()},
        f"{role}: images": f"{model.image_side} px, quality {model.image_quality}, rendering {RENDER_VERSION}",
    }


def differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """The names of what differs between a wanted stage output and one that is there; [] if that is not recorded.

    wanted, there: `Key.made_of` of each. What is not known yet of the input from the stage before (None) is left out.
    """
    if not there:
        return []
    found = []
    for name in sorted({*wanted, *there}):
        one, other = there.get(name), wanted.get(name)
        if one == other or (name in {*INPUTS, _GROUPS} and other is None):
            continue
        judge = f"{name.partition(': ')[0]}: model"
        if name.startswith("judge ") and (judge in wanted) != (judge in there):
            continue  # "judges" says so
        told = [str(value) for value in (one, other) if value is not None]
        if any(value.startswith("sha256:") for value in told):
            found.append(name)
        else:
            found.append(f"{name} {'unset' if one is None else one} -> {'unset' if other is None else other}")
    return found
