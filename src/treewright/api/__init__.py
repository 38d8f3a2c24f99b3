"""The library's front door: wires a model, a recipe and the engine together."""

from treewright.api.generate import Streamer, generate, stream
from treewright.api.job import CPU_COLUMNS, Job
from treewright.api.prepare import fits, prepare
from treewright.api.prompts import Prompt
from treewright.core.build import build_parts
from treewright.models.loading import Loaded, load
from treewright.models.rewards import load_reward

__all__ = [
    "CPU_COLUMNS", "Job", "Loaded", "Prompt", "Streamer", "build_parts", "fits", "generate", "load", "load_reward", "prepare",
    "stream",
]  # fmt: skip
