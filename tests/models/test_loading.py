"""Loading by name, by folder and by object, and one clear sentence for everything else."""

from __future__ import annotations

import pytest
import torch

from treewright.core.errors import InputError, ModelError
from treewright.models.loading import bundled_names, load
from treewright.models.tables import Table


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    network("llama", "float32").save_pretrained(path)
    return path


def test_a_model_in_memory(network):
    loaded = load(network("llama", "float32"))
    assert loaded.model is network("llama", "float32")
    assert loaded.tokenizer is None
    assert loaded.protocol.capabilities.vocabulary == 97
    assert loaded.protocol.compiled is None


def test_a_table():
    table = Table(4, seed=0)
    loaded = load(table)
    assert loaded.protocol is table
    assert loaded.eos_ids == ()


def test_a_folder_without_tokenizer_is_refused_with_the_way_out(folder):
    with pytest.raises(ModelError, match="cannot load tokenizer"):
        load(folder)


@pytest.mark.parametrize("dtype", [None, "float64", torch.bfloat16])
def test_dtype(network, dtype):
    model = network("gpt2", "float32")
    before = model.dtype
    try:
        loaded = load(model, dtype=dtype)
        wanted = {None: torch.float32, "float64": torch.float64}.get(dtype, dtype)
        assert loaded.model.dtype is wanted
        assert loaded.protocol.dtype is wanted
    finally:
        model.to(before)


def test_eos_ids_come_from_the_generation_config(network):
    loaded = load(network("llama", "float32"))
    config = loaded.model.generation_config
    try:
        config.eos_token_id = [3, 5]
        assert loaded.eos_ids == (3, 5)
        config.eos_token_id = 7
        assert loaded.eos_ids == (7,)
    finally:
        config.eos_token_id = None
    assert loaded.eos_ids == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(model="no-such-model"), ["no-such-model", "bundled models"]),
        (dict(model="/nowhere/at/all"), ["/nowhere/at/all", "bundled models"]),
        (dict(model=3), ["int", "transformers causal, masked or encoder-decoder language model"]),
        (dict(model=Table(4, seed=0), tokenizer="no-such-tokenizer"), ["no-such-tokenizer"]),
    ],
)
def test_what_cannot_be_loaded(arguments, words):
    with pytest.raises(ModelError) as caught:
        load(**arguments)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(dtype="float31"), ["float31", "float32"]),
        (dict(device="gpu"), ["gpu", "cuda"]),
    ],
)
def test_unknown_dtype_and_device(options, words, network):
    with pytest.raises(ModelError) as caught:
        load(network("llama", "float32"), **options)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device(network):
    with pytest.raises(ModelError, match="cuda"):
        load(network("llama", "float32"), device="cuda")


def test_bundled_names_are_folders_with_a_configuration():
    for name in bundled_names():
        assert name == name.lower()


@pytest.mark.parametrize("flag", ["compile", "pack"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_flags_are_true_or_false(flag, value):
    with pytest.raises(InputError, match=rf"^{flag} is .*; allowed: True or False$"):
        load("default", **{flag: value})
