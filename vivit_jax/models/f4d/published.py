"""Parameters and costs of F4D and V4D.

F4D's paper counts its frames once: the figures are of a single unit. Its best variant is called
conv2-5, but with a block in each of these stages the network would have 83 million parameters. Two
blocks in conv3, the place in V4D's public code, give the figures that the paper prints.
"""

from vivit_jax.models.published import Published

_UNIT = (8, 224, 224)


def _at(location: str, parameters: int, cost: float) -> Published:
    return Published(
        f'F4D, blocks in {location}',
        {'name': 'f4d', 'size': location},
        clip=_UNIT,
        parameters=parameters,
        costs={'GMAC': cost},
    )


PUBLISHED = (
    Published(
        'F4D, 8 frames',
        {'name': 'f4d'},
        clip=_UNIT,
        parameters=36_780_378,
        costs={'GMAC': 71.34},
        published_parameters=36.8,
        published_cost=72,
    ),
    Published(
        'F4D, 16 frames',
        {'name': 'f4d'},
        clip=(16, 224, 224),
        parameters=36_780_378,
        costs={'GMAC': 142.67},
        published_parameters=36.8,
        published_cost=143,
    ),
    Published(
        'F4D, 4 units of 8 frames',
        {'name': 'f4d'},
        clip=(4, *_UNIT),
        parameters=36_780_378,
        costs={'GMAC': 285.34},
    ),
    Published(
        'F4D, 4 units of 16 frames',
        {'name': 'f4d'},
        clip=(4, 16, 224, 224),
        parameters=36_780_378,
        costs={'GMAC': 570.69},
    ),
    Published(
        'F4D without attention',
        {'name': 'f4d', 'attention': ()},
        clip=_UNIT,
        parameters=36_714_734,
        costs={'GMAC': 71.34},
    ),
    _at('conv1', 32_028_772, 45.44),
    _at('conv2', 32_590_372, 56.54),
    _at('conv3', 34_385_700, 56.54),
    _at('conv4', 41_564_452, 56.54),
    _at('conv5', 70_274_340, 56.54),
    _at('conv2-3', 34_985_050, 71.34),
    _at('conv3-4', 43_959_130, 71.34),
    _at('conv2-5', 82_841_798, 100.93),
    Published(
        'V4D, 4 units of 8 frames',
        {'name': 'v4d'},
        clip=(4, *_UNIT),
        parameters=36_709_614,
        costs={'GMAC': 285.34},
        published_parameters=36.2,
        published_cost=167,
    ),
    Published(
        'I3D-S ResNet-50, 4 units of 8 frames',
        {'name': 'v4d', 'size': 'I3D-S'},
        clip=(4, *_UNIT),
        parameters=31_991_022,
        costs={'GMAC': 166.96},
        published_cost=167,
    ),
)
