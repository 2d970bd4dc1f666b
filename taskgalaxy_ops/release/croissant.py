"""``croissant.json``: the release as Croissant 1.1 (MLCommons): JSON-LD with the RAI vocabulary and PROV-O.

The Parquet files are one set of files, by which ``mlcroissant`` reads the records of the record set ``samples``; each
is listed with its SHA-256. Like the card it holds no time, cost or version number: the same plan gives the same bytes.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from taskgalaxy_ops.release.agreement import agreement
from taskgalaxy_ops.release.card.limits import limits
from taskgalaxy_ops.release.formats import folder_of
from taskgalaxy_ops.release.formats.parquet import SCHEMA, schema_for
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.text import clean

CROISSANT = "croissant.json"

_FILES = "parquet-files"
_RECORDS = "samples"
_PARQUET = "application/x-parquet"
_PICTURE = SCHEMA.field("image").type

# The context of the specification, word for word, and PROV-O's.
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_CONFORMS = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")

_ABOUT: Mapping[str, str] = {
    "id": "hash of image, task type, question form, question, answer and reasoning",
    "image": "the picture; null where the release only refers to it",
    "image_id": "SHA-256 of the source's file",
    "task_type": "path of the task type, its levels joined by ~",
    "variant": "the form of the question",
    "reasoning": "a chain of thought before the answer, if there is one",
    "votes": "each judge's vote: 1 approves, 0 rejects, null abstains",
    "simulated": "whether programs that stand in for models made the sample",
    "probability": "of being right, estimated by the votes",
    "further_turns": "of a conversation, the questions and answers after the first",
    "further_images": "of a question about several images, where the others lie",
    "further_image_ids": "SHA-256 of their sources' files",
    "context": "what the sources say of the image",
}


def croissant(plan: Selection) -> bytes:
    """The file, made once the Parquet files are listed in the plan's database."""
    counts = plan.counts
    simulated = "SIMULATED: programs that stand in for models made this. " if plan.inputs.simulated else ""
    licences = sorted({clean(licence).strip() for licence in plan.claimed.licences if licence})
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(_CONFORMS),
        "name": "taskgalaxy-release",
        "description": f"{simulated}{counts['samples']:,} questions and answers about {counts['images']:,} images, of "
        f"{counts['task_types']:,} task types: instruction data for vision-language models.",
        "identifier": plan.content_hash,
        "license": licences or ["unknown"],
        "keywords": ["instruction tuning", "vision-language", "visual question answering"],
        "isBasedOn": "https://arxiv.org/abs/2502.09925",
        "distribution": list(_distribution(plan)),
        "recordSet": [_records(schema_for(plan))],
        **_responsible(plan),
        **_provenance(plan),
    }
    return as_bytes(described)


def as_bytes(described: Mapping[str, Any]) -> bytes:
    return (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode()


def redacted(raw: bytes, files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The file after a take-down: it lists the Parquet files that are left, as they are now. files: of the manifest."""
    described = json.loads(raw)
    kept = []
    for each in described["distribution"]:
        path = each.get("contentUrl")
        if path is None:
            kept.append(each)
        elif path in files:
            kept.append({**each, **_checked(files[path]["size"], files[path]["sha256"])})
    return as_bytes({**described, "distribution": kept})


def _distribution(plan: Selection) -> Iterator[dict[str, Any]]:
    folder = folder_of("parquet")
    yield {
        "@type": "cr:FileSet",
        "@id": _FILES,
        "description": "All Parquet files; a file's name begins with its split.",
        "encodingFormat": _PARQUET,
        "includes": f"{folder}/*.parquet",
    }
    listed = plan.rows.execute("SELECT path, size, sha256 FROM files ORDER BY path")
    for path, size, sha256 in listed:
        if path.startswith(f"{folder}/"):
            one = {"@type": "cr:FileObject", "@id": path, "contentUrl": path, "encodingFormat": _PARQUET}
            yield {**one, **_checked(size, sha256)}


def _checked(size: int, sha256: str) -> dict[str, Any]:
    return {"contentSize": f"{size} B", "sha256": sha256}


# --- records -----------------------------------------------------------------------------------------------------


def _records(schema: pa.Schema) -> dict[str, Any]:
    split = _field("split", "sc:Text", {"extract": {"fileProperty": "fullpath"}})
    split["source"]["transform"] = {"regex": r"^.*?([a-z]+)-\d{5}-of-\d{5}\.parquet$"}
    split["description"] = "train, validation or test"
    return {
        "@type": "cr:RecordSet",
        "@id": _RECORDS,
        "key": {"@id": f"{_RECORDS}/id"},
        "description": "A question about an image with its answer, and how judges voted on it.",
        "field": [*(_column(column) for column in schema), split],
    }


def _column(column: pa.Field) -> dict[str, Any]:
    source = {"extract": {"column": column.name}}
    about = {"description": _ABOUT[column.name]} if column.name in _ABOUT else {}
    kind, array = column.type, {}
    if pa.types.is_list(kind):
        kind, array = kind.value_type, {"isArray": True, "arrayShape": "-1"}
    if kind == _PICTURE:  # mlcroissant opens no arrays of pictures: of those, where they lie
        part, data_type = ("path", "sc:Text") if array else ("bytes", "sc:ImageObject")
        field = _field(column.name, data_type, {**source, "transform": {"jsonPath": part}})
        return {**field, **array, **about}
    if not pa.types.is_struct(kind):
        return {**_field(column.name, _data_type(kind), source), **array, **about}
    parts = [
        _field(f"{column.name}/{part.name}", _data_type(part.type), {**source, "transform": _part(part.name)}) | array
        for part in kind
    ]
    return {"@type": "cr:Field", "@id": f"{_RECORDS}/{column.name}", "subField": parts, **array, **about}


def _part(name: str) -> dict[str, str]:
    """How a struct's field is read; names of context fields may hold any character."""
    return {"jsonPath": name if name.isidentifier() else json.dumps(name, ensure_ascii=False)}


def _field(name: str, data_type: str, source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{_RECORDS}/{quote(name)}",
        "dataType": data_type,
        "source": {"fileSet": {"@id": _FILES}, **source},
    }


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


# --- how it was made ---------------------------------------------------------------------------------------------


def _responsible(plan: Selection) -> dict[str, Any]:
    """The fields of Croissant's RAI vocabulary, by what the card says."""
    made = plan.made_with
    figures = agreement(plan.ballots, [judge.name for judge in plan.inputs.judges])
    voted, accepted = plan.verdicts
    models = [made["teacher"], *made["judges"]]
    alpha = "not defined" if figures.alpha is None else f"{figures.alpha:.3f}"
    said = [html.unescape(line.removeprefix("- ")) for line in limits(plan) if line.startswith("- ")]
    people = "review.rule" in plan.inputs.rules
    return {
        "rai:dataCollection": "Images of the sources that prov:wasDerivedFrom names; questions and answers by a model.",
        "rai:dataCollectionType": ["Existing datasets", "Software Collection"],
        "rai:dataPreprocessingProtocol": [
            "Each image is matched with the nearest task types of a taxonomy by an encoder."
            if plan.settings.images == "original"
            else "Each image is matched with the nearest task types of a taxonomy by an encoder, and released as the "
            "picture that the teacher was sent.",
        ],
        "rai:dataAnnotationProtocol": [
            "A teacher model keeps the task types that fit an image, and writes a question and an answer for each.",
            f"Judge models vote on each pair; of {voted:,} pairs with a verdict {accepted:,} were accepted.",
        ],
        "rai:dataAnnotationAnalysis": [f"Krippendorff's alpha of the judges: {alpha}."],
        "rai:machineAnnotationTools": [_model(each) for each in models],
        "rai:annotatorDemographics": [
            "Models wrote and judged the samples; people voted on some of them."
            if people
            else "Models wrote and judged the samples; no person annotated any."
        ],
        "rai:dataUseCases": ["Fine-tuning vision-language models."],
        "rai:dataLimitations": said,
        "rai:dataBiases": ["Those of the sources' images, of the models that wrote and judged, and of the taxonomy."],
        "rai:personalSensitiveInformation": [
            "Images may show persons, and questions may be about them; nothing was looked for or left out by that."
        ],
        "rai:dataReleaseMaintenancePlan": "Images that are taken down leave the release; withdrawn.json names them.",
    }


def _model(made: Mapping[str, Any]) -> str:
    revision = f", revision {clean(str(made['revision']))}" if made["revision"] else ""
    return f"{clean(str(made['model']))}{revision}" + (" (simulated)" if made["simulated"] else "")


def _provenance(plan: Selection) -> dict[str, Any]:
    made = plan.made_with
    sources = [
        {
            "@type": "prov:Entity",
            "prov:label": clean(source),
            "sc:license": clean(licence),
            "sc:creditText": clean(attribution),
        }
        for source, licence, attribution in sorted(plan.claimed.credits)
    ]
    encoder = made["encoder"].get("model") or made["encoder"].get("name") or "encoder"
    return {
        "prov:wasDerivedFrom": sources,
        "prov:wasGeneratedBy": [
            _activity("match", [clean(str(encoder))]),
            _activity("filter and write", [_model(made["teacher"])]),
            _activity("vote", [_model(judge) for judge in made["judges"]]),
        ],
    }


def _activity(name: str, agents: list[str]) -> dict[str, Any]:
    by = [{"@type": "prov:SoftwareAgent", "prov:label": agent} for agent in agents]
    return {"@type": "prov:Activity", "prov:label": name, "prov:wasAssociatedWith": by}
