"""Which processors draw in bfloat16."""

import pytest
import torch

from sge2hist.devices import fast_arithmetic, has_fast_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("able", "fast"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, True),
        (
            {"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel Xeon"},
            False,
        ),  # AMX hidden from a virtual machine
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "AMD Zen 4"}, True),
        ({"amx_bf16": False, "avx512_bf16": False, "cpu_name": "AMD Zen 3"}, False),
        ({"avx512_bf16": True}, False),  # who knows
        ({"architecture": "arm64"}, False),
    ],
)
def test_bfloat16_is_for_processors_that_are_faster_with_it(monkeypatch, able, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert has_fast_bfloat16(CPU) is fast
    with fast_arithmetic(CPU):
        assert torch.is_autocast_enabled("cpu") is fast
