"""The way from a transformers model's hidden states to logits: final norm, output matrix, and what the model does after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How near the head's logits must come to the model's own, as a part of their spread; 0.02 in half precision."""


class ModelHead:
    """Logits of hidden states, through the modules of the model itself. tied: its embedding matrix is its output matrix."""

    def __init__(self, model: PreTrainedModel, norm: nn.Module, output: nn.Module) -> None:
        config = model.config.get_text_config()
        self._norm, self._output = norm, output
        self._factor = float(getattr(config, "logit_scale", None) or 1) / float(getattr(config, "logits_scaling", None) or 1)
        self._cap = getattr(config, "final_logit_softcapping", None)
        embeddings = model.get_input_embeddings()
        self.tied = getattr(output, "weight", None) is getattr(embeddings, "weight", self)

    @torch.inference_mode()
    def __call__(self, states: torch.Tensor, norm: bool = True) -> torch.Tensor:
        matrix = next(self._output.parameters())
        states = states.to(matrix.device)
        logits = self._output((self._norm(states) if norm else states).to(matrix.dtype)) * self._factor
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)


@torch.inference_mode()
def find_head(model: PreTrainedModel) -> ModelHead | None:
    """The head of a model, None where it has none that can be found. Cost: one forward of one token.

    The output matrix is what transformers says it is. The final norm has no accessor, so it is read off the forward: the
    last module outside of the layers whose output is the last hidden state. A head counts as found if it gives the model's
    own logits from that module's input, so a model that does something else to its logits has none.
    """
    output = model.get_output_embeddings()
    inside = {part for modules in model.modules() if isinstance(modules, nn.ModuleList) for part in modules.modules()}
    seen: list[tuple[nn.Module, Any, Any]] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, result: seen.append((module, inputs, result)))
        for module in model.modules() if module not in inside and module is not output
    ]  # fmt: skip
    try:
        answer = model(
            input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False, output_hidden_states=True
        )
    finally:
        for hook in hooks:
            hook.remove()
    states = getattr(answer, "hidden_states", None)
    if output is None or states is None or len(states) < 2:
        return None
    for norm, inputs, result in reversed(seen):
        if len(inputs) == 1 and isinstance(result, torch.Tensor) and torch.equal(result, states[-1]):
            head = ModelHead(model, norm, output)
            return head if _close(head(inputs[0]), answer.logits) else None
    return None


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    error = (found.double() - expected.double()).abs().max()
    return bool(error <= CLOSE.get(expected.dtype, 0.02) * expected.double().std())
