"""docs/models.md: every block of settings in it is one that this version takes, and says what its text says."""

import re
from pathlib import Path

import pytest
import yaml

from taskgalaxy_ops.settings import Settings, parse_settings

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = {
    f"{TEXT[: found.start()].rpartition(chr(10) + '#')[2].splitlines()[0].strip('# ')}": yaml.safe_load(found[1])
    for found in re.finditer(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
}


@pytest.mark.parametrize("section", BLOCKS)
def test_the_settings_of_each_section_are_right(section: str) -> None:
    assert parse_settings(BLOCKS[section], section).judges


def test_every_kind_of_model_has_its_settings() -> None:
    assert len(BLOCKS) == TEXT.count("```yaml") == TEXT.count("```") / 2, "one block a section, and none left open"
    places = [model["base_url"] for block in BLOCKS.values() for model in (block["teacher"], *block["judges"])]
    for part in (
        "api.openai.com",
        "azure.com",
        "googleapis.com",
        "api.anthropic.com",
        ":11434/",
        ":8080/",
        "transformers:/",
    ):
        assert any(part in place for place in places), part


def test_the_papers_judges_are_there() -> None:
    settings: Settings = parse_settings(BLOCKS["By vLLM"])
    assert [judge.model for judge in settings.judges] == [
        "zai-org/glm-4v-9b",
        "OpenGVLab/InternVL-Chat-V1-5",
        "OpenGVLab/InternVL2-26B",
    ]
    for judge in settings.judges:
        port = judge.base_url.split(":")[2].removesuffix("/v1")
        assert f"vllm serve {judge.model} --port {port} " in TEXT


def test_each_field_of_a_model_that_the_page_names_exists() -> None:
    table = TEXT.split("## What an entry says")[1].split("\n\n")[1]
    named = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert named and named <= set(Settings.model_fields["teacher"].annotation.model_fields)  # type: ignore[union-attr]
