import jax
import numpy as np

from vivit_jax.parallel.mesh import batch_sharding, create_mesh
from vivit_jax.parallel.to_device import prefetch


def test_batches_arrive_in_order_with_the_labels_of_every_head():
    batches = [
        {
            'rgb': np.full((4, 2), i, np.uint8),
            'label': {'verb': np.arange(4) + i, 'noun': -np.ones(4)},
        }
        for i in range(5)
    ]
    sharding = batch_sharding(create_mesh())
    found = list(prefetch(iter(batches), sharding, ['label']))
    assert len(found) == 5
    for (host, device), batch in zip(found, batches, strict=True):
        assert host is batch
        assert device.keys() == {'label'}
        assert all(isinstance(x, jax.Array) for x in device['label'].values())
        jax.tree.map(np.testing.assert_array_equal, device, {'label': batch['label']})
