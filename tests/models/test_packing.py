import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import treewright as tw
from treewright.models import packing
from treewright.models.packing import Packing

pytestmark = pytest.mark.skipif(not packing._has_kernels(), reason="torch has no bfloat16 kernels for this processor")


class Network(nn.Module):
    def __init__(self, dtype=torch.bfloat16, sizes=(24, 40, 16)):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(sizes[0], sizes[1], dtype=dtype)
        self.second = nn.Linear(sizes[1], sizes[2], bias=False, dtype=dtype)

    def forward(self, states):
        return self.second(self.first(states))


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def states():
    torch.manual_seed(1)
    return torch.randn(2, 5, 24, dtype=torch.bfloat16)


@pytest.fixture
def calls(monkeypatch):
    """The layers' own products, each time one is asked for."""
    asked, own = [], nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda *inputs: asked.append(1) or own(*inputs))
    return asked


@torch.inference_mode()
def ran(packed, network, states):
    with packed.running():
        return network(states)


@pytest.mark.parametrize("tokens", [1, 2, 7, 24, 130])
@pytest.mark.parametrize("sizes", [(24, 40, 16), (7, 1, 3), (256, 768, 130)], ids=str)
def test_what_is_packed_gives_the_same(sizes, tokens, calls):
    network = Network(sizes=sizes)
    states = torch.randn(tokens, sizes[0], dtype=torch.bfloat16)
    with torch.inference_mode():
        own = network(states)
    assert len(calls) == 2
    packed = Packing.of(network)
    packed.refresh()
    torch.testing.assert_close(ran(packed, network, states), own)
    assert len(calls) == 2, "the layers' own forward was run"


def in_place(network):
    with torch.no_grad():
        network.first.weight.add_(1)


def one_number(network):
    with torch.no_grad():
        network.first.weight[3, 5] += 100


def by_data(network):
    network.second.weight.data.add_(1)


def another(network):
    network.first.weight = nn.Parameter(network.first.weight.detach() + 1)


def bias(network):
    network.first.bias = nn.Parameter(network.first.bias.detach() + 1)


def bias_in_place(network):
    network.first.bias.data += 1


def none(network):
    network.first.bias = None


def widened(network):
    network.float()


def adapted(network):
    network.second = nn.Sequential(network.second, nn.Linear(16, 16, dtype=torch.bfloat16))


@pytest.mark.parametrize("change", [in_place, one_number, by_data, another, bias, bias_in_place, none, widened, adapted])
def test_a_change_of_the_weights_is_seen_by_the_next_decode(change, network, states):
    packed = Packing.of(network)
    packed.refresh()
    before = ran(packed, network, states)
    change(network)
    packed.refresh()
    states = states.to(network.first.weight.dtype)
    after = ran(packed, network, states)
    torch.testing.assert_close(after, network(states).detach())
    assert not torch.equal(before.to(after), after)


def test_layers_are_themselves_after_a_forward_and_after_one_that_failed(network, states):
    packed = Packing.of(network)
    packed.refresh()
    ran(packed, network, states)
    with pytest.raises(RuntimeError):
        ran(packed, network, states[..., :3])
    assert not any("forward" in module.__dict__ for module in network.modules())
    with packed.running(), packed.running():
        pass
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_other_threads_run_the_layers_own_forward(network, states, calls):
    packed = Packing.of(network)
    packed.refresh()
    with packed.running(), ThreadPoolExecutor(1) as other, torch.inference_mode():
        other.submit(lambda: network(states)).result()
        assert len(calls) == 2
        other.submit(lambda: ran(packed, network, states)).result()
        assert len(calls) == 2
        other.submit(packed.refresh).result()
        network(states)
        assert len(calls) == 2


@pytest.mark.parametrize("late", [False, True])
def test_what_has_a_forward_of_its_own_is_left_alone(late, network, states):
    class Other(nn.Linear):
        def forward(self, states):
            return super().forward(states) * 2

    network.second = Other(40, 16, bias=False, dtype=torch.bfloat16)
    packed, own = Packing.of(network), network.first.forward
    if late:
        packed.refresh()
    network.first.forward = lambda states: own(states) * 3
    if not late:
        packed.refresh()
    hooked = network.first.forward
    with torch.inference_mode():
        assert torch.equal(ran(packed, network, states), network(states))
    assert network.first.forward is hooked


def test_hooks_are_heard(network, states):
    packed, heard = Packing.of(network), []
    packed.refresh()
    network.first.register_forward_hook(lambda *call: heard.append(call))
    ran(packed, network, states)
    assert len(heard) == 1


@pytest.mark.parametrize("reason", ["unwanted", "memory", "dtype"])
def test_nothing_is_packed_where_it_should_not_be(reason, monkeypatch, states, calls):
    network = Network(torch.float32 if reason == "dtype" else torch.bfloat16)
    packed = Packing.of(network)
    packed.wanted = reason != "unwanted"
    size = sum(layer.weight.nbytes for layer in network.children())
    monkeypatch.setattr(packing, "free_bytes", lambda device: packing.SHARE * size - (reason == "memory"))
    packed.refresh()
    ran(packed, network, states.to(network.first.weight.dtype))
    assert len(calls) == 2


def test_memory_that_just_suffices_is_used(monkeypatch, network, states, calls):
    size = sum(layer.weight.nbytes for layer in network.children())
    monkeypatch.setattr(packing, "free_bytes", lambda device: packing.SHARE * size)
    packed = Packing.of(network)
    packed.refresh()
    ran(packed, network, states)
    assert not calls


def test_a_network_has_one_packing_and_takes_it_along():
    network = Network()
    packed = Packing.of(network)
    assert Packing.of(network) is packed
    packed.refresh()
    gone = weakref.ref(packed)
    del network, packed
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(("name", "method"), [("default", "plain"), ("default-seq2seq", "plain"), ("default-masked", "llada")])
def test_a_text_is_the_same_and_made_of_packed_weights_alone(name, method, calls):
    own, packed = (tw.load(name, dtype="bfloat16", pack=pack) for pack in (False, True))
    text = tw.generate(own, "copy: a b c", method, max_new_tokens=8).tokens
    assert calls
    calls.clear()
    assert tw.generate(packed, "copy: a b c", method, max_new_tokens=8).tokens == text
    assert not calls
