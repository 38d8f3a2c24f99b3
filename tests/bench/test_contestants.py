"""Who races: variants of methods, options for those that have them, peers that can run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from treewright.api import Loaded, generate
from treewright.bench.contestants import Ours, Peer, Setting, our_contestants, peer_contestants
from treewright.bench.race import Unit, race
from treewright.bench.speed_report import Field, records, report
from treewright.core.errors import InputError, UnknownMethod, UnknownOption
from treewright.interop.peers import PeerRun, PeerSettings

SETTING = Setting(temperature=0.0, rows=1, max_new_tokens=12, seed=0, ignore_eos=True)


def test_all_means_every_lossless_method_whose_models_are_there(tiny: Loaded) -> None:
    without = {contestant.name for contestant in our_contestants(["all"], [], None, tiny, {})}
    with_draft = {contestant.name for contestant in our_contestants(["all"], [], None, tiny, {"draft": tiny})}
    assert {"plain", "token_recycling", "prompt_lookup", "jacobi"} <= without
    assert {"speculative_sampling", "specinfer"} <= with_draft - without


def test_plain_comes_first_once(tiny: Loaded) -> None:
    assert [c.name for c in our_contestants(["jacobi", "plain"], [], None, tiny, {})] == ["plain", "jacobi"]


def test_options_go_to_the_methods_that_have_them(tiny: Loaded) -> None:
    names = ["token_recycling", "token_recycling:nodes=15", "jacobi"]
    found = our_contestants(names, [("block", 2), ("token_recycling.k", 4)], 7, tiny, {})
    assert {contestant.name: contestant.options for contestant in found} == {
        "plain": {},
        "token_recycling": {"token_recycling.k": 4, "nodes": 7},
        "token_recycling:nodes=15": {"token_recycling.k": 4, "nodes": 15},
        "jacobi": {"block": 2},
    }


@pytest.mark.parametrize(
    ("names", "settings", "error", "message"),
    [
        (["jakobi"], [], UnknownMethod, "did you mean 'jacobi'"),
        (["jacobi"], [("nodes", 3)], UnknownOption, "no method in this run has the option 'nodes'"),
        (["jacobi:block"], [], InputError, "'block' is not OPTION=VALUE"),
        (["jacobi:block=x"], [], UnknownOption, "jacobi.block"),
        (["jacobi", "jacobi"], [], InputError, "'jacobi' stands twice"),
        (["speculative_sampling"], [], InputError, "needs a model for the role 'draft'"),
    ],
)
def test_what_cannot_race_is_refused_before_the_race(
    tiny: Loaded, names: list[str], settings: list[tuple[str, object]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        our_contestants(names, settings, None, tiny, {})


def test_peers_that_can_run(tiny: Loaded) -> None:
    assert [peer.name for peer in peer_contestants(["all"], tiny, {})] == ["transformers", "transformers:prompt_lookup"]
    assisted = peer_contestants(["all"], tiny, {"draft": tiny})[-1]
    assert assisted.name == "transformers:assisted" and assisted.roles == {"draft"}
    assert peer_contestants(["none"], tiny, {}) == []
    with pytest.raises(InputError, match="needs a draft model"):
        peer_contestants(["transformers:assisted"], tiny, {})
    with pytest.raises(InputError, match="unknown peer 'vllm'"):
        peer_contestants(["vllm"], tiny, {})


def test_peers_take_batches_only_where_transformers_does(tiny: Loaded) -> None:
    assert [(p.supports(1), p.supports(8)) for p in peer_contestants(["all"], tiny, {})] == [(True, True), (True, False)]


@pytest.mark.parametrize(
    ("names", "exports", "message"),
    [
        (["openvino"], {}, r"needs --export openvino=FOLDER"),
        (["transformers"], {"openvino": Path("x")}, "--export openvino=...: no peer of this run reads it; peers: transformers"),
        (["all"], {"openwino": Path("x")}, "--export openwino=...: .*did you mean 'openvino'"),
        (["all"], {"openvino": Path("x")}, "--export openvino=x: no openvino_model.xml is there"),
        (["none"], {"openvino": Path("x")}, "--export openvino=...: no peer of this run reads it; peers: none"),
    ],
)
def test_exports_belong_to_peers(tiny: Loaded, names: list[str], exports: dict[str, Path], message: str) -> None:
    with pytest.raises(InputError, match=message):
        peer_contestants(names, tiny, {}, exports)


def test_what_a_peer_does_not_tell_is_a_dash(tiny: Loaded) -> None:
    def silent(model: Loaded, prompts: object, settings: PeerSettings) -> PeerRun:
        return PeerRun([[1, 2, 3]], 0.5, None, None)

    contestants = [Ours("plain", "plain", {}, tiny), Peer("silent", tiny, silent, True, options={"precision": "f32"})]
    units = [Unit("prose", (0,), ((5, 6, 7),))]
    results = race(contestants, units, SETTING, 1, False, lambda text: None)
    outcome = results["silent"][0].outcome
    assert (outcome.model_calls, outcome.row_rounds) == (None, None)
    found = list(records(Field(SETTING, contestants, results, None), {}))
    quiet = [record for record in found if record["method"] == "silent"]
    assert [(one["model_calls"], one["calls_per_token"], one["tokens_per_call"]) for one in quiet] == [(None, None, None)] * len(
        quiet
    )
    line = next(line for line in report(found).splitlines() if "silent (precision=f32)" in line)
    assert [cell.strip() for cell in line.split("|")][5:7] == ["-", "-"]


def test_an_outcome_counts_what_the_trace_counts(tiny: Loaded) -> None:
    prompts = [[5, 6, 7], [9, 8]]
    outcome = Ours("token_recycling", "token_recycling", {"nodes": 7}, tiny).run(prompts, SETTING, 0)
    fresh = dataclasses.replace(tiny, memories={})
    results = generate(fresh, prompts, "token_recycling", {"nodes": 7}, max_new_tokens=12, ignore_eos=True)
    assert outcome.tokens == [result.tokens for result in results]  # type: ignore[union-attr]
    assert outcome.new_tokens == 24
    assert outcome.model_calls == max(result.trace.model_calls for result in results)  # type: ignore[union-attr]
    assert outcome.row_rounds == sum(len(result.trace.steps) for result in results)  # type: ignore[union-attr]
    assert outcome.outside_seconds is not None and 0 < outcome.outside_seconds < outcome.seconds


def test_draft_calls_are_counted_apart(tiny: Loaded) -> None:
    ours = Ours("speculative_sampling", "speculative_sampling", {"tokens": 2}, tiny, {"draft": tiny})
    outcome = ours.run([[5, 6, 7]], SETTING, 0)
    # A model that drafts for itself is always right: 4 rounds of 2 drafts and a bonus token, 2 draft calls each.
    assert (outcome.model_calls, outcome.draft_calls) == (4, 8)


def test_what_was_learned_lasts_until_forget_and_is_nobody_elses(tiny: Loaded) -> None:
    ours = Ours("token_recycling", "token_recycling", {"nodes": 7}, tiny)
    first = ours.run([[5, 6, 7]], SETTING, 0)
    warmer = ours.run([[5, 6, 7]], SETTING, 0)
    assert warmer.model_calls < first.model_calls
    assert tiny.memories == {}
    ours.forget()
    assert ours.run([[5, 6, 7]], SETTING, 0).model_calls == first.model_calls


def test_transformers_decodes_the_same_tokens(tiny: Loaded) -> None:
    ours = our_contestants(["plain"], [], None, tiny, {})[0].run([[5, 6, 7]], SETTING, 0)
    theirs = peer_contestants(["transformers"], tiny, {})[0].run([[5, 6, 7]], SETTING, 0)
    assert theirs.tokens == ours.tokens and theirs.model_calls == ours.model_calls == 12
