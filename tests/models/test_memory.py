"""The key-value memory: what a forward writes and reads, moves, copies of rows, growth."""

from __future__ import annotations

import pytest
import torch

from treewright.models.memory import Layout, Memory

PLANES = (((0, "key"), (2, 3)), ((0, "value"), (2, 3)), ((1, "key"), (1, 4)), ((1, "value"), (1, 4)))


def memory_of(rows: int = 3, scratch: int = 4, slots: int = 10, fill: bool = True) -> Memory:
    memory = Memory(Layout(PLANES, torch.float32, torch.device("cpu")), rows, scratch, slots)
    if fill:
        for number, plane in enumerate(planes(memory)):
            plane.copy_(torch.arange(plane.numel()).reshape(plane.shape) + 1000 * number)
    return memory


def planes(memory: Memory) -> list[torch.Tensor]:
    """Keys and values of layer 0, then of layer 1."""
    keys, values, layers = memory.planes()
    order = sorted(range(len(layers)), key=layers.__getitem__)
    return [plane for index in order for plane in (keys[index], values[index])]


def test_new_memory_is_zero_and_of_the_layouts_shapes():
    memory = memory_of(fill=False)
    assert sorted(memory.planes()[2]) == [0, 1]
    assert [tuple(plane.shape) for plane in planes(memory)] == [(3, 2, 10, 3)] * 2 + [(3, 1, 10, 4)] * 2
    assert all((plane == 0).all() for plane in planes(memory))
    assert memory.bytes() == 4 * 2 * (3 * 2 * 10 * 3 + 3 * 1 * 10 * 4)


def test_window_writes_and_reads_where_it_was_told():
    memory = memory_of()
    window = memory.window(range(1, 3), range(2, 4), range(0, 7))
    before = [plane.clone() for plane in planes(memory)]
    key, value = torch.rand(2, 2, 2, 3), torch.rand(2, 2, 2, 3)
    read_key, read_value = window.update(key, value, 0)
    assert torch.equal(read_key[:, :, 2:4], key)
    assert torch.equal(read_value[:, :, 2:4], value)
    assert read_key.shape == (2, 2, 7, 3)
    assert torch.equal(planes(memory)[0][1:3, :, 2:4], key)
    untouched = torch.ones(3, 2, 10, 3, dtype=torch.bool)
    untouched[1:3, :, 2:4] = False
    assert torch.equal(planes(memory)[0][untouched], before[0][untouched])
    assert torch.equal(planes(memory)[1][1:3, :, 2:4], value)
    assert all(torch.equal(planes(memory)[other], before[other]) for other in (2, 3))


@pytest.mark.parametrize(
    "moves",
    [
        [(0, 0, 6)],
        [(1, 2, 6), (1, 3, 7), (0, 0, 9)],
        [(1, 3, 6), (1, 0, 7), (1, 1, 8), (0, 2, 7)],
        [(row, source, target) for row in (0, 1, 2) for source, target in ((3, 6), (1, 7), (2, 9))],
    ],
    ids=["one slot", "runs", "gaps", "many runs"],
)
def test_moves_copy_scratch_slots_to_text_slots(moves):
    memory = memory_of()
    before = [plane.clone() for plane in planes(memory)]
    memory.move(*zip(*moves, strict=True))
    for old, new in zip(before, planes(memory), strict=True):
        for row, source, target in moves:
            old[row, :, target] = old[row, :, source]
        assert torch.equal(new, old)


@pytest.mark.parametrize("rows", [[0, 0, 2], [2, 0, 1], [1], [1, 1, 1], [0, 1, 2]], ids=str)
def test_select_copies_the_used_slots_of_rows(rows):
    memory = memory_of()
    before = [plane.clone() for plane in planes(memory)]
    memory.select(rows, range(4, 8))
    for old, new in zip(before, planes(memory), strict=True):
        for target, source in enumerate(rows):
            assert torch.equal(new[target, :, 4:8], old[source, :, 4:8])
        assert torch.equal(new[:, :, :4], old[:, :, :4])
        assert torch.equal(new[:, :, 8:], old[:, :, 8:])


def test_growth_keeps_what_was_there():
    memory = memory_of()
    larger = memory.grown(5, 16)
    assert (larger.rows, larger.slots, larger.scratch) == (5, 16, 4)
    for old, new in zip(planes(memory), planes(larger), strict=True):
        assert torch.equal(new[:3, :, :10], old)
        assert (new[3:] == 0).all()
        assert (new[:, :, 10:] == 0).all()
    assert memory.grown(1, 1).rows == 3
