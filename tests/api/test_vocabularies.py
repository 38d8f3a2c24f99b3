"""Draft models of another tokenizer through the public interface: text, limits and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer

import treewright as tw
from treewright.api.vocabularies import fitted
from treewright.core.errors import CapabilityError, ContextError
from treewright.core.registry import entries
from treewright.models.tables import Table
from treewright.train.tokenizer import train_tokenizer

CORPUS = [
    "A draft of another tokenizer: énumérer, naïve, façade. 😀😃 emoji, 日本語 too.\n" * 3,
    '{"name": "tree", "rows": [1, 2, 3], "text": "the target reads what the draft has written"}\n' * 3,
    "the tokens that the target and the draft share are the drafts; the others are written anew.\n" * 3,
]
PROMPTS = ["the draft: énumérer 😀", "日本語 {", "what the target reads and the others"]


def tiny(vocabulary: int, seed: int, positions: int = 512) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=positions, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(seed)
    network = transformers.LlamaForCausalLM(config).double().eval()
    network.generation_config.eos_token_id = 0
    return network


@pytest.fixture(scope="module")
def target() -> Any:
    tokenizer = train_tokenizer(CORPUS, 420, 512)
    return tw.load(tiny(len(tokenizer), 1), tokenizer)


@pytest.fixture(scope="module")
def draft() -> Any:
    tokenizer = train_tokenizer([text[: len(text) // 2].upper() + text for text in CORPUS], 300, 512)
    return tw.load(tiny(len(tokenizer), 2), tokenizer)


@pytest.fixture(scope="module")
def renumbered(target) -> Any:
    """The target itself under a tokenizer whose ids are the same tokens in another order."""
    order = np.random.default_rng(0).permutation(len(target.tokenizer))
    order = np.array([0, 1, *[number for number in order.tolist() if number > 1]])
    place = np.argsort(order).tolist()
    written = json.loads(target.tokenizer.backend_tokenizer.to_str())
    written["model"]["vocab"] = {text: place[number] for text, number in written["model"]["vocab"].items()}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(written)), bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    network = tiny(len(order), 1)
    with torch.no_grad():
        for layer in (network.model.embed_tokens, network.lm_head):
            layer.weight.copy_(layer.weight[torch.from_numpy(order)].clone())
    return tw.load(network, tokenizer)


METHODS = {
    "tli": {"tokens": 3}, "slem": {"tokens": 3}, "speculative_sampling": {"tokens": 3}, "specinfer": {"expansion": (2, 1, 1)},
    "rasd": {"depth": 3, "nodes": 9, "beam": 2},
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("settings", [{"temperature": 0.9, "seed": 3}, {"repetition_penalty": 1.4, "frequency_penalty": 0.2}])
def test_ragged_rows_are_those_of_plain_decoding(method, settings, target, draft):
    """Greedy with penalties for all, sampled for those that match the draws of plain decoding."""
    wanted = dict(max_new_tokens=16, ignore_eos=True, **settings)
    found = tw.generate(target, PROMPTS, method=method, options=METHODS[method], models={"draft": draft}, **wanted)
    plain = tw.generate(target, PROMPTS, **wanted)
    if "temperature" not in settings or method in ("slem", "rasd"):
        assert [one.tokens for one in found] == [one.tokens for one in plain]
        assert [one.text for one in found] == [one.text for one in plain]
    assert all(len(one.tokens) == 16 for one in found)


@pytest.mark.parametrize("method", METHODS)
def test_the_target_under_other_ids_has_all_its_drafts_accepted(method, target, renumbered):
    """What `adopt`, commits and text of several bytes leave in the draft's memory is what it would read anew; a method that
    reads its draft as text may cut it otherwise."""
    found = tw.generate(
        target, PROMPTS, method=method, options=METHODS[method], models={"draft": renumbered}, max_new_tokens=24, ignore_eos=True
    )
    gained = [[len(step.emitted) for step in one.trace.steps] for one in found]
    if method in ("slem", "rasd"):
        assert all(sum(row) == 24 and len(row) <= 9 for row in gained)
    else:
        assert gained == [[4] * 6] * 3


def test_a_constraint_holds(target, draft):
    for method in ("tli", "slem"):
        for temperature in (0.0, 1.0):
            found = tw.generate(
                target, PROMPTS, method=method, models={"draft": draft}, max_new_tokens=40, temperature=temperature,
                constraint=tw.regex("[a-c]{3}é(😀|x){2}"),
            )  # fmt: skip
            plain = tw.generate(
                target, PROMPTS, max_new_tokens=40, temperature=temperature, constraint=tw.regex("[a-c]{3}é(😀|x){2}")
            )
            assert all(one.finish_reason == "stop" for one in found)
            if temperature == 0 or method == "slem":
                assert [one.text for one in found] == [one.text for one in plain]


def test_slrs_refuses_vocabularies_of_long_tokens(target, draft):
    with pytest.raises(CapabilityError, match=r"more than 64; set slrs\.most higher, or use slem or tli"):
        tw.generate(target, PROMPTS[:1], method="slrs", models={"draft": draft}, max_new_tokens=4)


def test_one_tokenizer_is_not_translated(target):
    other = tw.load(tiny(len(target.tokenizer), 5), target.tokenizer)
    for temperature in (0.0, 1.0):
        settings = dict(models={"draft": other}, max_new_tokens=20, temperature=temperature)
        ours = tw.generate(target, PROMPTS, method="tli", **settings)
        theirs = tw.generate(target, PROMPTS, method="speculative_sampling", **settings)
        assert [one.tokens for one in ours] == [one.tokens for one in theirs]


def test_a_draft_without_a_tokenizer_is_refused(target):
    with pytest.raises(CapabilityError, match=r"both need a tokenizer, and 'LlamaForCausalLM' has none: give one to load"):
        tw.generate(target, PROMPTS, method="tli", models={"draft": tw.load(tiny(50, 1))})


def test_a_target_without_a_tokenizer_is_refused(draft):
    with pytest.raises(CapabilityError, match=r"a vocabulary of .* and 'Table' has none"):
        tw.generate(tw.load(Table(7, 0)), [[1, 2]], method="slem", models={"draft": draft})


def test_a_role_that_makes_the_law_is_never_translated(target, draft):
    with pytest.raises(CapabilityError, match=r"for the role 'anti_expert' .*give a model with the target's tokenizer$"):
        tw.generate(target, PROMPTS, method="dexperts", models={"expert": target, "anti_expert": draft})


def test_a_drafter_that_does_not_translate_names_those_that_do(target, draft):
    card = dataclasses.replace(entries()["tli"].card, translated=())
    with pytest.raises(CapabilityError, match=r"or a method that translates: .*slem.*slrs.*tli"):
        fitted(target, "draft", draft, [card])


def test_a_masked_draft_is_refused(target):
    with pytest.raises(CapabilityError, match=r"is no causal model"):
        tw.generate(target, PROMPTS, method="tli", models={"draft": tw.load("default-masked")})


def test_a_prompt_that_is_too_long_in_the_drafts_tokens_is_refused(target, draft):
    small = tw.load(tiny(len(draft.tokenizer), 2, positions=16), draft.tokenizer)
    with pytest.raises(ContextError, match=r"prompt 0 has \d+ tokens as model .* reads it, which has 16 positions"):
        tw.generate(target, ["日本語" * 6], method="tli", models={"draft": small})


def test_the_command_line(target, draft, tmp_path: Path, capsys):
    from treewright.cli.main import main

    folder = tmp_path / "draft"
    draft.model.save_pretrained(folder)
    draft.tokenizer.save_pretrained(folder)
    asked = ["generate", "the draft: é", "--model", "default", "--max-new-tokens", "8"]
    assert main(asked) == 0
    plain = capsys.readouterr().out
    assert main([*asked, "--method", "tli", "--with", f"draft={folder}"]) == 0
    assert capsys.readouterr().out == plain
