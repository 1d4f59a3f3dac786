"""What is asked for: the typed schema, YAML files over it, and what sets two configs apart."""

from mic.config.loading import load
from mic.config.schema import Config

__all__ = ["Config", "load"]
