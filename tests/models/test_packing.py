import copy
import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

import treewright as tw
from treewright.models import packing
from treewright.models.packing import PackedLinear, Packing

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
    packed = Packing(network)
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


def a_head(network):
    network.second.weight.data[:, 8:16] = 0


def two_rows_change_places(network):
    with torch.no_grad():
        network.second.weight[[0, 1]] = network.second.weight[[1, 0]]


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


CHANGES = [
    in_place, one_number, by_data, a_head, two_rows_change_places, another, bias, bias_in_place, none, widened, adapted,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_weights_is_seen_by_the_next_decode(change, network, states):
    packed = Packing(network)
    before = ran(packed, network, states)
    change(network)
    packed.refresh()
    states = states.to(network.first.weight.dtype)
    after = ran(packed, network, states)
    torch.testing.assert_close(after, network(states).detach())
    assert not torch.equal(before.to(after), after)


def test_layers_are_themselves_after_a_forward_and_after_one_that_failed(network, states):
    packed = Packing(network)
    ran(packed, network, states)
    with pytest.raises(RuntimeError):
        ran(packed, network, states[..., :3])
    with packed.running(), packed.running():
        assert {type(layer) for layer in network.children()} == {PackedLinear}
    assert {type(layer) for layer in network.children()} == {nn.Linear} and not packing._active


def test_other_threads_run_the_layers_own_forward(network, states, calls):
    packed = Packing(network)
    with packed.running(), ThreadPoolExecutor(1) as other, torch.inference_mode():
        other.submit(lambda: network(states)).result()
        assert len(calls) == 2
        other.submit(lambda: ran(packed, network, states)).result()
        assert len(calls) == 2
        network(states)
        assert len(calls) == 2


def test_weights_that_change_while_another_thread_runs_are_seen_by_the_next_decode(network, states):
    packed, other = Packing(network), Packing(network)
    with other.running(), ThreadPoolExecutor(1) as thread, torch.inference_mode():
        network.first.weight.data.add_(1)
        packed.refresh()
        found = thread.submit(lambda: ran(packed, network, states)).result()
        torch.testing.assert_close(found, thread.submit(lambda: network(states)).result())
    assert {type(layer) for layer in network.children()} == {nn.Linear} and not packing._active


def test_a_copy_that_is_made_meanwhile_is_a_network_of_its_own(network, states):
    with Packing(network).running():
        twin, pickled = copy.deepcopy(network), pickle.loads(pickle.dumps(network.first))
        twin.first.weight.data.add_(1)
        with torch.inference_mode():
            found = twin(states)
    torch.testing.assert_close(found, twin(states).detach())
    assert torch.equal(pickled(states), network.first(states))
    Packing(twin)
    with Packing(twin).running():
        pass
    assert type(twin.first) is nn.Linear


@pytest.mark.parametrize("change", ["pruned", "pruned bias", "weight norm"])
def test_layers_that_make_their_weights_are_left_alone(change, network, states):
    packed = Packing(network)
    if change == "weight norm":
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(network.first)
    else:
        nn.utils.prune.random_unstructured(network.first, "bias" if "bias" in change else "weight", amount=0.5)
    for _ in range(2):
        packed.refresh()
        with torch.inference_mode():
            assert torch.equal(ran(packed, network, states), network(states))


def test_what_its_owner_compiled_is_left_alone(network, states, calls):
    network.second._compiled_call_impl = network.second._call_impl
    ran(Packing(network), network, states)
    assert len(calls) == 2


@pytest.mark.parametrize("late", [False, True])
def test_what_has_a_forward_of_its_own_is_left_alone(late, network, states):
    class Other(nn.Linear):
        def forward(self, states):
            return super().forward(states) * 2

    network.second = Other(40, 16, bias=False, dtype=torch.bfloat16)
    packed, own = Packing(network), network.first.forward
    network.first.forward = lambda states: own(states) * 3
    if not late:
        packed.refresh()
    hooked = network.first.forward
    with torch.inference_mode():
        assert torch.equal(ran(packed, network, states), network(states))
    assert network.first.forward is hooked


def test_hooks_are_heard(network, states):
    packed, heard = Packing(network), []
    network.first.register_forward_hook(lambda *call: heard.append(call))
    ran(packed, network, states)
    assert len(heard) == 1


@pytest.mark.parametrize("reason", ["unwanted", "memory", "dtype"])
def test_nothing_is_packed_where_it_should_not_be(reason, monkeypatch, states, calls):
    network = Network(torch.float32 if reason == "dtype" else torch.bfloat16)
    size = sum(layer.weight.nbytes for layer in network.children())
    monkeypatch.setattr(packing, "free_bytes", lambda device: packing.SHARE * size - (reason == "memory"))
    ran(Packing(network, reason != "unwanted"), network, states.to(network.first.weight.dtype))
    assert len(calls) == 2


def test_memory_that_just_suffices_is_used(monkeypatch, network, states, calls):
    size = sum(layer.weight.nbytes for layer in network.children())
    monkeypatch.setattr(packing, "free_bytes", lambda device: packing.SHARE * size)
    ran(Packing(network), network, states)
    assert not calls


def test_one_copy_serves_all_who_load_a_network():
    network = Network()
    first, second = Packing(network), Packing(network)
    assert [copy for _, copy in first._layers] == [copy for _, copy in second._layers] != []


def test_nothing_outlives_the_network():
    gc.collect()
    network = Network()
    # As a tool would that looks at activations.
    network.second.register_forward_hook(lambda *call, network=network: None)
    packed = Packing(network)
    gone, copies = weakref.ref(network), len(Packing._copies)
    del network, packed
    gc.collect()
    assert gone() is None and len(Packing._copies) == copies - 2


def test_weights_that_changed_before_a_load_are_those_that_are_probed(states):
    """Loading runs forwards of its own."""
    network = tw.load("default", dtype="bfloat16").model
    with torch.no_grad():
        network.model.layers[0].mlp.down_proj.weight.mul_(-1)
    packed, own = tw.load(network), tw.load(network, pack=False)
    assert tw.generate(packed, [1, 2, 3], max_new_tokens=8).tokens == tw.generate(own, [1, 2, 3], max_new_tokens=8).tokens


@pytest.mark.parametrize(("name", "method"), [("default", "plain"), ("default-seq2seq", "plain"), ("default-masked", "llada")])
def test_a_text_is_the_same_and_made_of_packed_weights_alone(name, method, calls):
    own, packed = (tw.load(name, dtype="bfloat16", pack=pack) for pack in (False, True))
    text = tw.generate(own, "copy: a b c", method, max_new_tokens=8).tokens
    assert calls
    calls.clear()
    assert tw.generate(packed, "copy: a b c", method, max_new_tokens=8).tokens == text
    assert not calls
