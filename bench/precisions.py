"""The precisions that are worth timing here: without instructions for it, bfloat16 is far slower than float32."""

import pytest
import torch

from neuroae.utils.devices import has_fast_bfloat16

FAST_BFLOAT16 = has_fast_bfloat16(torch.device("cpu"))
FASTEST = "bfloat16" if FAST_BFLOAT16 else "float32"
NEEDS_BFLOAT16 = pytest.mark.skipif(not FAST_BFLOAT16, reason="this processor has no instructions for bfloat16")
PRECISIONS = pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=NEEDS_BFLOAT16)])
