"""Clip to tokens: tubelets, or frames taken at even distances (ViViT, section 3.2)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.grid import token_grid, uniform_frame_indices
from vivit_jax.layers.linear import project


class Tokenizer(nn.Module):
    """Linear projection of non-overlapping patches of a clip.

    With `tokenizer='tubelet'` a patch is (t, h, w) pixels, with `'uniform_frames'` it is (h, w)
    pixels of one of `num_sampled_frames` frames. The parameters lie directly in `<name>/kernel`,
    of rank 5 or 4, and `<name>/bias`.

    Source: ViViT (arXiv 2103.15691), section 3.2 and figures 2 and 3.
    """

    hidden_size: int
    tubelet_size: tuple[int, int, int]
    tokenizer: str
    num_sampled_frames: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, clip: jax.Array) -> jax.Array:
        """Maps a float clip [b t h w c] to tokens [b t' h' w' d].

        Raises:
            ValueError: the clip does not divide into whole patches.
        """
        batch, *clip_shape, channels = clip.shape
        time_patch, *patch = self.tubelet_size
        grid = token_grid(clip_shape, self.tubelet_size, self.tokenizer, self.num_sampled_frames)
        if self.tokenizer == 'uniform_frames':
            clip = clip[:, uniform_frame_indices(clip_shape[0], self.num_sampled_frames)]
            kernel_shape = (*patch, channels, self.hidden_size)
        else:
            kernel_shape = (time_patch, *patch, channels, self.hidden_size)
        # All but the last axis are inputs: the fans are those of the matrix that this is.
        init = nn.initializers.xavier_uniform(in_axis=range(len(kernel_shape) - 1))
        kernel = self.param('kernel', init, kernel_shape)
        bias = self.param('bias', nn.initializers.zeros, (self.hidden_size,))

        # A convolution whose stride is its kernel is one matrix product over cut-out patches.
        patches = clip.reshape(
            batch, grid[0], time_patch, grid[1], patch[0], grid[2], patch[1], channels
        )
        kernel = kernel.astype(self.dtype).reshape(-1, self.hidden_size)
        patches = patches.astype(self.dtype).transpose(0, 1, 3, 5, 2, 4, 6, 7)
        return project(patches.reshape(batch, *grid, -1), kernel) + bias.astype(self.dtype)
