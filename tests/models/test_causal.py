"""Token-for-token equality with transformers' own greedy decoding, for every family, method and row of a ragged batch."""

from __future__ import annotations

import pytest

NATIVE = ["llama", "qwen3", "gpt2", "gemma3", "gemma2", "mistral", "phi3", "opt", "mixtral", "gpt_oss"]
STATEFUL = ["mamba", "mamba2", "qwen3_next", "jamba", "falcon_h1"]
UNROLLED = ["bloom", *STATEFUL]
WINDOWED = {"gemma3", "gemma2", "mistral", "gpt_oss"}
METHODS = {
    "plain": {},
    "prompt_lookup": {"max_ngram": 2},
    "token_recycling": {"nodes": 24},
    "medusa": {"heads": "random", "nodes": 24},
    "jacobi": {"block": 4},
    "lookahead": {"level": 4, "window": 4, "guesses": 4},
    "speculative_sampling": {"tokens": 3},
    "specinfer": {"expansion": (2, 2, 1)},
    "auto": {"nodes": 15, "adapt": False},
}
DRAFTED = {"speculative_sampling", "specinfer"}
TOKENS = 20


def grams_repeated(texts: list[list[int]], size: int = 4) -> float:
    """The share of n-grams that stood in the same text before."""
    grams = [[tuple(text[i : i + size]) for i in range(len(text) - size + 1)] for text in texts]
    return 1 - sum(len(set(own)) for own in grams) / sum(map(len, grams))


@pytest.mark.parametrize("family", NATIVE + UNROLLED)
def test_reference_text_does_not_loop(family, reference, ragged):
    texts = reference(family, "float32", ragged, TOKENS)
    assert grams_repeated(texts) < 0.5
    assert len({token for text in texts for token in text}) > 20


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", NATIVE)
def test_greedy_equals_transformers(family, method, causal, reference, ragged, decode):
    draft = causal(family, "float32", draft=True) if method in DRAFTED else None
    decoded = decode(causal(family, "float32"), method, ragged, METHODS[method], draft, max_new_tokens=TOKENS)
    assert decoded.tokens == reference(family, "float32", ragged, TOKENS)


@pytest.mark.parametrize("method", ["plain", "token_recycling", "lookahead", "specinfer"])
@pytest.mark.parametrize("family", NATIVE)
def test_greedy_equals_transformers_in_float64(family, method, causal, reference, ragged, decode):
    draft = causal(family, "float64", draft=True) if method in DRAFTED else None
    decoded = decode(causal(family, "float64"), method, ragged, METHODS[method], draft, max_new_tokens=12)
    assert decoded.tokens == reference(family, "float64", ragged, 12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", UNROLLED)
def test_unrolled_families_equal_transformers(family, method, causal, reference, ragged, decode):
    model = causal(family, "float32")
    draft = causal(family, "float32", draft=True) if method in DRAFTED else None
    decoded = decode(model, method, ragged, METHODS[method], draft, max_new_tokens=TOKENS)
    assert decoded.tokens == reference(family, "float32", ragged, TOKENS)


@pytest.mark.parametrize("method", ["plain", "token_recycling", "lookahead", "specinfer"])
@pytest.mark.parametrize("family", STATEFUL)
def test_models_with_states_equal_transformers_in_float64(family, method, causal, reference, ragged, decode):
    draft = causal(family, "float64", draft=True) if method in DRAFTED else None
    decoded = decode(causal(family, "float64"), method, ragged, METHODS[method], draft, max_new_tokens=12)
    assert decoded.tokens == reference(family, "float64", ragged, 12)


def test_drafts_are_accepted(causal, ragged, decode):
    """The equalities above would mean little if no draft had ever been accepted."""
    for method in METHODS.keys() - {"plain"}:
        draft = causal("llama", "float32", draft=True) if method in DRAFTED else None
        decoded = decode(causal("llama", "float32"), method, ragged, METHODS[method], draft, max_new_tokens=TOKENS)
        assert decoded.accepted() > 5, method


@pytest.mark.parametrize("method", ["token_recycling", "specinfer"])
def test_what_was_learned_before_changes_no_token(method, causal, reference, ragged, decode):
    memories: dict[object, object] = {}
    draft = causal("qwen3", "float32", draft=True) if method in DRAFTED else None
    runs = [
        decode(causal("qwen3", "float32"), method, ragged, METHODS[method], draft, memories=memories, max_new_tokens=TOKENS)
        for _ in range(2)
    ]
    assert runs[0].tokens == runs[1].tokens == reference("qwen3", "float32", ragged, TOKENS)
    if method == "token_recycling":
        assert runs[1].accepted() > runs[0].accepted()


@pytest.mark.parametrize("family", ["gemma3", "mamba", "qwen3_next"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_row_alone_equals_row_in_a_batch(method, temperature, family, causal, ragged, decode):
    """Rows do not see each other: at temperature 1 too, where a row's noise is keyed by its prompt's number."""
    from treewright.core.request import Sampling

    model, prompts = causal(family, "float64"), ragged[:4]
    draft = causal(family, "float64", draft=True) if method in DRAFTED else None
    settings = dict(max_new_tokens=10, sampling=Sampling(temperature=temperature), seed=3)
    together = decode(model, method, prompts, METHODS[method], draft, **settings)
    # With one row at a time the others wait, so every row is decoded alone under its own key.
    alone = decode(model, method, prompts, METHODS[method], draft, batch_rows=1, **settings)
    assert together.tokens == alone.tokens


@pytest.mark.parametrize("method", ["prompt_lookup", "token_recycling", "jacobi", "lookahead"])
def test_sampled_tokens_equal_plain_sampling(method, causal, ragged, decode):
    from treewright.core.request import Sampling

    settings = dict(max_new_tokens=12, sampling=Sampling(temperature=0.7, top_p=0.9), seed=5)
    model = causal("llama", "float64")
    assert decode(model, method, ragged, METHODS[method], **settings).tokens == decode(model, "plain", ragged, **settings).tokens


@pytest.mark.parametrize("columns", [8, 16, 40])
def test_a_limit_on_columns_changes_no_token(columns, causal, reference, ragged, decode):
    for method in METHODS:
        draft = causal("llama", "float32", draft=True) if method in DRAFTED else None
        decoded = decode(
            causal("llama", "float32"), method, ragged, METHODS[method], draft, columns=columns, max_new_tokens=10
        )  # fmt: skip
        assert decoded.tokens == [text[:10] for text in reference("llama", "float32", ragged, TOKENS)], method
        scored = [call for call in decoded.trace().calls if call.model == "target" and call.kind == "score"]
        assert all(call.rows * (call.columns - 1) <= columns for call in scored), method


def test_draft_of_another_family(causal, reference, ragged, decode):
    target, draft = causal("llama", "float32"), causal("gpt2", "float32")
    for method in DRAFTED:
        decoded = decode(target, method, ragged, METHODS[method], draft, max_new_tokens=10)
        assert decoded.tokens == [text[:10] for text in reference("llama", "float32", ragged, TOKENS)]


def test_text_ends_at_the_last_position(causal, reference, decode, network):
    """A prompt that nearly fills the context: claims beyond the last position are never asked about."""
    context = network("gpt2", "float32").config.n_positions
    prompt = [1 + index * 7 % 90 for index in range(context - 6)]
    for method in METHODS:
        draft = causal("gpt2", "float32", draft=True) if method in DRAFTED else None
        decoded = decode(causal("gpt2", "float32"), method, [prompt], METHODS[method], draft, max_new_tokens=50)
        assert decoded.tokens == reference("gpt2", "float32", [prompt], 6), method
        assert decoded.engine.finished[0, 0].finish == "length"


@pytest.mark.parametrize("family", NATIVE)
def test_windows_are_found(family, causal):
    widths = causal(family, "float32").windows
    assert ({width for width in widths.values()} - {None} == {6}) == (family in WINDOWED)
    assert causal(family, "float32").capabilities.tree == "native"


@pytest.mark.parametrize("family", UNROLLED)
def test_models_that_read_each_path_apart_say_so(family, causal):
    assert causal(family, "float32").capabilities.tree == ("native" if family == "mamba2" else "unrolled")
