"""Settings of the budget: the most that may be spent."""

from __future__ import annotations

from pydantic import Field

from taskgalaxy_ops.settings.base import Name, Strict


class CapSettings(Strict):
    """The most that may be spent; null: no cap."""

    max_cost: float | None = Field(None, ge=0, description="USD")
    max_calls: int | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=0, description="input and output")


class BudgetSettings(CapSettings):
    """The most that a store may spend: over its lifetime, and in a run, on a day and on a source."""

    max_cost: float | None = Field(5.0, ge=0, description="USD")
    max_calls: int | None = Field(5000, ge=0)
    run: CapSettings = Field(CapSettings(), description="one command, or one run of a DAG with all its lanes")
    day: CapSettings = Field(CapSettings(), description="any day, in UTC")
    sources: dict[Name, CapSettings] = Field({}, description="calls about images that this source brought first")

    @property
    def counts_money(self) -> bool:
        """Whether any of the caps limits money."""
        return any(caps.max_cost is not None for caps in (self, self.run, self.day, *self.sources.values()))
