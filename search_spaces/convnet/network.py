"""A convolutional network as plain TensorFlow operations. Training runs it, several times faster than Keras layers.

`build` makes the same function of the same weights; a test compares their values. This network takes a tenth of the
time to build and trace, its normalization is one operation instead of a dozen, and convolutions may run in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from automl.search_spaces.convnet.layers import ConvLayer, ConvLayers
from automl.search_spaces.convnet.shapes import Shape, net_shapes

EPSILON = 1e-3  # the default of Keras
Convolve = Callable[[int, ConvLayer, tf.Tensor], tf.Tensor]


class ConvNetwork:
    """An untrained network with its own weights.

    The variables have the names of the Keras model's variables (`layer0_conv/kernel`), and are float32 in every
    precision. Kernels start Glorot-uniform, as in Keras; their values depend on the seed and on their position.

    Args:
        seed: seed of the initial weights, 0 or more.
        precision: dtype of convolutions, ReLU, pooling and concatenation in training: `float32`, `bfloat16` or
            `float16`. Normalization, the classifier and the whole of `logits` are float32.
        xla: whether XLA compiles the training step.
        batch_norm_momentum: momentum of the moving averages; see `build`.
    """

    def __init__(
        self,
        net: ConvLayers,
        input_shape: Shape,
        num_classes: int,
        *,
        seed: int,
        precision: str = "float32",
        xla: bool = False,
        batch_norm_momentum: float = 0.9,
    ) -> None:
        self._net = net
        self._shapes = net_shapes(net, input_shape)
        self._dtype = tf.dtypes.as_dtype(precision)
        self._xla = xla
        self._momentum = batch_norm_momentum
        self.trainable: dict[str, tf.Variable] = {}
        self.moving: dict[str, tf.Variable] = {}
        self.state: dict[str, tf.Variable] = {}  # state of random generators, of which it has none
        generator = np.random.Generator(np.random.PCG64(seed))
        for index, (layer, shapes) in enumerate(zip(net.layers, self._shapes.layers, strict=True)):
            kernel = (layer.filter_height, layer.filter_width, shapes.read[2], layer.num_filters)
            self._add(self.trainable, f"layer{index}_conv/kernel", _glorot(generator, kernel))
            self._add(self.trainable, f"layer{index}_norm/gamma", np.ones(layer.num_filters))
            self._add(self.trainable, f"layer{index}_norm/beta", np.zeros(layer.num_filters))
            self._add(self.moving, f"layer{index}_norm/moving_mean", np.zeros(layer.num_filters))
            self._add(self.moving, f"layer{index}_norm/moving_variance", np.ones(layer.num_filters))
        self._add(self.trainable, "logits/kernel", _glorot(generator, (self._shapes.features[2], num_classes)))
        self._add(self.trainable, "logits/bias", np.zeros(num_classes))

    def train_logits(self, images: tf.Tensor) -> tf.Tensor:
        """Logits, float32 (batch, num_classes), normalized by the batch's moments. Also updates the moving averages.

        Args:
            images: float32 (batch, height, width, channels); the batch size must be static.
        """
        return self._forward(tf.cast(images, self._dtype), self._train_layer)

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Logits, float32 (batch, num_classes), normalized by the moving averages; float32 throughout."""
        return self._forward(images, self._layer)

    def _add(self, variables: dict[str, tf.Variable], name: str, value: np.ndarray) -> None:
        moving = variables is self.moving
        # If several devices train one network, each has its own moving averages, and reading returns their mean.
        variables[name] = tf.Variable(
            value.astype(np.float32),
            trainable=not moving,
            name=name.replace("/", "_"),
            synchronization=tf.VariableSynchronization.ON_READ if moving else tf.VariableSynchronization.AUTO,
            aggregation=tf.VariableAggregation.MEAN if moving else tf.VariableAggregation.NONE,
        )

    def _forward(self, images: tf.Tensor, convolve: Convolve) -> tf.Tensor:
        outputs: list[tf.Tensor] = []
        for index, (layer, shapes) in enumerate(zip(self._net.layers, self._shapes.layers, strict=True)):
            x = _join(outputs, layer.inputs, shapes.read) if layer.inputs else images
            x = convolve(index, layer, x)
            if layer.pool:  # before the ReLU, with which it commutes: the ReLU then has a quarter of the values
                x = self._max_pool(x)
            outputs.append(tf.nn.relu(x))
        features = _join(outputs, self._net.dangling, self._shapes.features)
        features = tf.reduce_mean(tf.cast(features, tf.float32), axis=[1, 2])
        return tf.matmul(features, self.trainable["logits/kernel"]) + self.trainable["logits/bias"]

    def _max_pool(self, x: tf.Tensor) -> tf.Tensor:
        if not self._xla:
            return tf.nn.max_pool2d(x, 2, 2, "SAME")
        # XLA has a deterministic gradient of reduce_max, but not of max_pool2d.
        _, height, width, channels = x.shape
        padded = tf.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=x.dtype.min)
        windows = tf.reshape(padded, (-1, (height + 1) // 2, 2, (width + 1) // 2, 2, channels))
        return tf.reduce_max(windows, axis=[2, 4])

    def _train_layer(self, index: int, layer: ConvLayer, x: tf.Tensor) -> tf.Tensor:
        kernel = tf.cast(self.trainable[f"layer{index}_conv/kernel"], self._dtype)
        x = tf.cast(tf.nn.conv2d(x, kernel, _strides(layer), "SAME"), tf.float32)
        x, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            x, self.trainable[f"layer{index}_norm/gamma"], self.trainable[f"layer{index}_norm/beta"], epsilon=EPSILON
        )
        # The operation gives the unbiased variance; Keras averages the biased one.
        count = math.prod(x.shape[:3])
        self._move(f"layer{index}_norm/moving_mean", mean)
        self._move(f"layer{index}_norm/moving_variance", variance * ((count - 1.0) / count))
        return tf.cast(x, self._dtype)

    def _move(self, name: str, value: tf.Tensor) -> None:
        average = self.moving[name]
        average.assign_add((1.0 - self._momentum) * (value - average))

    def _layer(self, index: int, layer: ConvLayer, x: tf.Tensor) -> tf.Tensor:
        # Folding normalization into the convolution saves two passes over the maps.
        gamma, beta = (self.trainable[f"layer{index}_norm/{name}"] for name in ("gamma", "beta"))
        scale = gamma * tf.math.rsqrt(self.moving[f"layer{index}_norm/moving_variance"] + EPSILON)
        offset = beta - scale * self.moving[f"layer{index}_norm/moving_mean"]
        kernel = self.trainable[f"layer{index}_conv/kernel"] * scale
        return tf.nn.bias_add(tf.nn.conv2d(x, kernel, _strides(layer), "SAME"), offset)


def _glorot(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in ±sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    receptive = math.prod(shape[:-2])
    limit = math.sqrt(6.0 / (receptive * (shape[-2] + shape[-1])))
    return generator.uniform(-limit, limit, shape)


def _strides(layer: ConvLayer) -> tuple[int, int]:
    return layer.stride_height, layer.stride_width


def _join(outputs: Sequence[tf.Tensor], indices: Sequence[int], shape: Shape) -> tf.Tensor:
    """The outputs of these layers, padded with zeros at bottom and right and concatenated in depth."""
    height, width, _ = shape
    maps = []
    for index in indices:
        rows, columns = height - outputs[index].shape[1], width - outputs[index].shape[2]
        padded = rows or columns
        maps.append(tf.pad(outputs[index], ((0, 0), (0, rows), (0, columns), (0, 0))) if padded else outputs[index])
    return maps[0] if len(maps) == 1 else tf.concat(maps, axis=3)
