"""What this processor is good at."""

import torch


def has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor; if not, PyTorch does, slower than in float32."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # type: ignore[no-any-return]
