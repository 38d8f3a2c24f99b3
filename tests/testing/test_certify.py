"""Certificates on tiny random models: clean ones pass, planted bugs do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from treewright.api import fits
from treewright.core.errors import CapabilityError, InputError, UnknownMethod
from treewright.core.registry import methods
from treewright.core.roles import Round, TargetLaw, Verdict
from treewright.models import causal_session, memory
from treewright.models.causal_session import CausalSession
from treewright.models.loading import Loaded, load
from treewright.models.tables import AnyOrderTable, Table
from treewright.parts.verify import rejection
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing.bench import with_drafter
from treewright.testing.certify import MODEL, Certificate, certify
from treewright.testing.distorted import Distorted
from treewright.testing.sampling import OTHER, FirstTokens, entropy
from treewright.testing.statistics import chi_square, chi_square_tail

QUICK = dict(new_tokens=10, tables=False)


def failed(rows: Sequence[Certificate]) -> set[str]:
    return {row.check.split(",")[0] for row in rows if not row.passed}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_method_of_each_kind_is_certified_on_a_right_model(tiny_llama: Callable[..., Loaded], dtype: torch.dtype) -> None:
    named = ["plain", "token_recycling", "speculative_sampling", "opt_tree", "layerskip", "auto"]
    rows = certify(tiny_llama(dtype), named, new_tokens=12, samples=150, tables=False)
    assert not [row for row in rows if not row.passed]
    assert {row.method for row in rows} == {MODEL, *named}
    keyed = {row.method for row in rows if "keyed" in row.check}
    # Exact rejection draws other tokens than plain sampling, so there the law is what is compared.
    assert {row.method for row in rows if row.check == "sampling law"} == {"speculative_sampling", "layerskip"}
    assert keyed == {"plain", "token_recycling", "opt_tree", "auto"}


def test_a_controller_is_certified_with_a_drafter_beside_it(tiny_llama: Callable[..., Loaded]) -> None:
    rows = certify(tiny_llama(torch.float32), ["disco"], new_tokens=8, samples=50, tables=False)
    assert {row.method for row in rows} == {MODEL, "speculative_sampling+disco"} and all(row.passed for row in rows)


def test_what_fits_is_asked_of_the_recipe_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treewright.testing.certify._tree_scoring", lambda model, prompts: (True, "", {}))
    monkeypatch.setattr("treewright.testing.certify._Bench.measure", lambda bench: (True, "", {}))
    monkeypatch.setattr("treewright.testing.certify._Bench.measured", True)
    monkeypatch.setattr(
        "treewright.testing.certify._certify_method", lambda bench, name, *_: [Certificate(name, "", True, 0, "", {})]
    )
    table = Table(9, 3)
    table.capabilities = replace(table.capabilities, tree="none")
    model = load(table)
    assert fits(model, "disco") and not fits(model, with_drafter("disco"))
    assert {row.method for row in certify(model)} == {MODEL, "plain"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_lossless_method_is_certified_on_a_right_model(tiny_llama: Callable[..., Loaded], dtype: torch.dtype) -> None:
    model = tiny_llama(dtype)
    rows = certify(model, new_tokens=12, samples=150, tables=False)
    assert not [row for row in rows if not row.passed]
    # Heads that were trained for another model are left out.
    fitting = {name for card in methods() if card.lossless and fits(model, name := with_drafter(card.name))}
    assert "medusa" not in fitting and "token_recycling" in fitting
    assert {row.method for row in rows} == {MODEL} | fitting
    keyed = {row.method for row in rows if "keyed" in row.check}
    assert {"plain", "token_recycling", "jacobi", "prompt_lookup"} <= keyed
    # Exact rejection draws other tokens than plain sampling, so there the law is what is compared.
    drawn = {row.method for row in rows if row.check == "sampling law"}
    assert {"speculative_sampling", "specinfer", "layerskip"} <= drawn and not drawn & keyed
    assert all(row.numbers["tokens"] == 48 for row in rows if row.check.startswith("tokens"))
    json.dumps([row.to_json() for row in rows], allow_nan=False)


def test_half_precision_ties_are_listed_and_nothing_behind_them_is_skipped(
    tiny_llama: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In blocks of few widths so small a model rounds alike everywhere.
    monkeypatch.setattr(causal_session, "builds_kernels", lambda device, dtype: False)
    rows = certify(tiny_llama(torch.bfloat16), ["jacobi"], new_tokens=40, tables=False)
    ties = [tie for row in rows for tie in row.numbers.get("ties", [])]
    assert all(row.passed for row in rows)
    assert ties, "a random model in bfloat16 has near ties in 640 tokens"
    assert all(tie["margin"] < tie["noise"] for tie in ties)
    assert all(row.numbers["tokens"] == 160 for row in rows if row.check.startswith("tokens"))
    listed = next(row for row in rows if row.numbers.get("ties"))
    assert "ties excused (row" in listed.detail


def test_a_table_can_be_certified(tiny_llama: Callable[..., Loaded]) -> None:
    rows = certify(load(Table(9, 3)), ["token_recycling", "speculative_sampling"], samples=200, tables=False)
    assert all(row.passed for row in rows)


def test_the_law_on_tables_is_part_of_the_certificate() -> None:
    rows = certify(load(Table(9, 3)), ["jacobi"], new_tokens=6)
    assert any(row.check == "law on exact tables" and row.numbers["total_variation"] <= 1e-9 for row in rows)


def stale_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = CausalSession.commit

    def commit(self: CausalSession, paths: Any) -> None:
        clean(self, [list(range(1, len(path) + 1)) for path in paths])

    monkeypatch.setattr(CausalSession, "commit", commit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stale_memory_fails_the_model_and_the_method(
    tiny_llama: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    stale_commit(monkeypatch)
    rows = certify(tiny_llama(dtype), ["specinfer"], models={"draft": tiny_llama(dtype)}, samples=20, **QUICK)
    assert {"tree scoring", "tokens at temperature 0"} <= failed(rows)


def test_memory_of_nan_fails(tiny_llama: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    grown = memory.Memory.__init__

    def poisoned(self: memory.Memory, *arguments: Any) -> None:
        grown(self, *arguments)
        for group in self._groups.values():
            group.fill_(float("nan"))

    monkeypatch.setattr(memory.Memory, "__init__", poisoned)
    assert "tree scoring" in failed(certify(tiny_llama(), ["jacobi"], **QUICK))


def test_a_verifier_that_draws_again_fails_the_keyed_check(
    tiny_llama: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = SampleThenMatch.verify

    def again(self: SampleThenMatch, round: Round, law: TargetLaw) -> Verdict:
        verdict = clean(self, round, law)
        if not law.greedy and round.vocabulary > 10:
            verdict.extra = [
                round.randomness.index(law.probs(row, path[-1] if path else 0), round.keys[row], round.position(row, 0), 9)
                if round.forest.columns > 1 else verdict.extra[row]
                for row, path in enumerate(verdict.paths)
            ]  # fmt: skip
        return verdict

    monkeypatch.setattr(SampleThenMatch, "verify", again)
    assert failed(certify(tiny_llama(), ["jacobi"], **QUICK)) == {"tokens at temperature 1"}


def test_a_wrong_residual_fails_the_sampling_law(tiny_llama: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejection, "after_rejection", lambda target, draft, token, law: (target, draft))
    rows = certify(tiny_llama(torch.float32), ["speculative_sampling"], samples=800, **QUICK)
    assert failed(rows) == {"sampling law"}


def test_the_table_law_catches_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejection, "after_rejection", lambda target, draft, token, law: (target, draft))
    rows = certify(load(Table(9, 3)), ["speculative_sampling"], samples=20, new_tokens=6)
    assert "law on exact tables" in failed(rows)


def test_bad_input_is_refused_before_anything_runs(tiny_llama: Callable[..., Loaded]) -> None:
    model = tiny_llama()
    with pytest.raises(UnknownMethod, match="nix"):
        certify(model, ["nix"])
    with pytest.raises(InputError, match="prompts holds 1"):
        certify(model, ["plain"], prompts=[[1, 2]])
    with pytest.raises(InputError, match="role 'expert'"):
        certify(model, ["plain"], {"expert": model})
    with pytest.raises(CapabilityError):
        certify(load(AnyOrderTable(4, 1)), ["plain"])


def test_certifying_leaves_the_model_s_memory_alone(tiny_llama: Callable[..., Loaded]) -> None:
    model = tiny_llama()
    certify(model, ["token_recycling"], **QUICK)
    assert model.memories == {}


def test_a_distorted_draft_agrees_often_and_not_always() -> None:
    table = Table(6, 1, sharpness=3.0)
    rows = certify(load(table), ["speculative_sampling"], samples=20, **QUICK)
    speed = next(row.numbers["tokens_per_call"] for row in rows if row.check == "tokens at temperature 0, batch 1")
    assert 1.0 < speed < 5.0, "the draft of five tokens is accepted in part"
    assert Distorted(table).capabilities.vocabulary == 6


def test_chi_square_tail_against_known_values() -> None:
    assert chi_square_tail(3.841458820694124, 1) == pytest.approx(0.05, abs=1e-9)
    assert chi_square_tail(18.307038053275146, 10) == pytest.approx(0.05, abs=1e-9)
    assert chi_square_tail(2.0, 2) == pytest.approx(np.exp(-1.0))
    assert chi_square_tail(5.0, 0) == 1.0


def test_chi_square_sees_a_wrong_law_and_not_a_right_one() -> None:
    chance = np.random.default_rng(1)
    law = {0: 0.5, 1: 0.3, 2: 0.15, 3: 0.049, 4: 0.001}
    right = chi_square(chance.choice(5, 2000, p=list(law.values())).tolist(), law)
    wrong = chi_square(chance.choice(5, 2000, p=[0.42, 0.38, 0.15, 0.049, 0.001]).tolist(), law)
    assert right.cells == 4, "the rarest cell expects 2 draws and is pooled"
    assert right.p_value > 1e-3 > wrong.p_value
    assert chi_square([9] + [0] * 50, law).p_value == 0.0


def test_entropy_in_nats() -> None:
    assert entropy(np.zeros(8)) == pytest.approx(np.log(8))
    assert entropy(np.array([0.0, 800.0])) == pytest.approx(0.0)


def test_cells_of_first_tokens_are_a_law() -> None:
    table = Table(7, 2)
    first = FirstTokens(lambda prompt, new: table.logits([*prompt, *new]), [1, 2], 2)
    law = first.law(2)
    assert sum(law.values()) == pytest.approx(1.0)
    assert len(law) == 4 * 5 + 1
    weights = np.exp(table.logits([1, 2]))
    rare = int(np.argmin(weights))
    assert first.cell([rare, 0]) == (OTHER,)
    assert law[OTHER,] == pytest.approx(np.sort(weights)[:3].sum() / weights.sum())


@pytest.fixture
def tiny_encoder_decoder() -> Callable[..., Loaded]:
    """Makes a random Pegasus of two layers, whose generation configuration fixes the first token."""
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    def make(dtype: torch.dtype = torch.float64) -> Loaded:
        torch.manual_seed(2)
        config = PegasusConfig(
            vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=128, tie_word_embeddings=False, init_std=1.0,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )  # fmt: skip
        model = PegasusForConditionalGeneration(config).to(dtype)
        model.generation_config.forced_bos_token_id = 7
        return load(model)

    return make


def test_an_encoder_decoder_is_certified(tiny_encoder_decoder: Callable[..., Loaded]) -> None:
    rows = certify(tiny_encoder_decoder(), ["token_recycling"], new_tokens=12, tables=False)
    assert failed(rows) == set()
    assert len(rows) == 6


def test_ties_of_an_encoder_decoder_are_passed_by_leading_along_the_text(tiny_encoder_decoder: Callable[..., Loaded]) -> None:
    rows = certify(tiny_encoder_decoder(torch.bfloat16), ["token_recycling"], new_tokens=24, tables=False)
    assert failed(rows) == set()
    assert any(row.numbers.get("ties") for row in rows)
    assert all(row.numbers["tokens"] == 4 * 24 for row in rows if row.check.startswith("tokens"))
