"""Contrastive search against a loop of bare forwards, its identities, its cost, and what composes with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import treewright
from treewright.core.errors import CompositionError, InputError
from treewright.core.recipe import Recipe
from treewright.core.registry import entry
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.methods.steer.contrastive_search import Config, likeliest, parts
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing.bench import GREEDY, Fence
from treewright.testing.definition import _penalise as penalise

PROMPTS = [[5, 9, 2, 5, 9], [1], [3, 3, 8, 40, 17, 2, 11]]
NORM = {"llama": "model.norm", "gpt2": "transformer.ln_f"}


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def unit(states):
    return states / np.linalg.norm(states, axis=-1, keepdims=True)


def by_definition(logits_of, states_of, prompt, count, k, alpha, change=lambda logits, new: logits):
    """logits_of(tokens) [V], states_of(tokens) [T, H]; every candidate's whole text is read anew."""
    text = list(prompt)
    for _ in range(count):
        logits = change(logits_of(text), text[len(prompt) :])
        chance, past = softmax(logits), unit(states_of(text))
        best = [int(t) for t in np.argsort(-logits, kind="stable")[:k] if logits[t] > -np.inf]
        if not best:
            break
        score = [(1 - alpha) * chance[t] - alpha * max(past @ unit(states_of([*text, t])[-1])) for t in best]
        text.append(best[int(np.argmax(score))])
    return text[len(prompt) :]


def bare(network, family):
    """The states after the final norm, which is applied here by its name to what goes into it."""

    def read(tokens):
        taken = []
        hook = network.get_submodule(NORM[family]).register_forward_hook(lambda module, inputs, output: taken.append(output))
        with torch.no_grad():
            logits = network(torch.tensor([list(tokens)]), use_cache=False).logits[0, -1].numpy()
        hook.remove()
        return logits, taken[0][0].numpy()

    return (lambda tokens: read(tokens)[0]), (lambda tokens: read(tokens)[1])


def of_table(table):
    return table.logits, lambda tokens: np.stack([table.hidden(tokens[:end]) for end in range(1, len(tokens) + 1)])


def search(*args, **joined):
    return parts(Config(*args)).join(Parts(**joined))


@pytest.mark.parametrize(("k", "alpha"), [(5, 0.6), (3, 0.2), (4, 1.0)])
@pytest.mark.parametrize("family", NORM)
def test_it_equals_a_loop_of_bare_forwards(family, k, alpha, network, causal, decode):
    done = decode(causal(family), search(k, alpha), PROMPTS, max_new_tokens=8)
    expected = [by_definition(*bare(network(family), family), prompt, 8, k, alpha) for prompt in PROMPTS]
    assert done.tokens == expected
    assert expected != decode(causal(family), "plain", PROMPTS, max_new_tokens=8).tokens


@pytest.mark.parametrize(("k", "alpha"), [(5, 0.0), (1, 0.6), (1, 1.0)])
def test_without_a_choice_or_a_penalty_it_is_greedy(k, alpha, causal, decode):
    for model in (causal("llama"), causal("gpt2"), Table(7, seed=2)):
        prompts = [[token % 7 for token in prompt] for prompt in PROMPTS]
        greedy = decode(model, "plain", prompts, max_new_tokens=20, sampling=GREEDY).tokens
        assert decode(model, search(k, alpha), prompts, max_new_tokens=20, sampling=GREEDY).tokens == greedy


def test_equal_states_are_greedy_and_ties_go_to_the_more_probable(decode):
    class Alike(Table):
        def hidden(self, prefix):
            return np.ones(4)

    greedy = decode(Table(6, seed=1), "plain", [[1, 2]], max_new_tokens=8).tokens
    assert decode(Alike(6, seed=1), search(4, 0.6), [[1, 2]], max_new_tokens=8).tokens == greedy
    assert decode(Alike(6, seed=1), search(4, 1.0), [[1, 2]], max_new_tokens=8).tokens == greedy


def test_the_length_of_states_does_not_matter(decode):
    class Longer(Table):
        def hidden(self, prefix):
            return super().hidden(prefix) * (1 + len(prefix)) * 100

    ours = decode(Table(6, seed=1), search(), PROMPTS[1:2], max_new_tokens=12).tokens
    assert decode(Longer(6, seed=1), search(), PROMPTS[1:2], max_new_tokens=12).tokens == ours


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_batch_of_ragged_rows_equals_rows_alone(family, causal, decode):
    """Stops end rows at other times and the queue lets more in, while the others keep the answer of their last choice."""
    alone = [decode(causal(family), search(), [prompt], max_new_tokens=14).tokens[0] for prompt in PROMPTS]
    stop = alone[0][4]
    ended = [tokens[: tokens.index(stop) + 1] if stop in tokens else tokens for tokens in alone]
    assert decode(causal(family), search(), PROMPTS, max_new_tokens=14).tokens == alone
    assert decode(causal(family), search(), PROMPTS, max_new_tokens=14, batch_rows=2, stop_ids=(stop,)).tokens == ended


def test_a_token_costs_one_call_of_k_claims(causal, decode):
    """The winner's memory and answer are kept: after the first round nothing is read but candidates."""
    trace = decode(causal("llama"), search(4), PROMPTS[:1], max_new_tokens=9).trace()
    assert trace.model_calls == 1 + 9
    assert [call.columns for call in trace.calls if call.kind == "score"] == [1] + [4] * 9
    assert all(len(step.accepted) == 1 and len(step.token) == 5 for step in trace.steps)


def test_candidates_are_not_cut_to_what_pays(causal, decode):
    free = decode(causal("llama"), search(), PROMPTS, max_new_tokens=8).tokens
    assert decode(causal("llama"), search(), PROMPTS, max_new_tokens=8, columns=3).tokens == free


def test_a_temperature_is_refused(decode):
    with pytest.raises(InputError, match=r"temperature is 0\.7 and this method is deterministic; leave temperature at 0"):
        decode(Table(4, seed=1), search(), [[1]], sampling=Sampling(0.7))


def test_a_limit_of_claims_is_an_error_not_a_smaller_k(decode):
    class Narrow:
        def claims(self, round):
            return 3

    with pytest.raises(InputError, match="compares 5 candidates and a round may hold 2"):
        decode(Table(9, seed=1), search(5, 0.6, control=Narrow()), [[1]])


@pytest.mark.parametrize("options", [{"k": 0}, {"alpha": -0.1}, {"alpha": 1.1}])
def test_bad_options(options):
    with pytest.raises(InputError, match=f"{next(iter(options))} is"):
        Config(**options)


def test_no_drafter_goes_with_it():
    with pytest.raises(CompositionError, match="'contrastive_search' and 'prompt_lookup' both take the single seat"):
        Recipe.of("contrastive_search+prompt_lookup")


def test_candidates_are_those_of_the_constrained_and_penalised_law(decode):
    table, fence = Table(6, seed=3), Fence(6)
    for prompt in ([1, 2, 3], [4]):

        def change(logits, new, prompt=prompt):
            allowed = fence.mask((0, 0), np.array(new, np.int64))
            logits = [penalise(float(value), token, prompt, tuple(new), GREEDY) for token, value in enumerate(logits)]
            return np.where(allowed, logits, -np.inf)

        done = decode(table, search(3, 0.6, constrain=(fence,)), [prompt], max_new_tokens=12, sampling=GREEDY)
        assert done.tokens[0] == by_definition(*of_table(table), prompt, 12, 3, 0.6, change)


def test_a_constraint_that_leaves_less_than_k_and_then_nothing(decode):
    class Closing:
        """The first token may be 2 or 4, the second only 1, then nothing."""

        def mask(self, row, continuation):
            return np.isin(np.arange(6), [[2, 4], [1], []][len(continuation)])

    done = decode(Table(6, seed=3), search(4, 0.6, constrain=(Closing(),)), [[1], [0, 2]], max_new_tokens=9)
    assert [tokens[1:] for tokens in done.tokens] == [[1], [1]] and all(tokens[0] in (2, 4) for tokens in done.tokens)
    assert {row.finish for row in done.engine.finished.values()} == {"dead_end"}


def test_candidates_are_those_of_the_steered_law(causal):
    """DExperts changes which tokens are candidates and how probable they are; every model answers once a token."""
    from treewright.core.request import Request
    from treewright.engine.loop import Engine, Run
    from treewright.methods.steer.dexperts import Config as Experts
    from treewright.methods.steer.dexperts import parts as experts

    models = {name: Table(6, seed=seed) for seed, name in enumerate(("target", "expert", "anti_expert"))}
    prompts = ((1, 2, 3), (4,))
    engine = Engine(Run(Request(prompts, max_new_tokens=10), models, search(3, 0.6).join(experts(Experts(2.0, 1.0)))))
    for _ in engine.run():
        pass

    def steered(tokens):
        return models["target"].logits(tokens) + 2.0 * (models["expert"].logits(tokens) - models["anti_expert"].logits(tokens))

    states = of_table(models["target"])[1]
    for row, prompt in enumerate(prompts):
        assert engine.finished[row, 0].tokens == by_definition(steered, states, prompt, 10, 3, 0.6)
    calls = [call.model for call in engine.traces[0, 0].calls if call.kind == "score"]
    assert {name: calls.count(name) for name in models} == dict.fromkeys(models, 11)


def test_it_goes_with_dola(causal, decode):
    """Hidden states and exit layers of the same claims at once."""
    dola = entry("dola").load()
    both = search(4, 0.4).join(dola.parts(dola.Config()))
    batch = decode(causal("llama"), both, PROMPTS, max_new_tokens=10)
    alone = [decode(causal("llama"), both, [prompt], max_new_tokens=10).tokens[0] for prompt in PROMPTS]
    assert batch.tokens == alone
    assert batch.trace().model_calls == 11
    greedy = decode(causal("llama"), search(1).join(dola.parts(dola.Config())), PROMPTS, max_new_tokens=10)
    plain = Parts(verify=SampleThenMatch()).join(dola.parts(dola.Config()))
    steered = decode(causal("llama"), plain, PROMPTS, max_new_tokens=10)
    assert greedy.tokens == steered.tokens != alone


def test_the_likeliest_tokens():
    logits = np.array([1.0, 3.0, -np.inf, 3.0, 2.0])
    assert likeliest(logits, 1).tolist() == [1]
    assert likeliest(logits, 3).tolist() == [1, 3, 4]
    assert likeliest(logits, 5).tolist() == [1, 3, 4, 0, -1]
    assert likeliest(np.full(4, -np.inf), 2).tolist() == [-1, -1]


def test_a_trace_counts_the_call_that_proposes():
    """Before its first round a row has no law at its frontier; asking for it is a call of the round, and later it is free."""
    for result in treewright.generate(Table(6, seed=1), [[1], [2, 3]], "contrastive_search", {"k": 3}, max_new_tokens=5):
        assert [step.calls for step in result.trace.steps] == [2, 1, 1, 1, 1]
        assert result.trace.model_calls == 6
