"""Makes kernels fit tubelets of another length, and clips of one channel."""

import jax
import jax.numpy as jnp
import numpy as np

TEMPORAL_KERNEL_INITS = ('central_frame', 'filter_inflation')
TUBELET_INITS = (*TEMPORAL_KERNEL_INITS, 'random')


def sums_colours(kernel: jax.Array, fresh: jax.Array) -> bool:
    """Whether a kernel [... 3 d] reads colours where the target, [... 1 d], reads one channel."""
    return (
        kernel.ndim > 1
        and (kernel.shape[-2], fresh.shape[-2]) == (3, 1)
        and kernel.shape[-1] == fresh.shape[-1]
    )


def is_of_frames(kernel: jax.Array, fresh: jax.Array) -> bool:
    """Whether a kernel [1 h w c d] sees single frames, and the target, [t h w c d], several."""
    return (
        kernel.ndim == fresh.ndim == 5
        and kernel.shape[0] == 1 < fresh.shape[0]
        and kernel.shape[1:] == fresh.shape[1:]
    )


def fit_kernel(
    kernel: jax.Array, fresh: jax.Array, tubelet_init: str
) -> tuple[jax.Array, tuple[str, str]]:
    """Inflates a kernel [h w c d] in time, or resizes a kernel [t h w c d] along time.

    Args:
        kernel: the kernel of the source, of any float type.
        fresh: the kernel of the target, which says the length of its tubelets. If it is a kernel of
            single frames, [h w c d], `kernel` is returned as it is.
        tubelet_init: how to inflate, see `init_from_image_vit`.

    Returns:
        The kernel; and status and detail for a report.
    """
    if fresh.ndim == 4 or (kernel.ndim == 5 and kernel.shape[0] == fresh.shape[0]):
        return kernel, ('copied', '')
    kernel, length = jnp.asarray(kernel, jnp.float32), fresh.shape[0]
    return _resize(kernel, length) if kernel.ndim == 5 else _inflate(kernel, length, tubelet_init)


def _inflate(
    kernel: jax.Array, length: int, tubelet_init: str
) -> tuple[jax.Array, tuple[str, str]]:
    if tubelet_init == 'filter_inflation':
        inflated = jnp.broadcast_to(kernel / length, (length, *kernel.shape))
        return inflated, ('inflated', f'1/{length} at each of {length} frames')
    inflated = jnp.zeros((length, *kernel.shape), kernel.dtype).at[length // 2].set(kernel)
    return inflated, ('inflated', f'central frame of {length}')


def _resize(kernel: jax.Array, length: int) -> tuple[jax.Array, tuple[str, str]]:
    """Interpolates a kernel linearly in time.

    The weights with which an old frame enters the new kernel sum to 1, so that the tokens of a
    still video stay the same.
    """
    old = kernel.shape[0]
    weights = jax.image.resize(jnp.eye(old), (length, old), 'linear', antialias=True)
    weights = np.asarray(weights / weights.sum(axis=0))
    detail = f'tubelets of {old} frames -> {length}'
    return np.einsum('ts,s...->t...', weights, kernel), ('resized', detail)
