"""Names of backbones: timm's, and nothing that could send timm for files."""

from __future__ import annotations

import pytest

from hybridnets.config import ModelConfig
from hybridnets.errors import ExitCode, HnxError


@pytest.mark.parametrize("name", ["repvgg_b0", "resnet18.a1_in1k", "vit_base_patch16_224", None])
def test_names_of_timm_models(name: str | None) -> None:
    assert ModelConfig(backbone=name).backbone == name


@pytest.mark.parametrize(
    "name",
    ["", "hf-hub:somebody/model", "hf_hub:a/b", "local-dir:/etc", "../x", "a.b.c", "a b", "a\n", ".a", "x" * 200],
)
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(HnxError, match="is not the name of a backbone") as caught:
        ModelConfig(backbone=name)
    assert caught.value.code == ExitCode.USAGE
