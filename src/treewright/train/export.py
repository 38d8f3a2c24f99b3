"""Writing a trained model as a folder that `from_pretrained` reads, and reading it back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast


def export_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    files: Mapping[str, str],
) -> None:
    """Write weights (bfloat16, tied embeddings once), configuration, tokenizer and `files`.

    Every file is written aside first and moved into place, so that a reader of `folder` never
    sees half a file.  `files` maps further names (the model card) to their text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as name:
        aside = Path(name)
        weights = {key: value.detach().to(torch.bfloat16) for key, value in model.state_dict().items()}
        copy = type(model)(model.config)
        copy.bfloat16().load_state_dict(weights)
        copy.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        copy.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        _portable_tokenizer_class(aside / "tokenizer_config.json")
        for file, text in files.items():
            (aside / file).write_text(text, encoding="utf-8")
        for path in aside.iterdir():
            path.chmod(0o644)
            path.replace(folder / path.name)


def _portable_tokenizer_class(path: Path) -> None:
    """Name the class that every transformers release knows, and drop how the file was found."""
    configuration = json.loads(path.read_text())
    configuration["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("is_local", "local_files_only", "backend"):
        configuration.pop(key, None)
    path.write_text(json.dumps(configuration, indent=2) + "\n")


def load_exported(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The float32 model (evaluation mode) and the tokenizer of an exported folder.

    Raises:
        ValueError: the folder holds no exported model.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"folder {str(folder)!r} holds no exported model (no config.json); train and export that model first")
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return model.train(False), tokenizer
