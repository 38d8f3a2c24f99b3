from __future__ import annotations

import pytest


@pytest.fixture
def trace(run, model, tmp_path):
    file = tmp_path / "trace.json"
    settings = ("--method", "prompt_lookup", "--max-new-tokens", 12, "--ignore-eos")
    run("generate", "ab ab ab", "--model", model, *settings, "--trace", file)
    return file


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_draws(run, trace, tmp_path, suffix, magic):
    outcome = run("plot", trace, "-o", tmp_path / f"picture.{suffix}")
    assert outcome.code == 0 and (tmp_path / f"picture.{suffix}").read_bytes().startswith(magic)


def test_bad_input_is_one_line(refused, trace, tmp_path):
    picture = tmp_path / "picture.png"
    (tmp_path / "text.json").write_text("not json")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "list.json").write_text("[1]")
    assert "is not JSON" in refused("plot", tmp_path / "text.json", "-o", picture)
    for name in ("other.json", "list.json"):
        assert "is JSON but no trace" in refused("plot", tmp_path / name, "-o", picture)
    assert "No such file" in refused("plot", tmp_path / "missing.json", "-o", picture)
    assert "allowed: .png, .svg, .pdf" in refused("plot", trace, "-o", tmp_path / "picture.gif")
    assert "no folder" in refused("plot", trace, "-o", tmp_path / "no" / "picture.png")
    assert "--rounds" in refused("plot", trace, "-o", picture, "--rounds", 0)
    assert not picture.exists()
