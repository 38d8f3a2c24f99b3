"""Reward models on tiny random classifiers: a score is that of the bare forward, whatever stands beside the text."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from treewright.core.errors import ContextError, InputError, ModelError
from treewright.models.rewards import as_scorer, load_reward

TEXTS = ["abc", "d", "xyz", "", "abcabcab"]


def bytes_tokenizer() -> t.PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def classifier(family: str = "llama", labels: int = 1, **more: Any) -> Any:
    torch.manual_seed(3)
    width = dict(vocab_size=257, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    width |= dict(max_position_embeddings=48, initializer_range=0.5, num_labels=labels)
    if family == "llama":
        config = t.LlamaConfig(**width, num_key_value_heads=2, pad_token_id=256, **more)
        return t.LlamaForSequenceClassification(config).eval()
    return t.BertForSequenceClassification(t.BertConfig(**width, pad_token_id=0, **more)).eval()


def bare(model: Any, text: str) -> torch.Tensor:
    ids = torch.tensor([bytes_tokenizer()(text)["input_ids"]])
    with torch.no_grad():
        return model(input_ids=ids).logits[0]


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_score_is_that_of_the_text_alone(family: str) -> None:
    model = classifier(family)
    reward = load_reward(model, bytes_tokenizer())
    found = reward.score("a prompt: ", TEXTS)
    assert found == pytest.approx([float(bare(model, "a prompt: " + text)) for text in TEXTS], rel=1e-5)
    assert len(set(found)) == len(TEXTS)


def test_texts_of_a_length_share_a_forward_and_models_without_padding_read_one_at_a_time() -> None:
    model, widths = classifier(), []
    model.register_forward_pre_hook(lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[0]), with_kwargs=True)
    reward = load_reward(model, bytes_tokenizer())
    shared = reward.score("p", TEXTS)
    assert sorted(widths) == [1, 1, 1, 2]
    widths.clear()
    model.config.pad_token_id = None
    assert reward.score("p", TEXTS) == pytest.approx(shared, rel=1e-5) and widths == [1] * 5


@pytest.mark.parametrize("label", ["good", 1, "1"])
def test_a_chosen_label_is_a_log_probability(label: Any) -> None:
    model = classifier(labels=3, id2label={0: "bad", 1: "good", 2: "odd"})
    found = load_reward(model, bytes_tokenizer(), label=label).score("p", ["abc"])
    assert found == pytest.approx([float(bare(model, "pabc").log_softmax(-1)[1])], rel=1e-5)
    model.config.problem_type = "multi_label_classification"
    found = load_reward(model, bytes_tokenizer(), label=label).score("p", ["abc"])
    assert found == pytest.approx([float(bare(model, "pabc")[1].sigmoid().log())], rel=1e-5)


def test_what_is_read() -> None:
    model, tokenizer = classifier(), bytes_tokenizer()
    assert load_reward(model, tokenizer, reads="continuation").score("p", ["abc"])[0] == pytest.approx(float(bare(model, "abc")))
    tokenizer.chat_template = "{% for turn in messages %}<{{ turn.content }}>{% endfor %}"
    assert load_reward(model, tokenizer, reads="chat").score("p", ["a"])[0] == pytest.approx(float(bare(model, "<p><a>")))
    with pytest.raises(InputError, match=r"reads is 'both'; allowed: chat, continuation, joined, pair"):
        load_reward(model, tokenizer, reads="both")  # type: ignore[arg-type]


def test_a_folder_and_a_label_in_its_name(tmp_path: Path) -> None:
    model = classifier(labels=2, id2label={0: "bad", 1: "good"})
    model.save_pretrained(tmp_path / "judge")
    bytes_tokenizer().save_pretrained(tmp_path / "judge")
    scorer = as_scorer("reward", f"{tmp_path / 'judge'}#good")
    assert scorer.score("p", ["abc"]) == pytest.approx([float(bare(model, "pabc").log_softmax(-1)[1])], rel=1e-5)
    with pytest.raises(ModelError, match=r"label is None .* which has 2 labels \(bad, good\); give .*FOLDER#NAME"):
        load_reward(tmp_path / "judge")
    for name in ("default", "default-masked", "random:0.1b"):
        with pytest.raises(ModelError, match=f"a reward is '{name}', which is a language model; a reward judges texts"):
            load_reward(name)
    with pytest.raises(ModelError, match=r"label is 'odd'"):
        load_reward(f"{tmp_path / 'judge'}#odd")


def test_a_language_model_is_no_judge(tmp_path: Path) -> None:
    width = dict(vocab_size=257, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
    model = t.LlamaForCausalLM(t.LlamaConfig(**width, intermediate_size=32))
    model.save_pretrained(tmp_path / "writer")
    bytes_tokenizer().save_pretrained(tmp_path / "writer")
    with pytest.raises(ModelError, match=r"saved without score.weight: it is no trained sequence classifier"):
        load_reward(tmp_path / "writer")
    with pytest.raises(ModelError, match=r"a reward is a LlamaForCausalLM; give the folder"):
        load_reward(model, bytes_tokenizer())


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot load reward model '.*nowhere' \(there is no such folder\)"):
        load_reward(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"has no tokenizer; give one: load_reward\(model, tokenizer\)"):
        load_reward(classifier())
    with pytest.raises(InputError, match=r"LlamaForSequenceClassification without a tokenizer; give load_reward"):
        as_scorer("reward", classifier())
    with pytest.raises(ContextError, match=r"a text of 51 tokens is to be judged by model .* of 48 positions"):
        load_reward(classifier(), bytes_tokenizer()).score("p", ["x" * 50])


def test_functions_and_objects() -> None:
    assert as_scorer("reward", lambda prompt, text: len(prompt + text)).score("ab", ["c", ""]) == [3.0, 2.0]
    judge = SimpleNamespace(score=lambda prompt, texts: [1.0] * len(texts))
    assert as_scorer("reward", judge) is judge
