"""Parameters and costs of ConViViT (arXiv 2310.14416); the paper prints neither."""

from vivit_jax.models.published import Published

PUBLISHED = (
    Published(
        'ConViViT, 1 CNN block',
        {'name': 'convivit'},
        clip=(16, 224, 224),
        parameters=138_685_581,
        costs={'GMAC': 473.06},
    ),
    Published(
        'ConViViT, 2 CNN blocks',
        {'name': 'convivit', 'cnn_blocks': 2},
        clip=(16, 224, 224),
        parameters=138_738_829,
        costs={'GMAC': 514.99},
    ),
    Published(
        'ConViViT, dot-product',
        {'name': 'convivit', 'factorization': 'dot_product'},
        clip=(16, 224, 224),
        parameters=110_318_733,
        costs={'GMAC': 378.15},
    ),
)
