"""What judges texts: a transformers sequence-classification model, an object with `score`, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS

from treewright.core.errors import ContextError, InputError, ModelError, choices
from treewright.core.selection import Scorer
from treewright.models.loading import bundled_names, device_of, dtype_of, tokenizer_of
from treewright.models.random_weights import PREFIX

Reads = Literal["joined", "pair", "continuation", "chat"]


class RewardModel:
    """A sequence classifier as a `Scorer`. Texts of one length are read in one forward, so that nothing is padded and a text's
    score does not depend on the others; a model without a padding token reads one text a forward."""

    def __init__(
        self, name: str, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, label: int | None, reads: Reads
    ) -> None:
        self.name, self.model, self.tokenizer = name, network, tokenizer
        self._label, self._reads = label, reads

    def score(self, prompt: str, texts: Sequence[str]) -> list[float]:
        """The score of each continuation: the model's one logit, or the log-probability of the chosen label.

        Raises ContextError for a text beyond the model's positions.
        """
        read = [self._read(prompt, text) for text in texts]
        most = getattr(self.model.config, "max_position_embeddings", None)
        longest = max((len(inputs["input_ids"]) for inputs in read), default=0)
        if most is not None and longest > most:
            raise ContextError(
                f"a text of {longest} tokens is to be judged by model '{self.name}' of {most} positions; decode fewer tokens"
            )
        order = sorted(range(len(read)), key=lambda index: len(read[index]["input_ids"]))
        scores = [0.0] * len(read)
        for _, group in groupby(order, key=lambda index: len(read[index]["input_ids"])):
            members = list(group)
            size = len(members) if self.model.config.pad_token_id is not None else 1
            for start in range(0, len(members), size):
                together = members[start : start + size]
                for index, score in zip(together, self._forward([read[index] for index in together]), strict=True):
                    scores[index] = score
        return scores

    def _read(self, prompt: str, text: str) -> dict[str, list[int]]:
        if self._reads == "chat":
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
            ids: Any = self.tokenizer.apply_chat_template(turns, return_dict=False)
            return {"input_ids": list(ids)}
        asked = {"joined": (prompt + text,), "pair": (prompt, text), "continuation": (text,)}[self._reads]
        return dict(self.tokenizer(*asked))

    def _forward(self, inputs: Sequence[dict[str, list[int]]]) -> list[float]:
        batch = {key: torch.tensor([one[key] for one in inputs], device=self.model.device) for key in inputs[0]}
        with torch.inference_mode():
            logits = self.model(**batch).logits.float()
        if self._label is None:
            return logits[:, 0].tolist()
        several = self.model.config.problem_type == "multi_label_classification"
        return (logits.sigmoid().log() if several else logits.log_softmax(-1))[:, self._label].tolist()


def load_reward(
    model: str | Path | PreTrainedModel,
    tokenizer: str | Path | PreTrainedTokenizerBase | None = None,
    label: str | int | None = None,
    reads: Reads = "joined",
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> RewardModel:
    """Loads what scores texts for methods that ask for a "reward".

    model: a transformers id or folder of a sequence classifier ("FOLDER#LABEL" names its label, too), or such a model in
    memory. tokenizer: a name or an object; by default the model's own, which a model in memory does not have. label: the name
    or number of the class whose log-probability is the score; a model of one logit needs none. reads: the prompt and the
    continuation as one text ("joined"), as a pair, as a chat of user and assistant, or the continuation alone.
    Raises ModelError. Cost: a forward for each length that occurs among the texts.
    """
    if reads not in get_args(Reads):
        raise InputError(f"reads is '{reads}'; {choices(str(reads), get_args(Reads))}")
    if isinstance(model, (str, Path)):
        _refuse_language_model(str(model))
        source, marked = _split(str(model))
        network, name, label = _load(source, dtype), source, marked if label is None else label
        tokenizer = source if tokenizer is None else tokenizer
    elif isinstance(model, PreTrainedModel) and type(model).__name__ in CLASSIFIERS.values():
        wanted = dtype_of(dtype)
        network, name = model if wanted is None else model.to(dtype=wanted), type(model).__name__  # type: ignore[call-arg]
    else:
        raise ModelError(f"a reward is a {type(model).__name__}; give the folder or id of a sequence classifier, or such a model")
    read = tokenizer_of(tokenizer)
    if read is None:
        raise ModelError(f"reward model '{name}' has no tokenizer; give one: load_reward(model, tokenizer)")
    if reads == "chat" and read.chat_template is None:
        raise ModelError(f"reward model '{name}' has no chat template; give reads='joined', 'pair' or 'continuation'")
    if device is not None:
        network = network.to(device_of(device))  # type: ignore[arg-type]
    return RewardModel(name, network.eval(), read, _label(network, name, label), reads)


def _refuse_language_model(name: str) -> None:
    if name in bundled_names() or name.startswith(PREFIX):
        raise ModelError(
            f"a reward is '{name}', which is a language model; a reward judges texts: give the folder or id of a sequence "
            "classifier, or a function f(prompt, text) that returns a number"
        )


def _split(name: str) -> tuple[str, str | None]:
    """A folder or id, and the label written after '#', if any."""
    source, mark, label = name.rpartition("#")
    return (source, label) if mark and not Path(name).exists() else (name, None)


def _load(name: str, dtype: str | torch.dtype | None) -> PreTrainedModel:
    wanted = dtype_of(dtype)
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise ModelError(f"cannot load reward model '{name}' (there is no such folder); give a folder or a transformers id")
    try:
        network, info = AutoModelForSequenceClassification.from_pretrained(name, dtype=wanted or "auto", output_loading_info=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load reward model '{name}' ({reason}); give the folder or id of a sequence classifier"
        ) from error
    if info["missing_keys"]:
        raise ModelError(
            f"reward model '{name}' was saved without {min(info['missing_keys'])}: it is no trained sequence classifier; give one"
        )
    return network


def _label(network: PreTrainedModel, name: str, label: str | int | None) -> int | None:
    """The column of the label; None for the only logit."""
    names: dict[int, str] = dict(network.config.id2label)  # type: ignore[arg-type]
    if network.config.num_labels == 1 and label is None:
        return None
    known = {str(number): number for number in names} | {written: number for number, written in names.items()}
    if label is None or str(label) not in known or network.config.num_labels == 1:
        raise ModelError(
            f"label is {label!r} for reward model '{name}', which has {network.config.num_labels} labels "
            f"({', '.join(names.values())}); give load_reward(..., label=NAME) or FOLDER#NAME where there are several"
        )
    return known[str(label)]


class _Function:
    """A function of the user's as a `Scorer`."""

    def __init__(self, function: Callable[[str, str], float]) -> None:
        self._function = function

    def score(self, prompt: str, texts: Sequence[str]) -> list[float]:
        return [float(self._function(prompt, text)) for text in texts]


def as_scorer(role: str, given: Any) -> Scorer:
    """Whatever a user may give for a role that judges: the name of a reward model, an object with score(prompt, texts), or a
    function f(prompt, text). Raises InputError, and ModelError as `load_reward` does."""
    if isinstance(given, (str, Path)):
        return load_reward(given)
    if isinstance(given, PreTrainedModel):  # before `score`, which some classifiers call their last layer
        raise InputError(f"the role '{role}' is a {type(given).__name__} without a tokenizer; give load_reward(model, tokenizer)")
    if hasattr(given, "score"):
        return given
    if not callable(given):
        raise InputError(
            f"the role '{role}' is a {type(given).__name__}; give a function of a prompt and a continuation, an object with "
            "score(prompt, texts), or the folder of a sequence classifier"
        )
    return _Function(given)
