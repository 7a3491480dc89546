"""Section b: attention alone, in every implementation, on about as many tokens as in a model."""

from collections.abc import Callable, Iterator, Sequence

from accelerator_sections.peers import synchronize, torch_device
from accelerator_sections.plan import Settings
from accelerator_sections.rows import LeftOut, attempt
from accelerator_sections.timing import measure_time

_TOKENS = 25_000  # of all sequences: 8 clips of 3137
_PLATFORMS = {'cudnn': ('gpu',), 'pallas': ('gpu', 'tpu')}  # of fused kernels


def attention(
    settings: Settings, rows: Sequence[dict], num_tokens: int, library: str
) -> Iterator[dict]:
    """Times attention in bfloat16: forward, and forward with the gradients of q, k and v."""
    heads, width = (2, 8) if settings.tiny else (12, 64)
    batch = 1 if settings.tiny else max(1, round(_TOKENS / num_tokens))
    shape = (batch, num_tokens, heads, width)
    measure = {'jax': _with_jax, 'torch': _with_torch}[library]
    yield from measure(settings, shape)


def _with_jax(settings: Settings, shape: tuple[int, ...]) -> Iterator[dict]:
    import jax
    import jax.numpy as jnp

    from vivit_jax.layers.attention_kernels import IMPLEMENTATIONS, dot_product_attention

    keys = jax.random.split(jax.random.key(0), 4)
    *inputs, cotangent = (jax.random.normal(key, shape, jnp.bfloat16) for key in keys)
    first = {}  # what the first implementation computes, to compare with

    def measure(program: str, function: Callable, *args) -> dict:
        compiled = jax.jit(function).lower(*args).compile()
        found = jax.tree.map(lambda x: x.astype(jnp.float32), compiled(*args))
        expected = first.setdefault(program, found)
        times = measure_time(lambda: compiled(*args), jax.block_until_ready, settings.seconds)
        return {**_rates(times, program, shape), 'difference': _difference(found, expected)}

    def _difference(found, expected) -> float:
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
        return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs)

    for implementation in IMPLEMENTATIONS:
        if implementation == 'auto':
            continue

        def forward(*inputs: jax.Array, implementation=implementation) -> jax.Array:
            _require(implementation, jax.default_backend())
            return dot_product_attention(*inputs, implementation=implementation)

        def gradient(cotangent: jax.Array, *inputs: jax.Array, forward=forward):
            output, pull_back = jax.vjp(forward, *inputs)
            return output, *pull_back(cotangent)

        for program, function, args in (
            ('forward', forward, inputs),
            ('with gradient', gradient, (cotangent, *inputs)),
        ):
            labels = _labels(implementation, program, shape)
            yield attempt(labels, measure, program, function, *args)


def _with_torch(settings: Settings, shape: tuple[int, ...]) -> Iterator[dict]:
    def measure(program: str) -> dict:
        torch, device = torch_device()
        batch, num_tokens, heads, width = shape
        draw = (batch, heads, num_tokens, width)
        query, key, value, cotangent = (
            torch.randn(draw, dtype=torch.bfloat16, device=device) for _ in range(4)
        )
        inputs = [x.requires_grad_(program != 'forward') for x in (query, key, value)]

        def run():
            output = torch.nn.functional.scaled_dot_product_attention(*inputs)
            if program == 'forward':
                return output
            return torch.autograd.grad(output, inputs, cotangent)

        times = measure_time(run, lambda _: synchronize(device), settings.seconds)
        return _rates(times, program, shape)

    for program in ('forward', 'with gradient'):
        yield attempt(_labels('PyTorch SDPA', program, shape), measure, program)


def _require(implementation: str, platform: str):
    platforms = _PLATFORMS.get(implementation, (platform,))
    if platform not in platforms:
        needed = {'cudnn': 'an NVIDIA GPU', 'pallas': 'a GPU or TPU'}[implementation]
        raise LeftOut(f'{implementation}: needs {needed}')


def _labels(implementation: str, program: str, shape: tuple[int, ...]) -> dict:
    batch, num_tokens, *_ = shape
    return {
        'name': f'{implementation}, {num_tokens} tokens',
        'implementation': implementation,
        'tokens': num_tokens,
        'batch': batch,
        'program': program,
    }


def _rates(times: dict, program: str, shape: tuple[int, ...]) -> dict:
    """Adds TFLOP/s, of the two products forward and the four of the gradient."""
    batch, num_tokens, heads, width = shape
    flops = 4 * batch * heads * num_tokens**2 * width * (1 if program == 'forward' else 3)
    return {**times, 'tflops': 1e-9 * flops / times['ms']}
