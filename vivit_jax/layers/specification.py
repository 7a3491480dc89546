"""The keywords that all models have. Imports neither JAX nor PyTorch, which both read them here."""

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

# ViT (arXiv 2010.11929), table 1; Ti and S: DeiT (arXiv 2012.12877), table 1.
SIZES = {
    'Ti': {'hidden_size': 192, 'num_layers': 12, 'num_heads': 3, 'mlp_dim': 768},
    'S': {'hidden_size': 384, 'num_layers': 12, 'num_heads': 6, 'mlp_dim': 1536},
    'B': {'hidden_size': 768, 'num_layers': 12, 'num_heads': 12, 'mlp_dim': 3072},
    'L': {'hidden_size': 1024, 'num_layers': 24, 'num_heads': 16, 'mlp_dim': 4096},
    'H': {'hidden_size': 1280, 'num_layers': 32, 'num_heads': 16, 'mlp_dim': 5120},
}

Keywords = Mapping[str, object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specification:
    """What `create_model` takes; each model has a subclass with the keywords of its own.

    A field of type `Literal` lists its choices. Subclasses extend `check`.

    Raises:
        ValueError: a value is out of range or no choice, or two values do not fit each other.
    """

    # Classes of the classifier; of each head by its name, where there are several.
    num_classes: int | Mapping[str, int] = dataclasses.field(default=400, hash=False)
    hidden_size: int = 768  # width d of the tokens
    num_layers: int = 12  # blocks of the encoder; of the spatial one, where there are two
    num_heads: int = 12  # of the attention; divides hidden_size
    mlp_dim: int = 3072  # hidden width of the MLPs
    tubelet_size: tuple[int, int, int] = (2, 16, 16)  # (t, h, w) of the clip that make a token
    dropout_rate: float = 0.0  # after embeddings, attention and both MLP layers
    attention_dropout_rate: float = 0.0  # of attention weights
    drop_path_rate: float = 0.0  # stochastic depth of the last block, see `Encoder`
    gelu: Literal['tanh', 'exact'] = 'tanh'
    layer_norm_eps: float = 1e-6  # added to the variance

    # The other keywords say how JAX computes the model. PyTorch ignores them.
    attention_implementation: Literal['auto', 'einsum', 'chunked', 'cudnn', 'pallas'] = 'auto'
    remat: Literal['none', 'block', 'dots'] = 'none'  # what is computed twice, to save memory
    scan_layers: bool = False  # compile one block for all layers, see `Encoder`
    dtype: str = 'float32'  # of the computation; parameters, softmax and logits are float32

    # Variants with a name, for `create_model(size=...)`.
    PRESETS: ClassVar[Mapping[str, Keywords]] = {}
    # With four blocks and four heads, what a CPU trains from scratch in minutes.
    SMALL: ClassVar[Keywords] = {}
    # With two blocks, what a test trains in a moment.
    TINY: ClassVar[Keywords] = {}
    # Models whose weights it can start from, beside its own and those of an image ViT.
    EXTENDS: ClassVar[tuple[str, ...]] = ()
    # Patterns of the parameters that neither an image ViT nor a model of EXTENDS has.
    own_parameters: ClassVar[tuple[str, ...]] = ()
    # Pattern of a module here, its name in PyTorch, and its kind, see `weights.torch_layout`.
    TORCH_NAMES: ClassVar[tuple[tuple[str, str, str], ...]] = ()

    @classmethod
    def from_keywords(cls, keywords: Keywords, size: str | None = None) -> Self:
        """Completes keywords by those of a size, such as `'B/16x2'`, and by the defaults."""
        values = {**cls.preset(size), **keywords}
        for keyword, default in cls.defaults().items():
            if isinstance(default, tuple) and keyword in values:
                values[keyword] = tuple(values[keyword])  # lists come from JSON
        return cls(**values)

    @classmethod
    def defaults(cls) -> dict[str, object]:
        """Every keyword with its default."""
        return {field.name: field.default for field in dataclasses.fields(cls)}

    @classmethod
    def preset(cls, size: str | None) -> Keywords:
        """The keywords of one of `PRESETS`, or of encoder/patch x tubelet length as `'B/16x2'`."""
        if not size or size in cls.PRESETS:
            return cls.PRESETS.get(size, {})
        match = re.fullmatch(r'(\w+)/(\d+)x(\d+)', size)
        if not match or match[1] not in SIZES:
            presets = f', and none of {", ".join(cls.PRESETS)}' if cls.PRESETS else ''
            raise ValueError(
                f"size={size!r} is not of the form 'B/16x2' (encoder/patch x tubelet length) with "
                f'one of the encoders {", ".join(SIZES)}{presets}'
            )
        patch, length = int(match[2]), int(match[3])
        return {**SIZES[match[1]], 'tubelet_size': (length, patch, patch)}

    @classmethod
    def choices(cls) -> dict[str, tuple]:
        """The values that keywords with a fixed set of them may have."""
        hints = typing.get_type_hints(cls)
        return {
            name: typing.get_args(hint)
            for name, hint in hints.items()
            if typing.get_origin(hint) is Literal
        }

    def __post_init__(self):
        for keyword, choices in self.choices().items():
            value = getattr(self, keyword)
            if value not in choices:
                raise ValueError(f'{keyword}={value!r} must be one of {choices}')
        self.check()

    def check(self):
        """Raises a ValueError where values are out of range or do not fit each other."""
        classes = self.num_classes
        counts = classes.values() if isinstance(classes, Mapping) else (classes,)
        if not counts or min(counts) < 1:
            raise ValueError(f'num_classes={classes} must be at least 1, for one head or more')
        self.check_at_least(1, 'hidden_size', 'num_heads', 'mlp_dim')
        self.check_at_least(0, 'num_layers')
        if len(self.tubelet_size) != 3 or min(self.tubelet_size) < 1:
            raise ValueError(f'tubelet_size={self.tubelet_size} must be (t, h, w), each from 1')
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f'num_heads={self.num_heads} must divide hidden_size={self.hidden_size}'
            )
        for rate in ('dropout_rate', 'attention_dropout_rate', 'drop_path_rate'):
            if not 0 <= getattr(self, rate) < 1:
                raise ValueError(f'{rate}={getattr(self, rate)} must lie in [0, 1)')
        if self.attention_dropout_rate and self.attention_implementation in ('cudnn', 'pallas'):
            raise ValueError(
                f'attention_implementation={self.attention_implementation!r} has no dropout: '
                "set attention_dropout_rate to 0, or take 'auto', 'einsum' or 'chunked'"
            )

    def check_at_least(self, least: int, *keywords: str):
        """Raises a ValueError where one of the keywords is smaller."""
        for keyword in keywords:
            if getattr(self, keyword) < least:
                limit = f'be at least {least}' if least else 'not be negative'
                raise ValueError(f'{keyword}={getattr(self, keyword)} must {limit}')

    def check_even_heads(self):
        """Raises a ValueError where heads cannot be halved between time and space."""
        if self.num_heads % 2:
            raise ValueError(
                f'num_heads={self.num_heads} must be even: half of the heads attend along time, '
                'the other half along space'
            )

    def grid(self, clip_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Tokens along time, height and width of a clip of (t, h, w) frames and pixels.

        Raises:
            ValueError: the clip does not divide into whole tubelets.
        """
        names = ('frames', 'height', 'width')
        for name, size, part in zip(names, clip_shape, self.tubelet_size, strict=True):
            if size % part:
                raise ValueError(
                    f'a clip with {name}={size} does not divide into tubelets of '
                    f'(t, h, w)={self.tubelet_size}: choose {name} as a multiple of {part}'
                )
        return tuple(size // part for size, part in zip(clip_shape, self.tubelet_size, strict=True))
