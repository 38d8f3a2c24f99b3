"""A record says where and on what it was measured."""

from __future__ import annotations

import torch

from treewright.api import Loaded
from treewright.bench.machine import machine, model_record, versions


def test_machine_and_versions() -> None:
    found = machine(torch.device("cpu"))
    assert found["threads"] == torch.get_num_threads() and found["cores"] >= 1
    assert found["processor"] and found["accelerator"] is None
    assert versions()["torch"] == torch.__version__
    assert set(versions()) - {"openvino-genai"} == {"python", "treewright", "torch", "transformers", "numpy"}


def test_model(tiny: Loaded) -> None:
    found = model_record(tiny, compiled=True)
    assert found["parameters"] == sum(weights.numel() for weights in tiny.model.parameters())
    assert (found["dtype"], found["device"], found["compiled"]) == ("float32", "cpu", True)
