"""Parameters and costs of MFST.

Printed figures are from Yujun Ma, Deep learning for action recognition in videos (PhD thesis,
Massey University, 2024), chapter 2, which prints no costs.
"""

from vivit_jax.models.published import Published

_CLIP = (32, 224, 224)

PUBLISHED = (
    Published(
        'MFST-Base',
        {'name': 'mfst'},
        clip=_CLIP,
        parameters=32_565_084,
        costs={'GMAC': 175.87},
        published_parameters=32.6,
    ),
    Published(
        'MFST-Large',
        {'name': 'mfst', 'size': 'Large'},
        clip=_CLIP,
        parameters=49_944_380,
        costs={'GMAC': 179.64},
        published_parameters=49.7,
    ),
    Published(
        'MFST-Large, RGB and depth',
        {'name': 'mfst', 'size': 'Large', 'modality': 'rgbd'},
        clip=_CLIP,
        parameters=99_888_760,
        costs={'GMAC': 359.28},
    ),
    Published(
        'MFST-Large, IsoGD',
        {'name': 'mfst', 'size': 'Large', 'num_classes': 249},
        clip=_CLIP,
        parameters=50_041_337,
        costs={'GMAC': 179.64},
    ),
    Published(
        'MFST-Large, V-Trans',
        {'name': 'mfst', 'size': 'V-Trans'},
        clip=_CLIP,
        parameters=49_944_380,
        costs={'GMAC': 154.19},
    ),
    Published(
        'MFST-Large, unshared',
        {'name': 'mfst', 'size': 'Large', 'weight_shared': False},
        clip=_CLIP,
        parameters=94_082_876,
        costs={'GMAC': 179.64},
    ),
    Published(
        'MFST-Large, stem of stride 2',
        {'name': 'mfst', 'size': 'Large', 'tubelet_size': (2, 16, 16)},
        clip=_CLIP,
        parameters=49_944_380,
        costs={'GMAC': 89.46},
    ),
)
