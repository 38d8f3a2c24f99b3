"""Exit layers: every claim's early answers against bare forwards, through every verb; who has them and who does not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from treewright.core.errors import CapabilityError
from treewright.core.exits import Others
from treewright.core.roles import Parts
from treewright.core.session import Opening
from treewright.core.text import Text
from treewright.models.causal import CausalModel
from treewright.models.exit_layers import find_head
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch

PROMPTS = [[5], [3, 1, 2, 4, 4, 0, 1], [2, 2, 3]]
NORMS = {
    "llama": "model.norm", "gpt2": "transformer.ln_f", "gemma2": "model.norm", "opt": "model.decoder.final_layer_norm",
    "bloom": "transformer.ln_f", "mamba2": "backbone.norm_f",
}  # fmt: skip
FAMILIES = ["table", *NORMS]
# Gemma and Mamba take their norms in float32, whatever the model is in.
TOLERANCE = {"gemma2": 1e-4, "mamba2": 1e-4}


@pytest.fixture
def model_of(causal):
    return lambda family: Table(6, seed=1) if family == "table" else causal(family, "float64")


def bare(family: str, model: Any, tokens: list[int], layer: int, norm: bool) -> np.ndarray:
    """The answer of one exit layer after `tokens`, from a forward without memory and the model's modules by their names."""
    if family == "table":
        return model.exit_logits(tokens, layer, norm)
    with torch.no_grad():
        output = model.model(torch.tensor([tokens]), use_cache=False, output_hidden_states=True)
        if layer == len(output.hidden_states) - 1:
            return output.logits[0, -1].numpy()
        state = output.hidden_states[layer][0, -1]
        logits = model.model.lm_head(model.model.get_submodule(NORMS[family])(state) if norm else state)
    return (30 * torch.tanh(logits / 30) if family == "gemma2" else logits).numpy()


def exit_error(family: str, twin: Any, forest: Any, answers: Any) -> float:
    worst, last = 0.0, answers.exits.layers
    for row in range(forest.rows):
        for column in range(0, forest.columns, 3):
            tokens = [*twin.texts[row], *forest.path_tokens(row, column)]
            for norm in (True, False):
                found = answers.at_layers(row, column, [last, 0, last - 1], norm)
                expected = np.stack([bare(family, twin.model, tokens, layer, norm) for layer in (last, 0, last - 1)])
                worst = max(worst, float(np.abs(found - expected).max()))
    return worst


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_exit_layers_of_a_tree_equal_bare_forwards(family, hidden, model_of, twin_of):
    """Grown in two calls, committed, rows forked, a row admitted, and with a root that was kept."""
    model = model_of(family)
    twin = twin_of(model, PROMPTS, seed=3, hidden=hidden, layers=True)
    for deed in ("grow", "fork", "join", "kept root"):
        forest = twin.forest()
        twin.grow(forest, 3, shared=True)
        twin.session.score(forest)
        twin.grow(forest, 2, shared=deed == "fork")
        answers = twin.session.score(forest)
        assert answers.exits.layers == (8 if family == "table" else model.config.num_hidden_layers)
        assert exit_error(family, twin, forest, answers) < TOLERANCE.get(family, 1e-9)
        twin.commit(forest, extra=0)
        if deed == "fork":
            twin.select([2, 0, 0])
        if deed == "join":
            twin.admit([[4, 1]])
    assert exit_error(family, twin, twin.forest(), twin.session.root()) < TOLERANCE.get(family, 1e-9)


def test_they_are_none_unless_asked_for(model_of, twin_of):
    for family in ("table", "llama", "bloom"):
        answers = twin_of(model_of(family), PROMPTS).session.root()
        assert answers.exits is None
        with pytest.raises(ValueError, match="layers=True"):
            answers.at_layers(0, 0, [0])


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_low_precision_finds_the_head_too(dtype, error, causal):
    for family in ("llama", "gpt2", "gemma2", "mixtral"):
        model = causal(family, dtype)
        assert model.capabilities.exit_layers
        with torch.no_grad():
            output = model.model(torch.tensor([[3, 1, 4]]), use_cache=False, output_hidden_states=True)
            # The last state has been through the norm already.
            found = model.head(output.hidden_states[-1][0], norm=False)
        assert (found - output.logits[0]).abs().max() <= error * output.logits.abs().max()


def test_tied_embeddings_are_told(causal):
    assert [causal(family, "float32").head.tied for family in ("llama", "gpt2", "opt")] == [False, True, True]


def post_norm() -> Any:
    """The OPT without a final norm: each layer ends in its own."""
    import transformers as t

    config = t.OPTConfig(
        vocab_size=31, hidden_size=16, word_embed_proj_dim=16, ffn_dim=16, num_attention_heads=2, num_hidden_layers=2,
        max_position_embeddings=64, do_layer_norm_before=False,
    )  # fmt: skip
    return t.OPTForCausalLM(config).eval()


def test_a_model_without_a_final_norm_lacks_the_capability():
    network = post_norm()
    model = CausalModel(network)
    assert not model.capabilities.exit_layers
    with pytest.raises(CapabilityError, match="OPTForCausalLM, whose final norm and output matrix could not be found"):
        model.open(Text(9), Opening(1, 1, 9, layers=True), lambda *call: None)
    from treewright.api import generate

    with pytest.raises(CapabilityError, match="'dola' needs exit_layers, which model 'OPTForCausalLM' does not have"):
        generate(load(network), [[1, 2]], "dola")


def test_a_head_that_does_not_give_the_models_own_logits_is_not_taken(network):
    model = network("llama", "float32")
    hook = model.register_forward_hook(lambda module, inputs, output: output.__class__(**{**output, "logits": output.logits * 2}))
    try:
        assert find_head(model) is None
    finally:
        hook.remove()
    assert find_head(model) is not None


def test_a_compiled_model_scores_eagerly_where_layers_are_asked_for(network, twin_of):
    model = CausalModel(network("llama", "float64"))

    class Compiled:
        def refresh(self) -> None: ...

        def __call__(self, *inputs: Any) -> Any:
            raise AssertionError("the graph keeps no layers")

    model.compiled = Compiled()  # type: ignore[assignment]
    assert twin_of(model, PROMPTS, layers=True).round() < 1e-9
    with pytest.raises(AssertionError, match="keeps no layers"):
        twin_of(model, PROMPTS).round()


def test_only_the_target_is_asked_for_them(decode):
    opened = []

    class Opened(Table):
        def open(self, text: Text, opening: Opening, record: Any) -> Any:
            opened.append((self.seed, opening.layers))
            return super().open(text, opening, record)

    parts = Parts(verify=SampleThenMatch(), layers=True)
    decode(Opened(4, seed=1), parts, [[1]], draft=Opened(4, seed=2), max_new_tokens=2)
    assert opened == [(1, True), (2, False)]


def test_what_steering_is_given_is_a_mapping():
    named, table = {"expert": np.zeros(3)}, Table(3, seed=1, layers=4)
    others = Others(named, 4, lambda layers, norm: np.stack([table.exit_logits([1], layer, norm) for layer in layers]))
    assert list(others) == ["expert", 0, 1, 2, 3, 4] and len(others) == 6
    assert others["expert"] is named["expert"]
    assert np.array_equal(others[2], table.exit_logits([1], 2)) and np.array_equal(others[4], table.logits([1]))
    assert np.array_equal(others.exits([1, 3], norm=False), table.states([1])[[1, 3]])
    for missing in (5, -1):
        with pytest.raises(KeyError):
            others[missing]
    plain = Others(named)
    assert list(plain) == ["expert"] and 0 not in plain


def test_states_that_lie_elsewhere_go_to_the_head(network):
    """A session without memory reads on the host, and the head stays where the model is; "meta" stands for a GPU."""
    head = find_head(network("llama", "float32"))
    states = torch.zeros(2, network("llama", "float32").config.hidden_size)
    away = copy.deepcopy(head)
    away._norm, away._output = away._norm.to("meta"), away._output.to("meta")
    for norm in (True, False):
        logits = away(states, norm)
        assert (logits.device.type, logits.shape) == ("meta", head(states, norm).shape)
