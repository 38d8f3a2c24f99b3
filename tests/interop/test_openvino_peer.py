"""OpenVINO as a peer: what is missing is said in a sentence; on the bundled model in float32 its greedy tokens are transformers'.

The runs need the packages of the extra `peers`; the exports are made here.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import treewright as tw
from treewright.core.errors import CapabilityError, InputError, TreewrightError
from treewright.interop import openvino_peer
from treewright.interop.openvino_export import export
from treewright.interop.peers import PEERS, PeerSettings

runs = pytest.mark.skipif(importlib.util.find_spec("openvino_genai") is None, reason="needs treewright[peers]")
TEXTS = ["Once upon a time there was a little", "def add(a, b):\n    ", "SELECT name FROM", "x = 1\nx = 1\nx ="]
TOKENS = 48


@pytest.fixture(scope="module")
def target() -> Any:
    return tw.load("default", dtype="float32")


@pytest.fixture(scope="module")
def prompts(target: Any) -> list[list[int]]:
    return [target.tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.fixture(scope="module")
def exports(target: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("openvino")
    export(target, folder / "target")
    export(tw.load("default-draft"), folder / "draft")
    return {"openvino": folder / "target", "openvino:draft": folder / "draft"}


@pytest.fixture(scope="module")
def opened(target: Any, exports: dict[str, Path]) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {name: openvino_peer.open_peer(name, target, exports) for name in openvino_peer.NEEDS}
    torch.set_num_threads(threads)
    return found


@pytest.fixture
def tiny(network: Any) -> Any:
    return tw.load(network("llama"))


def test_a_missing_folder_is_said_with_the_way_to_make_it(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"needs --export openvino=FOLDER.*python -m treewright.interop.openvino_export MODEL FOLDER"
    ):
        openvino_peer.open_peer("openvino", tiny, {})
    with pytest.raises(
        InputError, match=r"no openvino_model.xml is there; make it: python -m treewright.interop.openvino_export MODEL FOLDER"
    ):
        openvino_peer.open_peer("openvino", tiny, {"openvino": tmp_path})
    (tmp_path / "openvino_model.xml").touch()
    with pytest.raises(InputError, match=r"needs --export openvino:draft=FOLDER"):
        openvino_peer.open_peer("openvino:assisted", tiny, {"openvino": tmp_path})


def test_a_missing_package_is_said_with_the_way_to_install_it(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    (tmp_path / "openvino_model.xml").touch()
    monkeypatch.setattr(openvino_peer, "importlib", SimpleNamespace(import_module=missing))
    with pytest.raises(TreewrightError, match=r"OpenVINO GenAI, which is not installed; run: pip install treewright\[peers\]"):
        openvino_peer.open_peer("openvino", tiny, {"openvino": tmp_path})


@runs
@pytest.mark.parametrize("name", openvino_peer.NEEDS)
def test_greedy_tokens_are_those_of_transformers(target: Any, prompts: list[list[int]], opened: Any, name: str) -> None:
    settings = PeerSettings(TOKENS, ignore_eos=True)
    equal = 0
    for prompt in prompts:
        run = opened[name](target, [prompt], settings)
        equal += run.tokens == PEERS["transformers"](target, [prompt], settings).tokens
        assert run.seconds > 0 and run.model_calls is not None
        assert run.model_calls == TOKENS if name == "openvino" else run.model_calls < TOKENS
        assert (run.draft_calls is None) == (name != "openvino:assisted")
    assert equal == len(prompts)
    assert opened[name].options == {"precision": "f32", "kv_cache": "f32"}


@runs
@pytest.mark.parametrize("name", openvino_peer.NEEDS)
def test_a_ragged_batch_equals_its_rows(target: Any, prompts: list[list[int]], opened: Any, name: str) -> None:
    settings = PeerSettings(16, ignore_eos=True)
    alone = [opened[name](target, [prompt], settings).tokens[0] for prompt in prompts]
    assert opened[name](target, prompts, settings).tokens == alone


@runs
@pytest.mark.parametrize("name", openvino_peer.NEEDS)
def test_rows_end_at_their_end_token(target: Any, prompts: list[list[int]], opened: Any, name: str) -> None:
    free = opened[name](target, prompts[:1], PeerSettings(20, ignore_eos=True)).tokens[0]
    ending = SimpleNamespace(eos_ids=(4095, free[6]))
    assert opened[name](ending, prompts[:1], PeerSettings(20)).tokens == [free[: free.index(free[6]) + 1]]
    endless = SimpleNamespace(eos_ids=())
    assert opened[name](endless, prompts[:1], PeerSettings(20)).tokens == [free]


@runs
def test_seeds(target: Any, prompts: list[list[int]], opened: Any) -> None:
    drawn = [opened["openvino"](target, prompts[:1], PeerSettings(20, 1.0, seed)).tokens for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@runs
def test_an_export_of_other_weights_is_refused(target: Any, tiny: Any, exports: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="holds other weights than model"):
        openvino_peer.open_peer("openvino", tiny, exports)
    with pytest.raises(InputError, match="holds other weights than model"):
        openvino_peer.open_peer("openvino", target, {"openvino": exports["openvino:draft"]})


@runs
def test_other_models_of_plain_keys_and_values_are_exported(network: Any, tmp_path: Path) -> None:
    model = tw.load(network("gpt2"))
    export(model, tmp_path)
    openvino_peer.check_weights(importlib.import_module("openvino").Core(), tmp_path, model)


@runs
def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    shape = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    windowed = MistralForCausalLM(MistralConfig(vocab_size=24, sliding_window=4, **shape)).eval()
    with pytest.raises(CapabilityError, match="keeps DynamicSlidingWindowLayer"):
        export(tw.load(windowed), tmp_path)
