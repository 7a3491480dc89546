"""Published encoder sizes and the names that combine them with a tubelet."""

import re

# ViT (arXiv 2010.11929), table 1; Ti and S: DeiT (arXiv 2012.12877), table 1.
SIZES = {
    'Ti': {'hidden_size': 192, 'num_layers': 12, 'num_heads': 3, 'mlp_dim': 768},
    'S': {'hidden_size': 384, 'num_layers': 12, 'num_heads': 6, 'mlp_dim': 1536},
    'B': {'hidden_size': 768, 'num_layers': 12, 'num_heads': 12, 'mlp_dim': 3072},
    'L': {'hidden_size': 1024, 'num_layers': 24, 'num_heads': 16, 'mlp_dim': 4096},
    'H': {'hidden_size': 1280, 'num_layers': 32, 'num_heads': 16, 'mlp_dim': 5120},
}


def parse_size(size: str) -> dict[str, object]:
    """Turns `'B/16x2'` (encoder / patch in pixels x tubelet length in frames) into keywords.

    Raises:
        ValueError: the name does not have that form or names no known encoder.
    """
    match = re.fullmatch(r'(\w+)/(\d+)x(\d+)', size)
    if not match or match[1] not in SIZES:
        raise ValueError(
            f"size={size!r} is not of the form 'B/16x2' (encoder/patch x tubelet length) with "
            f'one of the encoders {", ".join(SIZES)}'
        )
    patch, length = int(match[2]), int(match[3])
    return {**SIZES[match[1]], 'tubelet_size': (length, patch, patch)}
