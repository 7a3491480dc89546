"""ResNets for images: read from the files of other libraries, and inflated in time."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from tiny_models import known_keywords

from vivit_jax.errors import UserError
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_variables
from vivit_jax.weights.batch_statistics import fit_statistics
from vivit_jax.weights.init_from import describe_differences, init_from
from vivit_jax.weights.load import load_checkpoint, read_weights

torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')
nn = torch.nn

pytestmark = pytest.mark.usefixtures('exact_matmuls')

WIDTH, STAGES, CLASSES = 4, (1, 2, 1, 1), 7
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = {
    'width': WIDTH,
    'stage_blocks': STAGES,
    'blocks': ('conv3',),
    'num_classes': 3,
    'reduction': 4,
}


class Bottleneck(nn.Module):
    def __init__(self, inputs, channels, stride):
        super().__init__()
        outputs = 4 * channels
        self.conv1, self.bn1 = nn.Conv2d(inputs, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = nn.Conv2d(channels, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + (self.downsample(x) if self.downsample else x)).relu()


class ResNet(nn.Module):
    """A ResNet of version 1.5 with the names of torchvision."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
        self.bn1, self.maxpool = nn.BatchNorm2d(WIDTH), nn.MaxPool2d(3, 2, 1)
        inputs = WIDTH
        for stage, depth in enumerate(STAGES):
            channels, blocks = WIDTH << stage, []
            for index in range(depth):
                blocks.append(Bottleneck(inputs, channels, 2 if stage and not index else 1))
                inputs = 4 * channels
            setattr(self, f'layer{stage + 1}', nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, CLASSES)

    def features(self, images):
        """Of images [n h w 3] in [0, 1]."""
        images = (torch.tensor(images) - torch.tensor(MEAN)) / torch.tensor(STD)
        x = self.maxpool(self.bn1(self.conv1(images.float().movedim(-1, 1))).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))


@pytest.fixture(scope='module')
def resnet():
    torch.manual_seed(0)
    model = ResNet().eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if 'running' in name or name.split('.')[-2].startswith('bn'):
                value.copy_(torch.rand(value.shape) + 0.5)
    return model


def arrays(resnet):
    return {name: value.numpy() for name, value in resnet.state_dict().items()}


def write(folder, arrays, config=None, name='model.safetensors'):
    path = folder / name
    contiguous = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    safetensors.numpy.save_file(contiguous, path)
    if config is not None:
        (folder / 'config.json').write_text(json.dumps(config))
    return path


def to_huggingface(name):
    """A name in `ResNetForImageClassification`."""
    first, *rest = name.split('.')
    kinds = {'conv': 'convolution', 'bn': 'normalization'}
    if first == 'fc':
        return f'classifier.1.{rest[0]}'
    if first in ('conv1', 'bn1'):
        return f'resnet.embedder.embedder.{kinds[first[:-1]]}.{rest[0]}'
    block = f'resnet.encoder.stages.{int(first[-1]) - 1}.layers.{rest[0]}'
    if rest[1] == 'downsample':
        return f'{block}.shortcut.{kinds["conv" if rest[2] == "0" else "bn"]}.{rest[3]}'
    return f'{block}.layer.{int(rest[1][-1]) - 1}.{kinds[rest[1][:-1]]}.{rest[2]}'


def images(batch=2):
    return np.random.default_rng(0).uniform(0, 1, (batch, 48, 40, 3)).astype(np.float32)


def fresh_variables(model, clip_shape):
    """Variables that need no compilation."""
    shapes = abstract_variables(model, clip_shape)
    return jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), shapes)


def inflate(path, name, clip_shape=(5, 48, 40), **keywords):
    """A model that starts from a file, its variables, and the report of its parameters."""
    weights = read_weights(path)
    keywords = {**known_keywords(name, **SIZES), 'pixel_mean': MEAN, **keywords}
    inits = {'tubelet_init': keywords.pop('tubelet_init', 'central_frame')}
    model = create_model(name, **keywords)
    fresh = fresh_variables(model, clip_shape)
    params, report = init_from(
        model, fresh['params'], weights, clip_shape=clip_shape, reinit=('head',), **inits
    )
    statistics = fit_statistics(fresh['batch_stats'], weights.batch_stats)
    return model, {'params': params, 'batch_stats': statistics}, report


@pytest.mark.parametrize('library', ['torchvision', 'huggingface', 'pth'])
def test_image_has_the_logits_of_the_network_that_wrote_the_file(resnet, library, tmp_path):
    if library == 'pth':
        path = tmp_path / 'resnet.pth'
        torch.save(resnet.state_dict(), path)
    else:
        rename = to_huggingface if library == 'huggingface' else str
        path = write(tmp_path, {rename(name): value for name, value in arrays(resnet).items()})
    model, variables, preprocessing, labels = load_checkpoint(path)
    assert preprocessing.value_range == (0.0, 1.0) and len(labels) == CLASSES
    output = jax.jit(model.apply)(variables, images()[:, None])
    with torch.no_grad():
        features = resnet.features(images())
        expected = resnet.fc(features)
    np.testing.assert_allclose(output.features, features, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(output.logits, expected, rtol=1e-5, atol=1e-5)


def test_still_video_has_the_features_of_its_image(resnet, tmp_path):
    model, variables, _ = inflate(write(tmp_path, arrays(resnet)), 'v4d', blocks=())
    assert variables['params']['conv4_0']['conv1']['kernel'].shape[0] == 3
    still = np.tile(images()[:, None, None], (1, 3, 5, 1, 1, 1))
    found = jax.jit(model.apply)(variables, still).features
    with torch.no_grad():
        expected = resnet.features(images())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_inflated_kernels_are_divided_by_their_length(resnet, tmp_path):
    path = write(tmp_path, arrays(resnet))
    _, variables, report = inflate(path, 'v4d', tubelet_init='filter_inflation')
    for stage in (4, 5):
        kernel = np.asarray(variables['params'][f'conv{stage}_0']['conv1']['kernel'])
        image = arrays(resnet)[f'layer{stage - 1}.0.conv1.weight']
        expected = np.tile(image.transpose(2, 3, 1, 0) / 3, (3, 1, 1, 1, 1))
        np.testing.assert_allclose(kernel, expected, rtol=1e-6)
    inflated = [entry for entry in report.entries if entry.status == 'inflated']
    assert [entry.name for entry in inflated] == ['conv4_0/conv1/kernel', 'conv5_0/conv1/kernel']


@pytest.mark.parametrize('name', ['f4d', 'v4d'])
def test_report_names_what_is_new(resnet, name, tmp_path):
    _, variables, report = inflate(write(tmp_path, arrays(resnet)), name, blocks=('conv3.0',))
    new = {entry.name for entry in report.entries if entry.status == 'new'}
    block = jax.tree_util.tree_leaves_with_path(variables['params']['conv3_0_block'])
    names = {jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in block}
    head = {'output_projection/kernel', 'output_projection/bias'}
    assert new == head | {f'conv3_0_block/{parameter}' for parameter in names}
    assert {entry.name for entry in report.entries if entry.status == 'unused'} == head
    statistics = variables['batch_stats']['conv3_1']['norm2']['var']
    np.testing.assert_array_equal(statistics, arrays(resnet)['layer2.1.bn2.running_var'])


def test_depth_of_one_channel_sums_the_kernel_over_colours(resnet, tmp_path):
    path = write(tmp_path, arrays(resnet))
    depth = {'modality': 'depth', 'depth_channels': 1, 'pixel_mean': (0.449,)}
    _, variables, _ = inflate(path, 'v4d', blocks=(), **depth)
    image = arrays(resnet)['conv1.weight'] / np.reshape(STD, (3, 1, 1))
    expected = image.sum(1, keepdims=True).transpose(2, 3, 1, 0)[None]
    np.testing.assert_allclose(variables['params']['conv1']['kernel'], expected, rtol=1e-5)


def test_blocks_are_added_to_a_network_without(resnet, tmp_path):
    # Also where the network without blocks is one for videos, and has the same name.
    weights = read_weights(write(tmp_path, arrays(resnet)))
    sizes = {**known_keywords('v4d', **SIZES), 'temporal_kernels': (1, 1, 1, 1)}
    model = create_model('v4d', **sizes)
    fresh = fresh_variables(model, (4, 32, 32))['params']
    params, _ = init_from(model, fresh, weights, clip_shape=(4, 32, 32), reinit=('head',))
    np.testing.assert_array_equal(
        params['conv3_1_block']['conv']['kernel'], fresh['conv3_1_block']['conv']['kernel']
    )


def test_colours_come_from_the_configuration_beside_the_file(resnet, tmp_path):
    assumed = read_weights(write(tmp_path, arrays(resnet)))
    assert len(assumed.notes) == 1 and '0.485' in assumed.notes[0]
    for config in (
        {'pretrained_cfg': {'mean': [0.5, 0.4, 0.3], 'std': [0.5, 0.25, 0.5]}},
        {'image_mean': [0.5, 0.4, 0.3], 'image_std': [0.5, 0.25, 0.5]},
    ):
        weights = read_weights(write(tmp_path, arrays(resnet), config))
        assert weights.card.model['pixel_mean'] == (0.5, 0.4, 0.3) and not weights.notes
        kernel = arrays(resnet)['conv1.weight'].transpose(2, 3, 1, 0)[None]
        expected = kernel / np.reshape([0.5, 0.25, 0.5], (3, 1))
        np.testing.assert_allclose(weights.params['conv1']['kernel'], expected, rtol=1e-6)


def test_other_means_or_another_range_are_told(resnet, tmp_path):
    weights = read_weights(write(tmp_path, arrays(resnet)))
    card = weights.card.__class__(
        {'name': 'f4d', **SIZES}, weights.card.preprocessing.__class__(), ('a', 'b', 'c')
    )
    text = '\n'.join(describe_differences(card, weights))
    assert 'model.pixel_mean=(0.485, 0.456, 0.406), not (0.0,)' in text
    assert 'preprocessing.value_range=(0.0, 1.0), not (-1' in text


def drop(name):
    return lambda found: found.pop(name)


def add(name, shape=(4,)):
    return lambda found: found.update({name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (drop('layer2.1.bn2.running_var'), r'layer2\.1\.bn2\.running_var: missing'),
        (drop('fc.bias'), r'fc\.bias: missing'),
        (add('layer1.0.se.fc1.weight'), r'layer1\.0\.se\.fc1\.weight: the model has no such'),
        (add('layer1.0.downsample.2.weight'), r'downsample\.2\.weight: the model has no such'),
        (add('layer2.0.conv2.weight', (8, 2, 3, 3)), r'conv2\.weight: \(8, 2, 3, 3\), needed'),
        (drop('layer1.0.conv3.weight'), 'ResNet-18'),
    ],
)
def test_file_of_another_network_is_an_error_that_names_it(resnet, change, message, tmp_path):
    found = arrays(resnet)
    change(found)
    with pytest.raises(UserError, match=message):
        read_weights(write(tmp_path, found))


def test_other_refusals(resnet, tmp_path):
    config = {'downsample_in_bottleneck': True}
    path = write(tmp_path, arrays(resnet), config)
    with pytest.raises(UserError, match=r'version 1\.5'):
        read_weights(path)
    path = write(tmp_path, arrays(resnet), {})
    with pytest.raises(UserError, match=r"init\.tubelet='random' is for ViTs"):
        inflate(path, 'v4d', tubelet_init='random')
    with pytest.raises(UserError, match=r'conv1/kernel.*needed'):
        inflate(path, 'v4d', width=8)
    vivit = create_model(
        'vivit_joint', hidden_size=8, num_heads=2, mlp_dim=8, num_layers=1, tubelet_size=(1, 8, 8)
    )
    weights = read_weights(path)
    params = fresh_variables(vivit, (2, 16, 16))['params']
    with pytest.raises(UserError, match=r'belong to v4d, .* start from a ViT for images'):
        init_from(vivit, params, weights, clip_shape=(2, 16, 16))
