"""The dialect of Keras 3: see `adapters.keras.dialect`."""

# ruff: noqa: F403, PLC0414 - all that these modules have is part of the dialect

from keras import ops as ops
from keras import tree as tree

from .backend import *
from .cells import *
from .models import *
