"""What is known of a computer itself."""

import pytest

from dlink.doctor.machine import look_at_cpu


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("model name\t: Xeon\nflags\t\t: fpu amx_bf16 avx512_vnni sse\n\n", ("Xeon", ("amx_bf16", "avx512_vnni"))),
        ("processor\t: 0\nFeatures\t: fp asimdhp asimddp\n", ("", ("asimdhp", "asimddp"))),
        ("", ("", ())),
    ],
)
def test_cpuinfo_is_read_on_x86_and_arm(text, known):
    assert look_at_cpu(text) == known
