"""The four ViViTs in PyTorch equal the original implementation."""

import json

import flax.traverse_util
import jax
import numpy as np
import pytest

from vivit_jax.models.registry import specify
from vivit_jax.weights.torch_export import rules_of
from vivit_jax.weights.torch_layout import to_torch

torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')

from vivit_jax.torch import create_model  # noqa: E402

RULES = rules_of(specify('vivit_joint'))  # equal for the four models
TOLERANCE = 1e-5
REFERENCES = (
    'joint_cls',
    'joint_mean',
    'joint_uniform_frames',
    'fe_cls',
    'fe_mean',
    'fe_frame_average',
    'fsa_space_time',
    'fdp_mean',
)


@pytest.mark.parametrize('name', REFERENCES)
def test_logits_and_gradients_equal_the_original(name, shared, relative_error):
    with np.load(shared / f'fixtures/vivit/{name}.npz', allow_pickle=False) as file:
        reference = dict(file)

    def tree(prefix):
        return flax.traverse_util.unflatten_dict(
            {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)},
            sep='/',
        )

    inputs = torch.tensor(reference['inputs'], requires_grad=True)
    keywords = json.loads(str(reference['kwargs']))
    model = create_model(str(reference['model']), clip_shape=inputs.shape[1:4], **keywords)
    state = to_torch(tree('params/'), RULES)
    model.load_state_dict({k: torch.tensor(np.ascontiguousarray(x)) for k, x in state.items()})
    logits = model(inputs).logits
    (logits * torch.tensor(reference['cotangent'])).sum().backward()
    assert relative_error(logits.detach(), reference['logits']) <= TOLERANCE
    assert relative_error(inputs.grad, reference['grad_inputs']) <= TOLERANCE
    shapes = tree('params/')
    norms = jax.tree.map(lambda norm, x: np.full(x.shape, norm), tree('grad_norm/'), shapes)
    expected = {name: x.flat[0] for name, x in to_torch(norms, RULES).items()}
    for name, parameter in model.named_parameters():
        norm = float(parameter.grad.norm())
        if expected[name] < 1e-4:  # rounding: a key's bias has no gradient in theory
            assert norm < 1e-4, name
        else:
            assert abs(norm - expected[name]) <= TOLERANCE * expected[name], name


@pytest.mark.parametrize('convert', ['trace', 'compile'])
def test_uniform_frames_are_traced(convert):
    keywords = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'mlp_dim': 8, 'num_classes': 2}
    model = create_model(
        'vivit_joint',
        clip_shape=(6, 8, 8),
        tokenizer='uniform_frames',
        num_sampled_frames=2,
        tubelet_size=(1, 4, 4),
        **keywords,
    ).eval()
    model.requires_grad_(False)
    torch.nn.init.normal_(model.head.weight)
    clip = torch.randn(2, 6, 8, 8, 3)
    if convert == 'trace':
        found = torch.jit.trace(lambda clip: model(clip).logits, clip)(clip)
    else:  # the graph that `torch.compile(fullgraph=True)` compiles
        found = torch.compile(model, fullgraph=True, backend='eager')(clip).logits
    torch.testing.assert_close(found, model(clip).logits)
