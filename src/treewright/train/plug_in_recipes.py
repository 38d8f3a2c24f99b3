"""The recipes of modules that are trained beside a frozen target, and the one function that runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from treewright.api import Loaded, load

from . import checkpoint, medusa, specdec_pp
from .frozen_pair import FrozenPair
from .language_model import Optimization, Trainer
from .plug_in import Finished, FrozenTarget, Loss, PlugInObjective, Trained
from .recipes import DEFAULT_OUT, MIXTURE
from .self_text import SelfTextPlan, WithSelfText, write_self_text
from .token_store import TokenStore, Window, prepare_tokens

Built = TypeVar("Built", bound=nn.Module)


class Export(Protocol[Trained]):
    """Writes a trained module, and what is measured of it, to a folder."""

    def __call__(self, module: Trained, target: Any, finished: Finished, folder: Path) -> None: ...


@dataclass(frozen=True)
class PlugIn(Generic[Built]):
    """Everything that decides a plug-in, except the target, the data folder and the token budget.

    self_text: the rows that the target writes itself; self_share: the share of the steps that read them. draft: the draft model
    that it is trained for beside the target, unless another is named; "" for a module of the target alone. `build`, `loss` and
    `export` then get a `FrozenPair` and what it read.
    """

    name: str
    build: Callable[[Any], Built]
    loss: Loss[Built]
    export: Export[Built]
    tokens: int
    optimization: Optimization
    self_text: SelfTextPlan
    self_share: float
    mixture: dict[str, float]
    seed: int = 20_250
    draft: str = ""


PLUG_INS: dict[str, PlugIn[Any]] = {
    plug_in.name: plug_in
    for plug_in in (
        PlugIn(
            name="medusa",
            build=medusa.build,
            loss=medusa.MedusaLoss(),
            export=medusa.export,
            tokens=2_000_000,
            optimization=Optimization(
                peak_learning_rate=2e-3, window=Window(8, 256), long_every=0, micro_sequences=8, warm_up_tokens=40_000,
                decay_share=0.5, weight_decay=0.01, checkpoint_tokens=250_000, evaluation_windows=4, compiled=False,
            ),
            self_text=SelfTextPlan(rows=512, prompt=32, continuation=96),
            self_share=0.2,
            mixture=MIXTURE,
        ),
        PlugIn(
            name="specdec_pp",
            build=specdec_pp.build,
            loss=specdec_pp.AcceptanceLoss(),
            export=specdec_pp.export,
            tokens=250_000,
            optimization=Optimization(
                peak_learning_rate=1e-3, window=Window(16, 128), long_every=0, micro_sequences=16, warm_up_tokens=10_000,
                decay_share=0.5, weight_decay=0.01, checkpoint_tokens=50_000, report_tokens=25_000, evaluation_windows=16,
                compiled=False,
            ),
            self_text=SelfTextPlan(rows=512, prompt=32, continuation=96),
            self_share=1.0,
            mixture=MIXTURE,
            draft="default-draft",
        ),
    )
}  # fmt: skip


def run_plug_in(
    plug_in: PlugIn[Any],
    data: Path,
    out: Path | None = None,
    *,
    model: str | Loaded = "default",
    draft: str | Loaded | None = None,
    tokens: int | None = None,
    resume: bool = False,
    export: Path | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Trains a plug-in beside `model` (a bundled name, a transformers id or folder, or a loaded model) on the corpora under
    `data` and on text that the model writes itself; returns the folder it was exported to.

    `draft` is the draft model, where the plug-in is for a pair (None: the recipe's). `out` is the run folder (default
    `~/.cache/treewright/train/<name>`), `export` the folder of the finished plug-in (default `<out>/export`). `tokens` replaces
    the recipe's budget; 0 exports the plug-in as it begins. The models' weights are read and never changed.

    Raises ValueError for a draft that is not used or has another vocabulary, and for a model without a fast tokenizer or an
    end-of-text token; CorpusError for a missing corpus; CheckpointError for `resume` without a checkpoint and the other way
    round.
    """
    folder = out or DEFAULT_OUT / plug_in.name
    if checkpoint.exists(folder) != resume:
        raise checkpoint.CheckpointError(
            f"run folder {str(folder)!r} holds {'no' if resume else 'a'} checkpoint; "
            + ("start the run without resume" if resume else "resume it or choose another folder")
        )
    folder.mkdir(parents=True, exist_ok=True)
    loaded = model if isinstance(model, Loaded) else load(model)
    beside = _draft(plug_in, loaded, draft)
    blocks = _blocks(plug_in, loaded, data, folder / "tokens", log)
    target = FrozenTarget(loaded.model) if beside is None else FrozenPair(loaded.model, beside.model)
    torch.manual_seed(plug_in.seed)
    module = plug_in.build(target)
    log(f"{plug_in.name} for {loaded.name}: {sum(weight.numel() for weight in module.parameters())} parameters")
    objective = PlugInObjective(target, plug_in.loss)
    trainer = Trainer(
        module, blocks, plug_in.optimization, folder, seed=plug_in.seed,
        total=tokens or plug_in.tokens, objective=objective, measure=objective, log=log,
    )  # fmt: skip
    if resume:
        trainer.resume(tokens)
    if tokens != 0:
        trainer.run()
    place = export or folder / "export"
    drafted = "" if beside is None else beside.name
    plug_in.export(module.eval(), target, Finished(loaded.name, trainer.progress, blocks, plug_in.mixture, drafted), place)
    return place


def _draft(plug_in: PlugIn[Any], target: Loaded, draft: str | Loaded | None) -> Loaded | None:
    if not plug_in.draft:
        if draft is not None:
            raise ValueError(f"plug-in {plug_in.name!r} is trained for one model and uses no draft; leave it out")
        return None
    loaded = draft if isinstance(draft, Loaded) else load(draft or plug_in.draft)
    theirs, ours = loaded.model.config.vocab_size, target.model.config.vocab_size
    if theirs != ours:
        raise ValueError(
            f"draft {loaded.name!r} has a vocabulary of {theirs} tokens and {target.name!r} one of {ours}; give a draft with the "
            "target's tokenizer"
        )
    return loaded


def _blocks(plug_in: PlugIn[Any], loaded: Loaded, data: Path, folder: Path, log: Callable[[str], None]) -> WithSelfText:
    tokenizer = loaded.tokenizer
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.eos_token_id is None:
        raise ValueError(
            f"model {loaded.name!r} has no fast tokenizer with an end-of-text token, so the corpora cannot be encoded for it; "
            "give a model that has one"
        )
    prepare_tokens(folder, data, plug_in.mixture, tokenizer)
    store = TokenStore(folder, plug_in.mixture, plug_in.optimization.longest)
    write_self_text(loaded, store, plug_in.self_text, folder, plug_in.seed, log)
    return WithSelfText(store, folder, plug_in.self_share)
