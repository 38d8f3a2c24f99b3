"""Minimum Bayes risk: expected utility by brute force and by full enumeration of a table, utilities beside definitions."""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treewright
from treewright import laws
from treewright.core.errors import InputError, UnknownOption
from treewright.core.selection import Candidate
from treewright.methods.select import mbr
from treewright.methods.select.mbr import Config, MinimumBayesRisk, edit_similarity, exact_match, levenshtein, token_f1
from treewright.models.tables import Table

OWN = {"token_f1": token_f1, "exact_match": exact_match, "edit_similarity": edit_similarity}
FEW = st.text("ab ", max_size=6)


@pytest.mark.parametrize("options", [{}, {"utility": "chrf", "references": "probability"}])
def test_it_selects_among_plain_samples(options):
    assert laws.selects("mbr", {"candidates": 4, **options}).worst <= 1e-9


@given(FEW, FEW)
def test_levenshtein_is_that_of_the_recursion(one, other):
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, j in itertools.product(range(len(one) + 1), range(len(other) + 1)):
        steps = [table[i - 1, j] + 1] if i else []
        steps += [table[i, j - 1] + 1] if j else []
        steps += [table[i - 1, j - 1] + (one[i - 1] != other[j - 1])] if i and j else []
        table[i, j] = min(steps, default=0)
    assert levenshtein(one, other) == table[-1, -1] == levenshtein(other, one)


def test_known_utilities():
    assert levenshtein("kitten", "sitting") == 3 and edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert token_f1("a a b", "a b b c") == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert token_f1("", "") == edit_similarity("", "") == exact_match("", "") == 1
    assert token_f1("a", "") == edit_similarity("a", "") == exact_match("a", "") == 0


def test_chrf_and_bleu_are_those_of_sacrebleu():
    import sacrebleu

    texts = ["the cat sat on the mat", "a cat sat on a mat today"]
    assert mbr._sacrebleu("chrf")(*texts) == pytest.approx(sacrebleu.sentence_chrf(texts[0], [texts[1]]).score / 100)
    assert mbr._sacrebleu("bleu")(*texts) == pytest.approx(sacrebleu.sentence_bleu(texts[0], [texts[1]]).score / 100)
    assert mbr._sacrebleu("bleu")(texts[0], texts[0]) == pytest.approx(1.0)


def test_without_sacrebleu_there_is_a_clear_error(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(InputError, match=r"'chrf', which needs sacrebleu; pip install 'treewright\[select\]'"):
        treewright.generate(table(), [1], "mbr", {"utility": "chrf"}, temperature=1.0)


@given(st.lists(st.tuples(FEW, st.floats(-6, 0)), min_size=1, max_size=7), st.sampled_from(sorted(OWN)), st.booleans())
def test_expected_utility_is_that_of_brute_force(drawn, utility, weighted):
    law = dict(drawn)  # a text has one probability, however often it was drawn
    candidates = [Candidate(i, [*map(ord, text)], text, "stop", logprob=law[text]) for i, (text, _) in enumerate(drawn)]
    config = Config(utility=utility, references="probability" if weighted else "uniform")
    order = MinimumBayesRisk(config).select("", candidates, {})
    weights = {t: math.exp(p) for t, p in law.items()} if weighted else Counter(text for text, _ in drawn)
    total = sum(weights.values())
    risk = [sum(w / total * OWN[utility](text, reference) for reference, w in weights.items()) for text, _ in drawn]
    assert sorted(order) == list(range(len(drawn)))
    assert [risk[index] for index in order] == pytest.approx(sorted(risk, reverse=True))
    same = [index for index in order if drawn[index][0] == drawn[order[0]][0]]
    assert same == sorted(same)


@pytest.mark.parametrize("utility", sorted(OWN))
def test_with_all_texts_and_their_probabilities_it_is_the_true_bayes_decision(utility):
    """Every text of a table, drawn any number of times, weighs what the table says; the decision is the expectation's maximum
    over the table's own law, computed from its logits."""
    for seed in range(5):
        table, law = Table(3, seed, sharpness=1.5), {}
        for tokens in itertools.product(range(3), repeat=3):
            logprob = 0.0
            for end in range(3):
                logits = table.logits([1, *tokens[:end]])
                logprob += float(logits[tokens[end]] - np.log(np.exp(logits).sum()))
            law[tokens] = logprob
        assert sum(map(math.exp, law.values())) == pytest.approx(1.0)
        drawn = [*law, *list(law)[:9], *list(law)[:4]]
        texts = {tokens: " ".join(map(str, tokens)) for tokens in law}
        candidates = [Candidate(i, list(t), texts[t], "length", logprob=law[t]) for i, t in enumerate(drawn)]
        best = MinimumBayesRisk(Config(utility=utility, references="probability")).select("", candidates, {})[0]
        truth = {h: sum(math.exp(p) * OWN[utility](texts[h], texts[r]) for r, p in law.items()) for h in law}
        assert truth[drawn[best]] == pytest.approx(max(truth.values()), abs=1e-12)
        if utility == "exact_match":
            assert drawn[best] == max(law, key=law.__getitem__)


def test_through_the_engine_probability_weights_approach_the_bayes_decision(table):
    """So many samples that every text of two tokens is among them: the choice is that of enumeration, from the model's logits."""
    model = table(3)
    found = treewright.generate(
        model, [1, 2], "mbr", {"candidates": 200, "references": "probability"},
        max_new_tokens=2, temperature=1.0, batch_rows=64, logprobs=True, n=200, ignore_eos=True,
    )  # fmt: skip
    law = {}
    for sample in found.samples:
        law[sample.text] = law.get(sample.text, {}) | {tuple(sample.tokens): math.exp(sum(sample.logprobs))}
    chances = {text: sum(tokens.values()) for text, tokens in law.items()}
    assert sum(chances.values()) == pytest.approx(1.0)
    truth = {h: sum(p * token_f1(h, r) for r, p in chances.items()) for h in chances}
    assert truth[found.text] == pytest.approx(max(truth.values()))


def test_exact_match_takes_the_most_frequent_text(pool, chooser):
    assert chooser("mbr", utility="exact_match")(pool("a", "b", "c", "b", "c")) == [1, 2, 3, 4, 0]


def test_two_candidates_tie_under_a_symmetric_utility(pool, chooser):
    for utility in OWN:
        assert chooser("mbr", utility=utility)(pool("x y z", "x")) == [0, 1]


def test_repeated_references_are_weights(pool, chooser):
    """Uniform weights over draws are those of counts over different texts."""
    once = pool("a b", "a", "b c", logprobs=[math.log(w / 6) for w in (1, 2, 3)])
    many = pool("a b", "a", "b c", "a", "b c", "b c")
    texts = [once[i].text for i in chooser("mbr", references="probability")(once)]
    assert list(dict.fromkeys(many[i].text for i in chooser("mbr")(many))) == texts


def test_cut_off_candidates_are_no_references_and_come_last(pool, chooser):
    cut = pool("a", "b", "b", "a b", reasons=["stop", "budget", "dead_end", "length"])
    assert chooser("mbr")(cut) == [0, 3, 1, 2]
    assert chooser("mbr")(pool("a", "b", "b", reasons=["budget"] * 3))[0] == 1


@pytest.mark.parametrize("options", [{"candidates": 0}, {"utility": "meteor"}, {"references": "none"}])
def test_bad_options(table, options):
    with pytest.raises(UnknownOption, match=rf"mbr.{next(iter(options))}"):
        treewright.generate(table(), [1], "mbr", options, temperature=1.0)
