"""pipeline/tensorflow_runtime.py: what this machine computes fast."""

import pytest

from pipeline.tensorflow_runtime import choose_dtype, has_fast_bfloat16, tensorflow


@pytest.mark.parametrize(("flags", "fast"), [("fpu avx2 avx512f", False), ("fpu avx512f avx512_bf16", True)])
def test_auto_computes_in_bfloat16_only_where_the_processor_has_it(tmp_path, flags, fast):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n", encoding="ascii")
    if not fast and tensorflow().config.list_physical_devices("GPU"):
        pytest.skip("a GPU may be fast at bfloat16 where the processor is not")
    assert has_fast_bfloat16(tmp_path / "cpuinfo") is fast
    assert choose_dtype("auto") == ("bfloat16" if has_fast_bfloat16() else "float32")
