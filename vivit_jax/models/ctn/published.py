"""Parameters and costs of CTN.

Printed figures are from the table of ablations in Yujun Ma, Deep learning for action recognition in
videos (PhD thesis, Massey University, 2024), chapter 4. The thesis tells neither the number of
frames nor the convention of its costs.
"""

from vivit_jax.models.published import Published

PUBLISHED = (
    Published(
        'CTN, D-48',
        {'name': 'ctn'},
        clip=(8, 224, 224),
        parameters=86_218_000,
        costs={'GMAC': 82.15},
        published_parameters=88.6,
    ),
    Published(
        'CTN, EK',
        {'name': 'ctn', 'num_classes': {'verb': 97, 'noun': 300}},
        clip=(8, 224, 224),
        parameters=86_486_381,
        costs={'GMAC': 82.15},
    ),
    Published(
        'CTN',
        {'name': 'ctn'},
        clip=(16, 224, 224),
        parameters=86_218_000,
        costs={'2xGMAC': 373.74},
        published_cost=358.0,
    ),
    Published(
        'CTN, learned positions',
        {'name': 'ctn', 'position': 'learned'},
        clip=(16, 224, 224),
        parameters=87_422_992,
        costs={'2xGMAC': 373.74},
        published_cost=370.0,
    ),
    Published(
        'CTN, tubelets, learned positions',
        {'name': 'ctn', 'position': 'learned', 'embed': 'tubelet'},
        clip=(16, 224, 224),
        parameters=87_783_216,
        costs={'2xGMAC': 361.76},
        published_cost=353.0,
    ),
    Published(
        'CTN, learned positions',
        {'name': 'ctn', 'position': 'learned'},
        clip=(32, 224, 224),
        parameters=88_627_216,
        costs={'GMAC': 464.29},
        published_parameters=88.6,
    ),
)
