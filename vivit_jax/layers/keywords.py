"""Completes the keywords of a model with sizes and defaults, and checks them."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from vivit_jax.errors import check_types

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
class CheckedKeywords:
    """A frozen dataclass whose fields are keywords; `Literal` fields list their choices.

    Its class variables hold everything else that the package needs to know about a model.

    Raises:
        ValueError: a value is none of its choices, or `check` refuses it.
    """

    # Variants with a name, for `create_model(size=...)`.
    PRESETS: ClassVar[Mapping[str, Keywords]] = {}
    # Keywords with which, on four blocks and four heads, a CPU trains the model in minutes.
    SMALL: ClassVar[Keywords] = {}
    # Keywords with which, on two blocks, a test trains the model in seconds.
    TINY: ClassVar[Keywords] = {}
    # Other models whose weights the model can start from; it can always start from an image ViT.
    EXTENDS: ClassVar[tuple[str, ...]] = ()
    # Patterns of parameters that neither an image ViT nor a model in EXTENDS has.
    own_parameters: ClassVar[tuple[str, ...]] = ()
    # Whether a clip may consist of units: [b u t h w c].
    takes_units: ClassVar[bool] = False
    # For each module of its own: pattern of the Flax name, PyTorch name, and kind (see
    # `weights.torch_layout`).
    TORCH_NAMES: ClassVar[tuple[tuple[str, str, str], ...]] = ()

    @classmethod
    def from_keywords(cls, keywords: Keywords, size: str | None = None) -> Self:
        """Completes keywords with the keywords of a size, such as `'B/16x2'`, and defaults."""
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
        """The keywords of one of `PRESETS`, or of no size.

        Raises:
            ValueError: there is no such size.
        """
        if size and size not in cls.PRESETS:
            raise ValueError(f'size={size!r} must be one of {", ".join(cls.PRESETS)}')
        return cls.PRESETS.get(size, {})

    @classmethod
    def choices(cls) -> dict[str, tuple]:
        """The allowed values of each keyword that has a fixed set of values."""
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
        check_types(self)
        self.check()

    def check(self):
        """Raises a ValueError if values are out of range or do not fit each other."""

    def check_at_least(self, least: int, *keywords: str):
        """Raises a ValueError if one of the keywords is less than `least`."""
        for keyword in keywords:
            if getattr(self, keyword) < least:
                limit = f'be at least {least}' if least else 'not be negative'
                raise ValueError(f'{keyword}={getattr(self, keyword)} must {limit}')

    def check_even_heads(self):
        """Raises a ValueError if heads cannot be halved between time and space."""
        if self.num_heads % 2:
            raise ValueError(
                f'num_heads={self.num_heads} must be even: half of the heads attend along time, '
                'the other half along space'
            )
