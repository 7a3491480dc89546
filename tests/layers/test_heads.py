import flax.linen as nn
import jax
import numpy as np
import pytest

from vivit_jax.layers.tokens import classify


class _Classifier(nn.Module):
    num_classes: int | dict

    @nn.compact
    def __call__(self, features):
        return classify(features, self.num_classes).logits


@pytest.mark.parametrize(
    ('num_classes', 'names'),
    [
        (4, {'output_projection': 4}),
        ({'verb': 4}, {'output_projection_verb': 4}),
        ({'verb': 4, 'noun': 7}, {'output_projection_verb': 4, 'output_projection_noun': 7}),
    ],
)
def test_classifiers_start_at_zero_with_a_name_per_head(num_classes, names):
    features = np.ones((3, 5), np.float32)
    logits, variables = _Classifier(num_classes).init_with_output(jax.random.key(0), features)
    assert jax.tree.map(np.shape, variables['params']) == {
        name: {'kernel': (5, classes), 'bias': (classes,)} for name, classes in names.items()
    }
    assert not any(np.any(x) for x in jax.tree.leaves((logits, variables)))


def test_logits_of_a_head_come_from_its_own_classifier(random_params):
    classifier = _Classifier({'verb': 4, 'noun': 7})
    features = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    params = random_params(classifier, features)
    logits = classifier.apply({'params': params}, features)
    assert list(logits) == ['verb', 'noun']
    for head, value in logits.items():
        dense = params[f'output_projection_{head}']
        expected = features @ dense['kernel'] + dense['bias']
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
