"""The protocol's harder promises, kept by a transformers model as by a table: live claims are not computed again, a chosen
claim's answer is the next frontier's, hidden states cover the text, rows fork with their claims, prompts are rewritten."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from treewright.core.claims import ABSENT, Law
from treewright.core.errors import ContextError
from treewright.core.request import Sampling
from treewright.core.roles import Outcome, Parts, Round, TargetLaw, Verdict
from treewright.models.tables import Table
from treewright.ops.largest import tops
from treewright.parts.verify.sample_then_match import SampleThenMatch

PROMPTS = [[1, 2, 3, 4, 5], [7], [9, 8]]
Read = Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]]
"""The last logits and all hidden states after a prefix, read anew."""


def llama(seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    from treewright.models.causal import CausalModel

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=19, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.8,
    )  # fmt: skip
    return CausalModel(LlamaForCausalLM(config).to(torch.float64))


@pytest.fixture(scope="module", params=["table", "llama"])
def model(request: pytest.FixtureRequest) -> Any:
    return Table(19, seed=3) if request.param == "table" else llama(0)


@pytest.fixture(scope="module")
def read(model: Any) -> Read:
    if isinstance(model, Table):
        return lambda prefix: (model.logits(prefix), np.stack([model.hidden(prefix[:end]) for end in range(1, len(prefix) + 1)]))

    @torch.no_grad()
    def forward(prefix: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        output = model.model(torch.tensor([list(prefix)]), output_hidden_states=True, use_cache=False)
        return output.logits[0, -1].numpy(), output.hidden_states[-1][0].numpy()

    return forward


class BeamSearch:
    """Toy method: every beam's best tokens are claims, the best of all become the beams. The row's weight is its score."""

    def __init__(self, width: int) -> None:
        self.width = width

    def propose(self, round: Round) -> None:
        round.forest.grow([0] * self.width, tops(round.sessions["target"].root(), self.width)[:, 0])

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        verdict = Verdict([], [-1] * round.rows, log_weight=[], rows=[])
        for prompt in sorted({key[0] for key in round.keys}):
            beams = [row for row, key in enumerate(round.keys) if key[0] == prompt]
            fresh = round.text.length[beams[0]] == round.text.prompt[beams[0]]
            candidates = []
            for row in beams[:1] if fresh else beams:
                logits = law.logits(row, 0)
                gain = logits - np.logaddexp.reduce(logits)
                for column in range(1, self.width + 1):
                    step = float(gain[round.forest.token[row, column]])
                    candidates.append((round.log_weight[row] + step, row, column, step))
            for _, row, column, step in sorted(candidates, key=lambda c: -c[0])[: len(beams)]:
                verdict.rows.append(row)  # type: ignore[union-attr]
                verdict.paths.append([column])
                verdict.log_weight.append([step])  # type: ignore[union-attr]
        return verdict


def beams_by_definition(read: Read, prompt: Sequence[int], width: int, tokens: int) -> list[tuple[list[int], float]]:
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(tokens):
        longer = []
        for new, score in beams:
            logits = read([*prompt, *new])[0]
            gain = logits - np.logaddexp.reduce(logits)
            longer += [([*new, token], score + float(gain[token])) for token in range(len(gain))]
        beams = sorted(longer, key=lambda beam: -beam[1])[:width]
    return beams


def test_beams_fork_with_their_live_claims(decode, model: Any, read: Read) -> None:
    beam = BeamSearch(3)
    parts = Parts(propose=beam, verify=beam, claims=4, bonus=False)
    done = decode(model, parts, PROMPTS, max_new_tokens=7, samples=3)
    for prompt, tokens in enumerate(PROMPTS):
        expected = beams_by_definition(read, tokens, 3, 7)
        assert [done.rows[prompt, sample] for sample in range(3)] == [new for new, _ in expected]
        weights = [done.engine.finished[prompt, sample].log_weight for sample in range(3)]
        assert weights == pytest.approx([score for _, score in expected], abs=1e-9)
    # Beams that part from one parent take its claims' answers along: one forward a round, and one for the first root.
    assert done.trace().model_calls == 1 + 7


class Witness:
    """Observes that hidden states cover own prompt and text, after forks, stops and rounds without a forward for the root."""

    prompt_top = 0

    def __init__(self, read: Read) -> None:
        self.read, self.seen = read, 0

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        raise AssertionError("nobody asked for the prompt's predictions")

    def observe(self, outcome: Outcome) -> None:
        round = outcome.round
        for row, emitted in enumerate(outcome.emitted):
            before = round.text.of(row)[: round.text.length[row] - len(emitted)]
            states = round.sessions["target"].states(row).numpy()
            assert states == pytest.approx(self.read(before.tolist())[1], abs=1e-9)
            own = round.answers["target"].hidden[row].numpy()  # type: ignore[index]
            assert own[0] == pytest.approx(states[-1], abs=1e-12)
            for column in np.flatnonzero(round.forest.token[row] != ABSENT)[1:].tolist():
                claimed = round.forest.path_tokens(row, column)
                assert own[column] == pytest.approx(self.read([*before.tolist(), *claimed])[1][-1], abs=1e-9)
            self.seen += 1


def test_hidden_states_cover_the_prompt_and_the_text(decode, model: Any, read: Read) -> None:
    for parts in (
        Parts(propose=BeamSearch(2), verify=BeamSearch(2), claims=3, bonus=False),
        Parts(propose=BeamSearch(2), verify=SampleThenMatch(), claims=3),
    ):
        witness = Witness(read)
        parts.hidden = True
        decode(model, parts, PROMPTS, observers=[witness], max_new_tokens=9, samples=2, batch_rows=4, stop_ids=(3,))
        assert witness.seen > 12


class Chain:
    """Toy drafter: its own argmaxes, scored one after another."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def propose(self, round: Round) -> None:
        for column in range(min(self.tokens, round.depth_left)):
            answers = round.sessions["draft"].score(round.forest)
            round.forest.grow([column], tops(answers, 1)[:, column], Law.DELTA)


def test_live_claims_are_not_computed_again(decode) -> None:
    parts = Parts(propose=Chain(3), verify=SampleThenMatch(), claims=4)
    done = decode(llama(0), parts, PROMPTS, draft=llama(1), max_new_tokens=12)
    assert done.tokens == decode(llama(0), "plain", PROMPTS, max_new_tokens=12).tokens
    scored = [call.columns for call in done.trace().calls if (call.model, call.kind) == ("draft", "score")]
    firsts, later = scored[::3], [columns for place, columns in enumerate(scored[:9]) if place % 3]
    # The first call of a round swallows what is pending (one token, or two where the leaf was never scored), others one.
    assert set(firsts[:3]) <= {1, 2} and set(later) == {1}


def test_a_draft_model_with_a_shorter_context_changes_no_token(decode) -> None:
    """Where its positions end it drafts worse; a prompt that it cannot read at all is refused."""
    target, short = llama(0), llama(0)
    short.capabilities = dataclasses.replace(short.capabilities, max_length=9)
    plain = decode(target, "plain", PROMPTS, max_new_tokens=20)
    drafted = decode(target, "speculative_sampling", PROMPTS, {"tokens": 3}, draft=short, max_new_tokens=20)
    assert drafted.tokens == plain.tokens and drafted.accepted() > 0
    with pytest.raises(ContextError, match="prompt 0 has 12 tokens as model 'draft' reads it, which has 9 positions"):
        decode(target, "speculative_sampling", [list(range(12))], draft=short)


class Against:
    """Toy steering: away from what a model says that was given another prompt."""

    models = ("other",)

    def __init__(self, rewrite: Callable[[Sequence[int]], list[int]]) -> None:
        self.rewrite = rewrite

    def prompt(self, model: str, prompt: Sequence[int]) -> Sequence[int]:
        return self.rewrite(prompt)

    def steer(self, logits: np.ndarray, others: Mapping[str, np.ndarray], prefix: np.ndarray, row: tuple[int, int]) -> np.ndarray:
        return logits - 0.7 * others["other"]


@pytest.mark.parametrize("rewrite", [lambda p: [*p, 11, 12], lambda p: [5], lambda p: [13, *p]], ids=["longer", "one", "before"])
def test_a_rewritten_prompt_is_read_to_its_own_end(model: Any, read: Read, rewrite: Callable[[Sequence[int]], list[int]]) -> None:
    from treewright.core.request import Request
    from treewright.engine.loop import Engine, Run

    request = Request(prompts=tuple(map(tuple, PROMPTS)), max_new_tokens=6, batch_rows=2, sampling=Sampling(0.0))
    # A greedy chain from the unsteered target goes through the claims' answers of both sessions.
    parts = Parts(propose=BeamSearch(2), verify=SampleThenMatch(), steer=(Against(rewrite),), claims=3)
    engine = Engine(Run(request, {"target": model, "other": model}, parts))
    for _ in engine.run():
        pass
    for prompt, ids in enumerate(PROMPTS):
        new: list[int] = []
        for _ in range(6):
            new.append(int((read([*ids, *new])[0] - 0.7 * read([*rewrite(ids), *new])[0]).argmax()))
        assert engine.finished[prompt, 0].tokens == new
