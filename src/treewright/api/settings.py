"""The keywords of `generate` and `stream` as the fields of a request: what is wrong with them is found first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from treewright.core.errors import InputError, choices
from treewright.core.request import Budget, Request, Sampling
from treewright.core.typed import WrongType, read, shown
from treewright.models.loading import Loaded

SAMPLING = tuple(field.name for field in dataclasses.fields(Sampling))
NOT_KEYWORDS = {"prompts", "sampling", "eos_ids", "samples", "constraints"}
KEYWORDS = {*SAMPLING, "n", "constraint"} | {field.name for field in dataclasses.fields(Request)} - NOT_KEYWORDS


def read_settings(keywords: Mapping[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    """The keywords as `prepare` takes them; `without` names some that the caller does not have. Raises InputError."""
    allowed = KEYWORDS - set(without)
    unknown = set(keywords) - allowed
    if unknown:
        raise InputError(f"unknown setting '{min(unknown)}'; {choices(min(unknown), allowed)}")
    given = dict(keywords)
    chosen = {name: given.pop(name) for name in SAMPLING if name in given}
    constraint = given.pop("constraint", None)
    settings: dict[str, Any] = {
        **{("samples" if name == "n" else name): value for name, value in given.items()},
        "sampling": Sampling(**{**chosen, "logit_bias": _bias(chosen.get("logit_bias"))}),
        "stop": _stop(given.get("stop")), "stop_ids": _ids(given.get("stop_ids", ())), "budget": _budget(given.get("budget")),
    }  # fmt: skip
    Request(prompts=((0,),), **settings)
    return {**settings, "constraint": constraint}


def _bias(given: Any) -> Any:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise InputError(f"logit_bias is {shown(given)}; give a mapping of token ids to numbers, such as {{5: -2.0}}")
    for token, bias in given.items():
        try:
            read((token, bias), tuple[int, float])
        except WrongType:
            raise InputError(
                f"logit_bias gives {shown(token)} the number {shown(bias)}; allowed: finite numbers for token ids, of which "
                "-1e9 forbids one"
            ) from None
    return tuple(sorted(given.items()))


def _stop(given: Any) -> tuple[Any, ...]:
    if isinstance(given, str):
        return (given,)
    return () if given is None else _listed("stop", given, "text, or a list of texts")


def _ids(given: Any) -> tuple[Any, ...]:
    return _listed("stop_ids", given, "a list of token ids")


def _listed(name: str, given: Any, wanted: str) -> tuple[Any, ...]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise InputError(f"{name} is {shown(given)}; give {wanted}")
    return tuple(given)


def _budget(given: Any) -> Budget:
    if isinstance(given, Budget):
        return given
    names = [field.name for field in dataclasses.fields(Budget)]
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"budget is {shown(given)}; give a mapping of {', '.join(names)} to numbers")
    unknown = next((key for key in given or {} if key not in names), None)
    if unknown is not None:
        raise InputError(f"budget has no '{unknown}'; {choices(str(unknown), names)}")
    return Budget(**(given or {}))


def check_ids(target: Loaded, request: Request) -> None:
    """Raises InputError for a token id in a setting that the model does not have."""
    vocabulary = target.protocol.capabilities.vocabulary
    for name, ids in {
        "logit_bias": [token for token, _ in request.sampling.logit_bias], "stop_ids": list(request.stop_ids),
    }.items():  # fmt: skip
        wrong = next((token for token in ids if not 0 <= token < vocabulary), None)
        if wrong is not None:
            raise InputError(f"{name} names token id {wrong}; model '{target.name}' has ids 0 to {vocabulary - 1}")
