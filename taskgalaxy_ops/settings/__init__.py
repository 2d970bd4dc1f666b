"""Everything that can be configured. Settings are validated once, when they are read.

A settings file is YAML; a field that it leaves out has the default that is written here. Keys (secrets) are never
settings: a model names the environment variable that holds its key.
"""

from taskgalaxy_ops.extensions import QUESTION_FORMS
from taskgalaxy_ops.settings.airflow import AirflowSettings, DeadlineHours, NotifySettings, PoolSlots, Schedules
from taskgalaxy_ops.settings.base import Cron, Name, Strict, Validated, Variant, known, valid_name, validated
from taskgalaxy_ops.settings.budget import BudgetSettings, CapSettings
from taskgalaxy_ops.settings.finetune import CommandSettings, FinetuneSettings, KubernetesSettings, LmmsSettings
from taskgalaxy_ops.settings.load import (
    EXAMPLE,
    Settings,
    airflow_settings,
    finetune_settings,
    load_settings,
    offered_forms,
    parse_settings,
    read_yaml,
    release_settings,
    settings_path,
)
from taskgalaxy_ops.settings.models import IN_PROCESS, InProcessSettings, Model, Price
from taskgalaxy_ops.settings.pipeline import (
    BatchSettings,
    BranchTarget,
    EncoderSettings,
    FilterSettings,
    MatchSettings,
    RunSettings,
    TargetSettings,
    TaxonomySettings,
    WeaknessSettings,
    WriteSettings,
)
from taskgalaxy_ops.settings.release import (
    BalanceSettings,
    DecontaminateSettings,
    NearDuplicateSettings,
    ReleaseSettings,
    RepeatSettings,
)
from taskgalaxy_ops.settings.sources import IngestSettings, S3Settings, SourceSettings
from taskgalaxy_ops.settings.vote import BlindSettings, ProbabilityRule, ReviewSettings, VoteSettings

__all__ = [
    "EXAMPLE",
    "IN_PROCESS",
    "QUESTION_FORMS",
    "AirflowSettings",
    "BalanceSettings",
    "BatchSettings",
    "BlindSettings",
    "BranchTarget",
    "BudgetSettings",
    "CapSettings",
    "CommandSettings",
    "Cron",
    "DeadlineHours",
    "DecontaminateSettings",
    "EncoderSettings",
    "FilterSettings",
    "FinetuneSettings",
    "InProcessSettings",
    "IngestSettings",
    "KubernetesSettings",
    "LmmsSettings",
    "MatchSettings",
    "Model",
    "Name",
    "NearDuplicateSettings",
    "NotifySettings",
    "PoolSlots",
    "Price",
    "ProbabilityRule",
    "ReleaseSettings",
    "RepeatSettings",
    "ReviewSettings",
    "RunSettings",
    "S3Settings",
    "Schedules",
    "Settings",
    "SourceSettings",
    "Strict",
    "TargetSettings",
    "TaxonomySettings",
    "Validated",
    "Variant",
    "VoteSettings",
    "WeaknessSettings",
    "WriteSettings",
    "airflow_settings",
    "finetune_settings",
    "known",
    "load_settings",
    "offered_forms",
    "parse_settings",
    "read_yaml",
    "release_settings",
    "settings_path",
    "valid_name",
    "validated",
]
