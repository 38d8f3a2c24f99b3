import pytest
import torch

from treewright.models import free_memory
from treewright.models.free_memory import free_bytes


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 500\ninactive_file 200\n"}, 500),
        ({"memory.max": "1000\n", "memory.current": "1200\n", "memory.stat": ""}, 0),
        ({"memory.max": "max\n", "memory.current": "700\n", "memory.stat": ""}, None),
        ({"memory.max": "1000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_has_what_its_limit_leaves(files, left, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert free_memory._allowed(tmp_path) == left


def test_the_least_of_what_is_known_is_free(monkeypatch):
    for machine, container, free in ((5, 3, 3), (5, None, 5), (None, 3, 3), (None, None, None)):
        monkeypatch.setattr(free_memory, "_available", lambda machine=machine: machine)
        monkeypatch.setattr(free_memory, "_allowed", lambda container=container: container)
        assert free_bytes(torch.device("cpu")) == free
