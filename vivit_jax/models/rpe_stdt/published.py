"""Parameters and costs of RPE-STDT.

Printed figures are from Yujun Ma, Deep learning for action recognition in videos (PhD thesis,
Massey University, 2024), chapter 3, whose costs leave out the attention products.
"""

from vivit_jax.models.published import Published

PUBLISHED = (
    Published(
        'RPE-STDT, shared',
        {'name': 'rpe_stdt'},
        clip=(16, 224, 224),
        parameters=96_839_781,
        costs={'GMAC-lin': 272.59, 'GMAC': 284.04},
        published_parameters=97.06,
        published_cost=273.0,
    ),
    Published(
        'RPE-STDT, unshared',
        {'name': 'rpe_stdt', 'shared_heads': False},
        clip=(16, 224, 224),
        parameters=97_684_581,
        costs={'GMAC': 284.04},
        published_parameters=97.26,
    ),
    Published(
        'RPE-STDT, absolute',
        {'name': 'rpe_stdt', 'pos_embed': 'absolute', 'temporal_pos': 'absolute'},
        clip=(16, 224, 224),
        parameters=99_181_157,
        costs={'GMAC': 281.13},
        published_parameters=100.7,
    ),
    Published(
        'RPE-STDT, spatial only',
        {'name': 'rpe_stdt', 'size': 'spatial_only'},
        clip=(16, 224, 224),
        parameters=85_876_325,
        costs={'GMAC-lin': 269.56, 'GMAC': 281.01},
        published_cost=269.0,
    ),
    Published(
        'STDT, 8 layers',
        {'name': 'rpe_stdt', 'size': 'stdt_l8_full'},
        clip=(16, 224, 224),
        parameters=88_149_605,
        costs={'GMAC': 188.44},
        published_parameters=88.9,
    ),
)
