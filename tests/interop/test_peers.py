"""Peers do what transformers does, are asked for nothing else, and leave nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import treewright as tw
from treewright.core.errors import CapabilityError, InputError
from treewright.interop.peers import PEERS, PeerSettings
from treewright.models.tables import Table

PROMPT = [2, 5, 9, 4, 5, 9]


@pytest.fixture(scope="module")
def target(network: Any) -> Any:
    return tw.load(network("llama"))


@pytest.fixture(scope="module")
def draft(network: Any) -> Any:
    return tw.load(network("llama", shaken=0.02))


@pytest.mark.parametrize("name", PEERS)
def test_greedy_tokens_and_calls(target: Any, draft: Any, name: str) -> None:
    expected = tw.generate(target, PROMPT, max_new_tokens=30).tokens
    run = PEERS[name](target, [PROMPT], PeerSettings(max_new_tokens=30, draft=draft))
    assert run.tokens == [expected]
    assert run.seconds > 0
    if name == "transformers":
        assert (run.model_calls, run.width) == (30, 1)
    else:
        assert run.model_calls < 30 and 1 < run.width <= 21


def test_a_ragged_batch_equals_its_rows(target: Any) -> None:
    prompts = [PROMPT, [3, 8], [7, 7, 2, 11]]
    alone = [PEERS["transformers"](target, [prompt], PeerSettings(max_new_tokens=12)).tokens[0] for prompt in prompts]
    assert PEERS["transformers"](target, prompts, PeerSettings(max_new_tokens=12)).tokens == alone


def test_rows_end_at_their_end_token(network: Any) -> None:
    free = tw.generate(tw.load(network("llama")), PROMPT, max_new_tokens=20).tokens
    model = tw.load(network("llama"))
    model.model.generation_config.eos_token_id = free[6]
    end = free.index(free[6])
    prompts = [PROMPT, [3, 8]]
    run = PEERS["transformers"](model, prompts, PeerSettings(max_new_tokens=20))
    assert run.tokens[0] == free[: end + 1]
    assert run.tokens == [tw.generate(model, prompt, max_new_tokens=20).tokens for prompt in prompts]
    assert PEERS["transformers"](model, [PROMPT], PeerSettings(max_new_tokens=20, ignore_eos=True)).tokens == [free]


def test_the_models_own_generation_config_is_set_aside(network: Any, draft: Any) -> None:
    expected = tw.generate(tw.load(network("llama")), PROMPT, max_new_tokens=20).tokens
    model = tw.load(network("llama"))
    own = model.model.generation_config
    own.repetition_penalty, own.do_sample, own.temperature, own.suppress_tokens = 1.7, True, 0.3, expected[:2]
    for peer in PEERS.values():
        assert peer(model, [PROMPT], PeerSettings(max_new_tokens=20, draft=draft)).tokens == [expected]
    assert model.model.generation_config is own
    assert not model.model._forward_hooks


@pytest.mark.parametrize("name", PEERS)
def test_seeds(target: Any, draft: Any, name: str) -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    drawn = [PEERS[name](target, [PROMPT], PeerSettings(20, 1.0, seed, draft=draft)).tokens for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_refusals(target: Any) -> None:
    with pytest.raises(InputError, match="role 'draft'"):
        PEERS["transformers:assisted"](target, [PROMPT], PeerSettings())
    with pytest.raises(InputError, match="2 prompts"):
        PEERS["transformers:prompt_lookup"](target, [PROMPT, PROMPT], PeerSettings())
    with pytest.raises(CapabilityError, match="Table"):
        PEERS["transformers"](tw.load(Table(8, 0)), [PROMPT], PeerSettings())
