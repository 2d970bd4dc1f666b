"""Operations on a store beside runs: status, plan, forecast, explain, verify, take-down, … (docs/operations.md)."""
