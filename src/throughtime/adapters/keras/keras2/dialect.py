"""The dialect of tf_keras and Keras 2: see `adapters.keras.dialect`."""

# ruff: noqa: F403, PLC0414 - all that these modules have is part of the dialect

import tensorflow as tf

from . import ops as ops
from .cells import *
from .models import *
from .passes import *
from .variables import untouched as untouched

tree = tf.nest
