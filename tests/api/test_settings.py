"""Bad values of every keyword of `generate` and `stream`: one sentence, before the model is opened."""

from __future__ import annotations

import math

import numpy as np
import pytest

import treewright as tw
from treewright.core.errors import ConstraintError, InputError, ModelError, UnknownOption
from treewright.core.registry import entries
from treewright.models.tables import Table

BAD = [
    (dict(max_new_tokens="5"), "max_new_tokens is '5'; allowed: an integer"),
    (dict(max_new_tokens=True), "max_new_tokens is True; allowed: an integer"),
    (dict(min_new_tokens=None), "min_new_tokens is None; allowed: an integer"),
    (dict(temperature=None), "temperature is None; allowed: a finite number"),
    (dict(temperature="warm"), "temperature is 'warm'; allowed: a finite number"),
    (dict(top_k=2.0), "top_k is 2.0; allowed: an integer or None"),
    (dict(top_p=math.nan), "top_p is nan; allowed: a finite number or None"),
    (dict(presence_penalty=math.nan), "presence_penalty is nan; allowed: a finite number"),
    (dict(frequency_penalty=-math.inf), "frequency_penalty is -inf; allowed: a finite number"),
    (dict(repetition_penalty=math.inf), "repetition_penalty is inf; allowed: a finite number"),
    (dict(seed="x"), "seed is 'x'; allowed: an integer"),
    (dict(batch_rows=1.5), "batch_rows is 1.5; allowed: an integer"),
    (dict(logprobs=1), "logprobs is 1; allowed: True or False"),
    (dict(ignore_eos="no"), "ignore_eos is 'no'; allowed: True or False"),
    (dict(stop=5), "stop is 5; give text, or a list of texts"),
    (dict(stop=b"x"), "stop is b'x'; give text"),
    (dict(stop=[5]), r"stop is \(5,\); allowed: a list of texts"),
    (dict(stop_ids=5), "stop_ids is 5; give a list of token ids"),
    (dict(stop_ids="ab"), "stop_ids is 'ab'; give a list of token ids"),
    (dict(stop_ids=["a"]), r"stop_ids is \('a',\); allowed: a list of integers"),
    (dict(stop_ids=[True]), r"stop_ids is \(True,\); allowed: a list of integers"),
    (dict(stop_ids=[7]), "stop_ids names token id 7; model 'Untouched' has ids 0 to 6"),
    (dict(stop_ids=[-1]), "stop_ids names token id -1"),
    (dict(logit_bias=[1]), r"logit_bias is \[1\]; give a mapping of token ids to numbers"),
    (dict(logit_bias={7: 1.0}), "logit_bias names token id 7; model 'Untouched' has ids 0 to 6"),
    (dict(logit_bias={"a": 1.0}), "logit_bias gives 'a' the number 1.0; allowed: finite numbers for token ids"),
    (dict(logit_bias={1: math.nan}), "logit_bias gives 1 the number nan; allowed: finite numbers"),
    (dict(logit_bias={1: -math.inf}), "logit_bias gives 1 the number -inf; .* -1e9 forbids one"),
    (dict(logit_bias={1: "a", "b": 2}), "logit_bias gives 1 the number 'a'"),
    (dict(budget=5), "budget is 5; give a mapping of tokens, model_calls, seconds to numbers"),
    (dict(budget={"token": 1}), "budget has no 'token'; .*did you mean 'tokens'"),
    (dict(budget={1: 1}), "budget has no '1'"),
    (dict(budget={"tokens": "a"}), "budget tokens is 'a'; allowed: an integer or None"),
    (dict(budget={"seconds": math.nan}), "budget seconds is nan"),
    (dict(method=None), "method is None; give a name"),
    (dict(options=[1]), r"options is \[1\]; give a mapping"),
    (dict(models=["x"]), r"models is \['x'\]; give a mapping of roles to models"),
    (dict(models={5: "x"}), r"models is \{5: 'x'\}; give a mapping of roles to models"),
]
ONLY_GENERATE = [
    (dict(n=2.5), "n is 2.5; allowed: an integer"),
    (dict(n=True), "n is True; allowed: an integer"),
    (dict(n="2"), "n is '2'; allowed: an integer"),
    (dict(stream=5), "stream is 5; give a transformers streamer"),
]


@pytest.mark.parametrize(("wrong", "sentence"), BAD + ONLY_GENERATE, ids=str)
def test_generate_refuses(untouched, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        tw.generate(untouched, [1, 2], **wrong)


@pytest.mark.parametrize(("wrong", "sentence"), BAD, ids=str)
def test_stream_refuses(untouched, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        next(tw.stream(untouched, [1, 2], **wrong))


def test_stream_has_no_n(untouched):
    with pytest.raises(InputError, match="unknown setting 'n'"):
        next(tw.stream(untouched, [1, 2], n=2))


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        (b"abc", "prompts is a bytes; give text"),
        (bytearray(b"abc"), "prompts is a bytearray"),
        ([b"abc"], "prompt 0 is a bytes of no known kind"),
        ([1, True], r"prompt 0 is \[1, True\], of no known kind"),
        ([1, "a"], r"prompt 0 is \[1, 'a'\], of no known kind"),
        ([[1], [1, 2.5]], r"prompt 1 is \[1, 2.5\], of no known kind"),
        (5, "prompts is a int"),
        (None, "prompts is a NoneType"),
        ([7], "prompt 0 holds token id 7"),
    ],
)
def test_what_is_no_prompt(untouched, prompts, sentence):
    with pytest.raises(InputError, match=sentence):
        tw.generate(untouched, prompts)


def test_numbers_of_numpy_are_numbers():
    ours = tw.load(Table(7, seed=0))
    given = dict(max_new_tokens=np.int64(6), temperature=np.float32(0.5), stop_ids=np.array([0]), logit_bias={np.int64(2): 1})
    plain = dict(max_new_tokens=6, temperature=0.5, stop_ids=[0], logit_bias={2: 1.0})
    assert tw.generate(ours, list(np.array([1, 2])), **given).tokens == tw.generate(ours, [1, 2], **plain).tokens


@pytest.mark.parametrize("given", [[None, None], [], [None] * 3])
def test_a_list_of_constraints_has_one_for_each_prompt(untouched, given):
    with pytest.raises(ConstraintError, match=f"constraint is a list of {len(given)}; give one, or one for each of 1 prompts"):
        tw.generate(untouched, [1, 2], constraint=given)


def wrong_values(annotation: str) -> list[object]:
    """What an option of this annotation, as written, must refuse."""
    kinds = {
        "int": ["8", 8.5, True, None, math.nan],
        "float": ["0.5", True, math.nan, math.inf, -math.inf],
        "bool": ["yes", 1, None],
    }
    return kinds.get(annotation, [b"x", math.nan, {"a": 1}])


EVERY_OPTION = [
    (name, option.name, wrong)
    for name, entry in entries().items() for option in entry.card.options for wrong in wrong_values(option.type)
]  # fmt: skip


@pytest.mark.parametrize(("method", "option", "wrong"), EVERY_OPTION, ids=str)
def test_every_option_of_every_method_refuses_what_is_not_of_its_type(method, option, wrong):
    """A bad value in a list (the table of momentum, say) and every nan and inf come through here, too."""
    from treewright.api import build_parts
    from treewright.core.recipe import Recipe

    with pytest.raises(UnknownOption, match=f"option '{method}.{option}' is .*; allowed: "):
        build_parts(Recipe.of(method, {option: wrong}))


def test_lists_of_options_hold_finite_numbers():
    with pytest.raises(UnknownOption, match=r"option 'momentum.resistance' is \(0.0, inf\); allowed: a list of finite numbers"):
        tw.generate(Table(7, seed=0), [1], "momentum", {"resistance": [0.0, math.inf]})


@pytest.mark.parametrize("method", ["momentum", "contrastive_search"])
def test_k_is_no_more_than_the_vocabulary(untouched, method):
    with pytest.raises(UnknownOption, match="option 'k' is 8; allowed: an integer from 1 to 7, the tokens that the model has"):
        tw.generate(untouched, [1], method, {"k": 8})
    assert len(tw.generate(Table(7, seed=0), [1], method, {"k": 7}, max_new_tokens=3).tokens) == 3


@pytest.mark.parametrize("prompt", ["\ud800", "half \udfff of it", b"\xff\xfe".decode("utf-8", "surrogateescape")])
def test_text_that_is_no_unicode_is_refused(prompt):
    with pytest.raises(InputError, match=r"^prompt 0 holds bytes that are no UTF-8 text"):
        tw.generate("default", prompt)


@pytest.mark.parametrize(("method", "temperature"), [
    ("plain", 0.0), ("plain", 1.0), ("token_recycling", 0.0), ("token_recycling", 1.0), ("beam", 0.0), ("beam", 1.0),
    ("best_first_beam", 0.0), ("stochastic_beam", 1.0), ("contrastive_search", 0.0), ("smc", 1.0),
])  # fmt: skip
def test_a_model_of_no_numbers_is_refused(method, temperature):
    """Searches went on for ever."""
    import torch

    model = tw.load("default", dtype="float32")
    with torch.no_grad():
        model.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="no numbers"):
        tw.generate(model, [1, 2], method, max_new_tokens=4, temperature=temperature)
