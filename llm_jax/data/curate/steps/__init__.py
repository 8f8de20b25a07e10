"""The steps of recipes, one file per set of rules. Each is a dataclass of thresholds."""
