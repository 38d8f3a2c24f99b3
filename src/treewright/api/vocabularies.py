"""Models beside the target whose vocabulary is another: which methods can do with them, and how they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from treewright.core.card import Card
from treewright.core.errors import CapabilityError, ModelError
from treewright.core.registry import entries
from treewright.core.session import check_room
from treewright.models.loading import Loaded
from treewright.models.other_vocabulary import Ids, OtherVocabulary
from treewright.models.translator import Translator


def fitted(target: Loaded, role: str, other: Loaded, cards: Sequence[Card]) -> Loaded:
    """The model of a role as the target's methods can ask it: itself where the vocabulary is the target's, else behind a
    translation where all cards that use the role allow one. Raises CapabilityError."""
    theirs, ours = other.protocol.capabilities.vocabulary, target.protocol.capabilities.vocabulary
    ways = {dict(card.translated).get(role) for card in cards if role in card.models}
    if len(ways) != 1 or None in ways:
        if theirs == ours:
            return other
        able = sorted(e.card.name for e in entries().values() if role in dict(e.card.translated))
        raise CapabilityError(
            f"model '{other.name}' for the role '{role}' has a vocabulary of {theirs} tokens and the target "
            f"'{target.name}' one of {ours}; give a model with the target's tokenizer"
            + (f", or a method that translates: {', '.join(able)}" if able else "")
        )
    mute = [model for model in (target, other) if model.tokenizer is None]
    if mute:
        if theirs == ours:
            return other
        raise CapabilityError(
            f"model '{other.name}' for the role '{role}' has a vocabulary of {theirs} tokens and the target '{target.name}' one "
            f"of {ours}; to translate between them both need a tokenizer, and '{mute[0].name}' has none: give one to load()"
        )
    if theirs == ours and _same_tokenizer(target, other):
        return other
    has = other.protocol.capabilities
    if has.order != "left_to_right" or has.decoder_start is not None:
        raise CapabilityError(
            f"model '{other.name}' for the role '{role}' has another vocabulary than the target '{target.name}' and is no causal "
            "model; give a causal one, or one with the target's tokenizer"
        )
    try:
        translator = Translator(target.spelling, other.spelling)
    except ModelError as error:
        raise CapabilityError(f"role '{role}': {error}") from error
    return replace(other, protocol=OtherVocabulary(other.protocol, translator, cast(Ids, ways.pop())))


def _same_tokenizer(target: Loaded, other: Loaded) -> bool:
    ours, theirs = target.tokenizer, other.tokenizer
    return ours is theirs or ours.get_vocab() == theirs.get_vocab()  # type: ignore[union-attr]


def check_prompts(models: Mapping[str, Loaded], prompts: Sequence[Sequence[int]]) -> None:
    """Raises ContextError where a prompt, written in a model's own vocabulary, does not fit into the model."""
    for model in models.values():
        if isinstance(model.protocol, OtherVocabulary):
            for index, prompt in enumerate(prompts):
                check_room(model.protocol.within, len(model.protocol.prompt(prompt)), f"prompt {index}", f"model '{model.name}'")
