"""Parameters and costs of published models, which `python -m vivit_jax.summary --reference` checks.

Costs are of one clip in inference mode, in units of 1e9, by the conventions of
`vivit_jax.models.cost.count_costs`.
"""

import dataclasses
from collections.abc import Mapping

# Largest relative difference of a count from the one given here. XLA/2 depends a little on how
# softmax, GELU and normalization are written.
TOLERANCES = {'parameters': 0, 'GMAC': 1e-3, 'GMAC-lin': 1e-3, 'XLA/2': 5e-3, '2xGMAC': 1e-3}


@dataclasses.dataclass(frozen=True)
class Reference:
    """A published model.

    Attributes:
        label: what its paper calls it.
        keywords: of `create_model`.
        clip: (t, h, w).
        parameters: computed.
        costs: computed, by convention; the first is that of the paper.
        published_parameters: in millions, as printed; the paper may have truncated.
        published_cost: as printed.
    """

    label: str
    keywords: Mapping[str, object]
    clip: tuple[int, int, int]
    parameters: int
    costs: Mapping[str, float]
    published_parameters: float | None = None
    published_cost: float | None = None


# ViViT (arXiv 2103.15691): B from table 2, H a twelfth of the 47.77 TFLOPs of its 4x3 views, L as
# later papers quote it.
REFERENCES = (
    Reference(
        'ViViT B/16x2 joint',
        {'name': 'vivit_joint', 'size': 'B/16x2'},
        clip=(32, 224, 224),
        parameters=88_954_000,
        costs={'XLA/2': 455.21, 'GMAC': 451.53},
        published_parameters=88.9,
        published_cost=455.2,
    ),
    Reference(
        'ViViT B/16x2 FE',
        {'name': 'vivit_fe', 'size': 'B/16x2'},
        clip=(32, 224, 224),
        parameters=115_062_928,
        costs={'XLA/2': 284.38, 'GMAC': 283.34},
        published_parameters=115.1,
        published_cost=284.4,
    ),
    Reference(
        'ViViT B/16x2 model 3',
        {'name': 'vivit_fsa', 'size': 'B/16x2'},
        clip=(32, 224, 224),
        parameters=117_319_312,
        costs={'XLA/2': 372.32, 'GMAC': 371.09},
        published_parameters=117.3,
        published_cost=372.3,
    ),
    Reference(
        'ViViT B/16x2 model 4',
        {'name': 'vivit_fdp', 'size': 'B/16x2'},
        clip=(32, 224, 224),
        parameters=88_952_464,
        costs={'XLA/2': 277.13, 'GMAC': 276.18},
        published_parameters=88.9,
        published_cost=277.1,
    ),
    Reference(
        'ViViT B/16x2 frame average',
        {'name': 'vivit_fe', 'size': 'B/16x2', 'temporal_num_layers': 0},
        clip=(32, 224, 224),
        parameters=86_696_080,
        costs={'XLA/2': 283.89, 'GMAC': 282.86},
        published_parameters=86.7,
        published_cost=283.9,
    ),
    Reference(
        'ViViT B/16x2 FE, 1 temporal',
        {'name': 'vivit_fe', 'size': 'B/16x2', 'temporal_num_layers': 1},
        clip=(32, 224, 224),
        parameters=93_799_312,
        costs={'XLA/2': 284.01, 'GMAC': 282.98},
    ),
    Reference(
        'ViViT B/16x2 FE, 8 temporal',
        {'name': 'vivit_fe', 'size': 'B/16x2', 'temporal_num_layers': 8},
        clip=(32, 224, 224),
        parameters=143_414_416,
        costs={'XLA/2': 284.86, 'GMAC': 283.83},
    ),
    Reference(
        'ViViT B/16x2 FE, 12 temporal',
        {'name': 'vivit_fe', 'size': 'B/16x2', 'temporal_num_layers': 12},
        clip=(32, 224, 224),
        parameters=171_765_904,
        costs={'XLA/2': 285.35, 'GMAC': 284.31},
    ),
    Reference(
        'ViViT B/16x2 joint, uniform',
        {'name': 'vivit_joint', 'size': 'B/16x2', 'tokenizer': 'uniform_frames'},
        clip=(32, 224, 224),
        parameters=88_364_176,
        costs={'XLA/2': 453.36, 'GMAC': 449.68},
    ),
    Reference(
        'ViViT L/16x2 joint',
        {'name': 'vivit_joint', 'size': 'L/16x2'},
        clip=(32, 224, 224),
        parameters=307_508_624,
        costs={'XLA/2': 1445.78, 'GMAC': 1435.97},
        published_cost=1446.0,
    ),
    Reference(
        'ViViT L/16x2 joint',
        {'name': 'vivit_joint', 'size': 'L/16x2'},
        clip=(32, 320, 320),
        parameters=310_850_960,
        costs={'XLA/2': 3993.07, 'GMAC': 3957.00},
        published_parameters=310.8,
        published_cost=3992.0,
    ),
    Reference(
        'ViViT L/16x2 FE',
        {'name': 'vivit_fe', 'size': 'L/16x2'},
        clip=(32, 224, 224),
        parameters=354_903_440,
        costs={'XLA/2': 990.92, 'GMAC': 988.18},
    ),
    Reference(
        'ViViT H/14x2 joint',
        {'name': 'vivit_joint', 'size': 'H/14x2'},
        clip=(32, 224, 224),
        parameters=636_945_040,
        costs={'XLA/2': 3980.90, 'GMAC': 3958.84},
        published_cost=3981.0,
    ),
    Reference(
        'ViViT H/14x2 FE',
        {'name': 'vivit_fe', 'size': 'H/14x2'},
        clip=(32, 224, 224),
        parameters=710_765_200,
        costs={'XLA/2': 2687.10, 'GMAC': 2681.12},
    ),
    # ConViViT (Dokkar et al. 2023) publishes neither.
    Reference(
        'ConViViT, 1 CNN block',
        {'name': 'convivit'},
        clip=(16, 224, 224),
        parameters=138_685_581,
        costs={'GMAC': 473.06},
    ),
    Reference(
        'ConViViT, 2 CNN blocks',
        {'name': 'convivit', 'cnn_blocks': 2},
        clip=(16, 224, 224),
        parameters=138_738_829,
        costs={'GMAC': 514.99},
    ),
    Reference(
        'ConViViT, dot-product',
        {'name': 'convivit', 'factorization': 'dot_product'},
        clip=(16, 224, 224),
        parameters=110_318_733,
        costs={'GMAC': 378.15},
    ),
    # RPE-STDT (Ma et al.): a table of the thesis that counts without the attention products.
    Reference(
        'RPE-STDT, shared',
        {'name': 'rpe_stdt'},
        clip=(16, 224, 224),
        parameters=96_839_781,
        costs={'GMAC-lin': 272.59, 'GMAC': 284.04},
        published_parameters=97.06,
        published_cost=273.0,
    ),
    Reference(
        'RPE-STDT, unshared',
        {'name': 'rpe_stdt', 'shared_heads': False},
        clip=(16, 224, 224),
        parameters=97_684_581,
        costs={'GMAC': 284.04},
        published_parameters=97.26,
    ),
    Reference(
        'RPE-STDT, absolute',
        {'name': 'rpe_stdt', 'pos_embed': 'absolute', 'temporal_pos': 'absolute'},
        clip=(16, 224, 224),
        parameters=99_181_157,
        costs={'GMAC': 281.13},
        published_parameters=100.7,
    ),
    Reference(
        'RPE-STDT, spatial only',
        {'name': 'rpe_stdt', 'size': 'spatial_only'},
        clip=(16, 224, 224),
        parameters=85_876_325,
        costs={'GMAC-lin': 269.56, 'GMAC': 281.01},
        published_cost=269.0,
    ),
    Reference(
        'STDT, 8 layers',
        {'name': 'rpe_stdt', 'size': 'stdt_l8_full'},
        clip=(16, 224, 224),
        parameters=88_149_605,
        costs={'GMAC': 188.44},
        published_parameters=88.9,
    ),
    # CTN (Ma et al.): the table of ablations; its frames and its convention are not given.
    Reference(
        'CTN, D-48',
        {'name': 'ctn'},
        clip=(8, 224, 224),
        parameters=86_218_000,
        costs={'GMAC': 82.15},
        published_parameters=88.6,
    ),
    Reference(
        'CTN, EK',
        {'name': 'ctn', 'num_classes': {'verb': 97, 'noun': 300}},
        clip=(8, 224, 224),
        parameters=86_486_381,
        costs={'GMAC': 82.15},
    ),
    Reference(
        'CTN',
        {'name': 'ctn'},
        clip=(16, 224, 224),
        parameters=86_218_000,
        costs={'2xGMAC': 373.74},
        published_cost=358.0,
    ),
    Reference(
        'CTN, learned positions',
        {'name': 'ctn', 'position': 'learned'},
        clip=(16, 224, 224),
        parameters=87_422_992,
        costs={'2xGMAC': 373.74},
        published_cost=370.0,
    ),
    Reference(
        'CTN, tubelets, learned positions',
        {'name': 'ctn', 'position': 'learned', 'embed': 'tubelet'},
        clip=(16, 224, 224),
        parameters=87_783_216,
        costs={'2xGMAC': 361.76},
        published_cost=353.0,
    ),
    Reference(
        'CTN, learned positions',
        {'name': 'ctn', 'position': 'learned'},
        clip=(32, 224, 224),
        parameters=88_627_216,
        costs={'GMAC': 464.29},
        published_parameters=88.6,
    ),
)
