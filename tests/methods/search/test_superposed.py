"""Superposed decoding against the paper's loop on tables and on a network fed by hand, its greedy limit, n-grams, refusals."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch

import treewright
from treewright.core.claims import Forest
from treewright.core.errors import CapabilityError, CompositionError, InputError, UnknownOption
from treewright.core.request import Budget
from treewright.core.session import Opening
from treewright.core.text import Text
from treewright.methods.search.superposed import Config
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.parts.search.ngrams import NGrams
from treewright.testing.enumerate import total_variation

TABLE = Table(6, seed=1, sharpness=1.5)
PROMPTS = [[1, 2, 1, 4, 1, 2], [3], [0, 5, 0, 5, 2]]
CORPUS = np.random.default_rng(2).integers(0, 6, 400)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "tokens.npy"
    np.save(path, CORPUS)
    return str(path)


def softmax(values):
    weights = np.exp(np.array(values) - np.max(values))
    return weights / weights.sum()


def share(text, context, token):
    """The share of `token` among what follows `context` in a text, counted place by place."""
    size, text = len(context), list(text)
    after = [text[i + size] for i in range(len(text) - size) if text[i : i + size] == list(context)]
    return after.count(token) / len(after) if after else 0.0


def by_hand(answer, prompt, count, text, config, ends=()):
    """The paper's loop. answer(states): logits after the prompt and a list of {token: weight}."""
    drafts, ended, states = [((), 0.0)], [], []
    for step in range(count):
        law = softmax(answer(prompt, states) / config.temperature)
        kept = sorted(range(len(law)), key=lambda token: -law[token])[: config.top]
        total, grown = sum(law[token] for token in kept), []
        for tokens, score in drafts:
            whole, scores = [*prompt, *tokens], {}
            for token in kept:
                known = sum(
                    weight * share(text, whole[-size:], token)
                    for size, weight in enumerate(config.weights, 1) if size <= len(whole)
                )  # fmt: skip
                scores[token] = (1 - config.alpha) * math.log(law[token] / total), known
            for token, (model, known) in scores.items():
                if config.alpha == 0 or any(k for _, k in scores.values()):
                    if config.alpha and not known:
                        continue
                    gain = model + (config.alpha * math.log(known) if config.alpha else 0)
                else:
                    gain = model - config.penalty
                grown.append(((*tokens, token), score + gain))
        grown = sorted(grown, key=lambda one: -one[1])[: 2 * config.drafts]
        last = step == count - 1
        ended += [one for one in grown if last or one[0][-1] in ends]
        drafts = [one for one in grown if not last and one[0][-1] not in ends][: config.drafts]
        if not drafts:
            break
        mix = {}
        for (tokens, _), weight in zip(drafts, softmax([score for _, score in drafts]), strict=True):
            mix[tokens[-1]] = mix.get(tokens[-1], 0.0) + weight
        states.append(mix)
    return sorted(ended, key=lambda one: -one[1])[: config.drafts]


def table_answer(prompt, states):
    """A table's answer to mixtures: the mean of its answers to every text they may stand for."""
    total, texts = np.zeros(6), [((), 1.0)]
    for mix in states:
        texts = [((*text, token), weight * part) for text, weight in texts for token, part in mix.items()]
    for text, weight in texts:
        total += weight * TABLE.logits([*prompt, *text])
    return total


def same(found, expected):
    assert [tuple(sample.tokens) for sample in found.samples] == [tokens for tokens, _ in expected]
    assert [sample.log_weight for sample in found.samples] == pytest.approx([score for _, score in expected], abs=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.2, "temperature": 0.7},
        {"drafts": 2, "top": 2, "penalty": 3.0},
        {"alpha": 0.0, "temperature": 1.0, "drafts": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("ends", [(), (0, 5)])
def test_it_is_the_papers_loop(options, ends, corpus):
    config = Config(**options)
    found = treewright.generate(
        load(TABLE), PROMPTS, "superposed", {**options, "corpus": corpus}, n=config.drafts, max_new_tokens=5, stop_ids=ends
    )
    for prompt, result in zip(PROMPTS, found, strict=True):
        same(result, by_hand(table_answer, prompt, 5, CORPUS, config, ends))
        assert result.trace.model_calls <= 5


def test_a_corpus_that_is_written_again_is_read_again(tmp_path):
    path, model, config = tmp_path / "tokens.npy", load(TABLE), Config(alpha=0.9)
    other = np.random.default_rng(3).integers(0, 6, 400)
    scores = []
    for version, corpus in enumerate((CORPUS, other)):
        np.save(path, corpus)
        os.utime(path, ns=(0, version))
        found = treewright.generate(model, PROMPTS[0], "superposed", {"alpha": 0.9, "corpus": str(path)}, n=3, max_new_tokens=5)
        same(found, by_hand(table_answer, PROMPTS[0], 5, corpus, config))
        scores.append([sample.log_weight for sample in found.samples])
    assert scores[0] != scores[1]


def test_without_a_corpus_the_prompt_is_counted():
    found = treewright.generate(load(TABLE), PROMPTS, "superposed", n=3, max_new_tokens=4)
    for prompt, result in zip(PROMPTS, found, strict=True):
        expected = by_hand(table_answer, prompt, 4, prompt, Config())
        same(result, expected)


@pytest.mark.parametrize("stop_ids", [(), (2,), (0, 5)])
def test_one_draft_without_n_grams_is_greedy_decoding(stop_ids):
    settings = dict(max_new_tokens=12, logprobs=True, stop_ids=stop_ids)
    ours = treewright.generate(load(TABLE), PROMPTS, "superposed", {"drafts": 1, "alpha": 0.0}, **settings)
    for mine, plain in zip(ours, treewright.generate(load(TABLE), PROMPTS, **settings), strict=True):
        assert (mine.tokens, mine.finish_reason, mine.logprobs) == (plain.tokens, plain.finish_reason, plain.logprobs)


def fed_by_hand(network):
    def answer(prompt, states):
        embed = network.get_input_embeddings().weight
        rows = [embed[token] for token in prompt] + [sum(part * embed[token] for token, part in mix.items()) for mix in states]
        with torch.no_grad():
            return network(inputs_embeds=torch.stack(rows)[None]).logits[0, -1].numpy()

    return answer


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_on_a_network_the_mixture_is_of_embeddings(tiny, family):
    model, prompts = tiny(family, "float64"), [[3], [7, 1, 30, 12], [2, 2, 8, 25, 14, 6, 11]]
    options = {"drafts": 3, "alpha": 0.0, "temperature": 0.5}
    found = treewright.generate(model, prompts, "superposed", options, n=3, max_new_tokens=6, ignore_eos=True)
    for prompt, result in zip(prompts, found, strict=True):
        expected = by_hand(fed_by_hand(model.model), prompt, 6, [], Config(**options))
        same(result, expected)
        alone = treewright.generate(model, prompt, "superposed", options, n=3, max_new_tokens=6, ignore_eos=True)
        assert [sample.tokens for sample in alone.samples] == [sample.tokens for sample in result.samples]
        assert result.trace.model_calls == 6
    one = treewright.generate(model, prompts, "superposed", {"drafts": 1, "alpha": 0.0}, max_new_tokens=12)
    assert [r.tokens for r in one] == [r.tokens for r in treewright.generate(model, prompts, max_new_tokens=12)]


def test_mixed_claims_may_be_asked_at_once_and_beside_ordinary_ones(tiny):
    """A session that reads pending tokens, a mixture and what follows it in its first forward."""
    model = tiny("llama", "float64")
    prompts, mix = [[7, 1, 30, 12], [2, 2]], (np.array([[4, 9], [3, 8]]), np.array([[0.3, 0.7], [0.9, 0.1]]))
    text = Text(20)
    text.admit(prompts, [20, 20])
    session = model.protocol.open(text, Opening(claims=4, rows=2, length=20), lambda *args, **more: None)
    session.admit(text, prompts)
    for row, prompt in enumerate(prompts):
        text.append(row, [5, 11][: row + 1])
        prompt += [5, 11][: row + 1]
    forest = Forest(text.frontier())
    forest.grow([0, 1, 0], np.array([[4, 5, 6], [3, 5, 6]]))
    forest.mix[1] = mix
    answers = session.score(forest)
    answer = fed_by_hand(model.model)
    for row, prompt in enumerate(prompts):
        mixed = dict(zip(mix[0][row].tolist(), mix[1][row].tolist(), strict=True))
        for column, states in enumerate(([], [mixed], [mixed, {5: 1.0}], [{6: 1.0}])):
            assert np.abs(answers.row(row, column) - answer(prompt, states)).max() < 1e-10


def test_how_far_the_drafts_are_from_the_models_own_texts():
    """The drafts as a law (softmax of their scores), and beam search's answers as one: neither is plain decoding's."""
    model, settings = load(TABLE), dict(n=3, max_new_tokens=3)
    ours = treewright.generate(model, PROMPTS[1], "superposed", {"alpha": 0.0, "temperature": 1.0}, **settings)
    chance = {tuple(s.tokens): p for s, p in zip(ours.samples, softmax([s.log_weight for s in ours.samples]), strict=True)}
    plain = {(a, b, c): 1.0 for a in range(6) for b in range(6) for c in range(6)}
    for text in plain:
        for place, token in enumerate(text):
            plain[text] *= softmax(TABLE.logits([*PROMPTS[1], *text[:place]]))[token]
    assert 0.5 < total_variation(chance, plain) < 1


def test_n_grams_are_counted_as_they_stand():
    text = np.array([1, 2, 3, 1, 2, -1, 2, 4, 1, 2, 3])
    found = [dict(zip(tokens.tolist(), shares.tolist(), strict=True)) for tokens, shares in NGrams(text).laws([4, 1, 2], 4)]
    assert found == [{3: 2 / 3, 4: 1 / 3}, {3: 1.0}, {3: 1.0}, {}]
    assert [len(tokens) for tokens, _ in NGrams(text).laws([9], 2)] == [0, 0]
    for context in ([0], [3, 1], [5, 5, 2]):
        for size, (tokens, shares) in enumerate(NGrams(CORPUS).laws(context, 3), 1):
            counted = {t: share(CORPUS, context[-size:], t) for t in range(6)} if size <= len(context) else {}
            assert dict(zip(tokens.tolist(), shares.tolist(), strict=True)) == {t: p for t, p in counted.items() if p}


def test_a_budget_keeps_the_best_draft_so_far():
    cut = treewright.generate(
        load(TABLE), PROMPTS[1], "superposed", {"alpha": 0.0}, n=3, max_new_tokens=9, budget=Budget(model_calls=3)
    )
    assert cut.samples[0].finish_reason == "budget" and len(cut.tokens) == 3 and cut.trace.model_calls == 3


def test_what_cannot_be_asked_of_single_drafts_is_refused():
    model = load(TABLE)
    for method, settings, models in (
        ("superposed", {"repetition_penalty": 1.2}, {}),
        ("superposed+momentum", {}, {}),
        ("superposed+dexperts", {}, {"expert": model, "anti_expert": model}),
    ):
        with pytest.raises(CompositionError, match="share one answer"):
            treewright.generate(model, [1], method, models=models, max_new_tokens=3, **settings)
    with pytest.raises(InputError, match="temperature is 1"):
        treewright.generate(model, [1], "superposed", max_new_tokens=3, temperature=1.0)
    with pytest.raises(InputError, match="n is 4 and superposed chooses among 3"):
        treewright.generate(model, [1], "superposed", n=4, max_new_tokens=3)


def test_a_model_that_reads_tokens_only_is_refused(monkeypatch):
    import transformers

    torch.manual_seed(0)
    config = transformers.BloomConfig(vocab_size=31, hidden_size=16, n_layer=1, n_head=2)
    with pytest.raises(CapabilityError, match="needs embeddings"):
        treewright.generate(load(transformers.BloomForCausalLM(config)), [1], "superposed", max_new_tokens=2)


@pytest.mark.parametrize(
    "options",
    [
        {"drafts": 0},
        {"alpha": 1.1},
        {"temperature": 0.0},
        {"top": 0},
        {"weights": ()},
        {"weights": (0.9, 0.2)},
        {"penalty": -1.0},
    ],
    ids=str,
)
def test_bad_options_are_refused(options):
    with pytest.raises(UnknownOption, match=next(iter(options))):
        treewright.generate(load(TABLE), [1], "superposed", options, max_new_tokens=2)


def test_a_corpus_that_will_not_do_is_refused(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros(4))
    for name in (str(tmp_path / "flat.npy"), "nowhere.npy"):
        with pytest.raises(InputError, match="corpus is"):
            treewright.generate(load(TABLE), [1], "superposed", {"corpus": name}, max_new_tokens=2)
