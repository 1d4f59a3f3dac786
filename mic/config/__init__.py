"""Define the settings of mic, load them from YAML files, and compare them."""

from mic.config.loading import load
from mic.config.schema import Config

__all__ = ["Config", "load"]
