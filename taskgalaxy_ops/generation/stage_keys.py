"""The keys of stage outputs: the one place where a stage declares the settings and inputs that its output depends on.

Nothing else changes its keys: no price, pool, time-out, URL or parallelism. Each key comes with a record, by name, of
what it is made of, which goes into the output's marker, so that a plan can say what changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskgalaxy_ops.generation.stages import INPUTS
from taskgalaxy_ops.generation.stages import filter as filter_stage
from taskgalaxy_ops.generation.stages import vote as vote_stage
from taskgalaxy_ops.generation.stages import write as write_stage
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models.request import RENDER_VERSION, RequestTemplate
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import Key, short, stage_output_key
from taskgalaxy_ops.workspace import Workspace

EMBED_VERSION = 1
MATCH_VERSION = 1


class StageKeys:
    """Makes the keys of a workspace's stage outputs, and the request templates of the stages that ask models."""

    def __init__(self, workspace: Workspace) -> None:
        settings, prompts = workspace.settings, workspace.prompts
        self._workspace = workspace
        self.filter_template = filter_stage.filter_template(prompts["filter"], settings.teacher)
        self.write_templates: dict[str, RequestTemplate] = {
            variant: write_stage.write_template(prompts[f"write_{variant}"], settings.teacher, variant)
            for variant in sorted(settings.write.variants)
        }
        self.vote_templates = [
            vote_stage.vote_template(prompts["vote"], judge, settings.vote.show_answer) for judge in settings.judges
        ]
        teacher = {"teacher": settings.teacher.name, **_model("teacher", settings.teacher)}
        self._made_of: dict[str, dict[str, Any]] = {
            "filter": {**teacher, **_prompts(prompts, "filter")},
            "write": {**teacher, **_prompts(prompts, *(f"write_{variant}" for variant in self.write_templates))},
            "vote": {
                "judges": ", ".join(judge.name for judge in settings.judges),
                **{
                    name: value
                    for judge in settings.judges
                    for name, value in _model(f"judge {judge.name}", judge).items()
                },
                **_prompts(prompts, "vote"),
            },
        }

    def embed(self, shard: ImageShard) -> Key:
        """The key of embed: images, and the encoder's identity."""
        encoder = self._workspace.encoder_id
        key = stage_output_key("embed", EMBED_VERSION, {"encoder": encoder}, {"images": shard.output})
        return Key(key, {"code": EMBED_VERSION, "encoder": short(encoder), "images": short(shard.output)})

    def match(self, embedded: str | None, types: str | None, gone: str | None) -> Key:
        """The key of match: the output of ``embed``, the hash of the task types' embeddings, that of the images that no
        source claims (None: there are none), and k. It is None while an input is not known."""
        k = self._workspace.settings.match.k
        key = None
        if embedded is not None and types is not None:
            key = stage_output_key("match", MATCH_VERSION, {"k": k}, {"images": embedded, "types": types, "dead": gone})
        made_of = {
            "code": MATCH_VERSION,
            "k": k,
            INPUTS["match"]: embedded and short(embedded),
            "task types": types and short(types),
            "images no source claims": short(gone) if gone else "none",
        }
        return Key(key, made_of)

    def filter(self, match: str | None, edits: int) -> Key:
        """The key of filter: matches, the teacher's identity, the prompt, and the number of the image shard's edits."""
        return self._asking("filter", filter_stage.FILTER_VERSION, [self.filter_template], {}, ("match", match), edits)

    def write(self, filtered: str | None, edits: int) -> Key:
        """The key of write: relevant matches, the teacher's identity, the variants with their prompts, and the number
        of the image shard's edits."""
        templates, rules = list(self.write_templates.values()), {"variants": list(self.write_templates)}
        return self._asking("write", write_stage.WRITE_VERSION, templates, rules, ("filter", filtered), edits)

    def vote(self, written: str | None, edits: int) -> Key:
        """The key of vote: pairs, the judges' identities in order, the prompt, the rules of the vote, and the number of
        the image shard's edits."""
        vote = self._workspace.settings.vote
        rules = {"quorum": vote.quorum, "audit_share": vote.audit_share, "show_answer": vote.show_answer}
        return self._asking("vote", vote_stage.VOTE_VERSION, self.vote_templates, rules, ("write", written), edits)

    def _asking(
        self,
        stage: str,
        version: int,
        templates: Sequence[RequestTemplate],
        rules: Mapping[str, Any],
        entry: tuple[str, str | None],
        edits: int,
    ) -> Key:
        before, output = entry
        asked = [
            {**_identity(template.model), "prompt": template.prompt, "head": template.head} for template in templates
        ]
        inputs = {before: output, "edits": edits}
        key = None if output is None else stage_output_key(stage, version, {**rules, "asked": asked}, inputs)
        plain = {name: ", ".join(value) if isinstance(value, list) else value for name, value in rules.items()}
        made_of = {"code": version, INPUTS[stage]: output and short(output), "forgets and take-downs": edits, **plain}
        return Key(key, {**made_of, **self._made_of[stage]})


def _identity(model: Model) -> dict[str, Any]:
    """The settings of a model that its answers depend on, and the name that it has in the data."""
    return {
        "name": model.name,
        "model": model.model,
        "revision": model.revision,
        "temperature": model.temperature,
        "render": [RENDER_VERSION, model.image_side, model.image_quality],
    }


def _model(role: str, model: Model) -> dict[str, Any]:
    """The same settings by name, as a plan shows them to people."""
    return {
        f"{role}: model": model.model,
        f"{role}: revision": model.revision,
        f"{role}: temperature": model.temperature,
        f"{role}: images": f"{model.image_side} px, quality {model.image_quality}, rendering {RENDER_VERSION}",
    }


def _prompts(prompts: Mapping[str, str], *names: str) -> dict[str, str]:
    return {f"prompt {name}": short(fingerprint("prompt", prompts[name])) for name in names}


def differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """The names of what differs between a wanted stage output and one that is there; [] if that is not recorded.

    wanted, there: `Key.made_of` of each. An input from the stage before that is not known yet (None) is left out.
    """
    if not there:
        return []
    found = []
    for name in sorted({*wanted, *there}):
        one, other = there.get(name), wanted.get(name)
        if one == other or (name in INPUTS.values() and other is None):
            continue
        if name.startswith("judge ") and (name in wanted) != (name in there):
            continue  # "judges" says so
        told = [str(value) for value in (one, other) if value is not None]
        if any(value.startswith("sha256:") for value in told):
            found.append(name)
        else:
            found.append(f"{name} {'unset' if one is None else one} -> {'unset' if other is None else other}")
    return found
