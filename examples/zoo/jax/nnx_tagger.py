"""Named entities in Flax NNX: a bidirectional GRU tags every word of a sentence.

Ask it how far around a word the evidence for its tag lies, before it and after it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import throughtime as tt

RECURRENT = ("reader",)
WORDS, LENGTH, TAGS, UNITS = 40, 10, 3, 8
MISTER, IN, NAME = 1, 2, 20  # a name after "Mr" is a person, after "in" a place


class Tagger(nnx.Module):
    """Embedding, GRU in both directions, and a tag's logits at every word."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.words = nnx.Embed(WORDS, UNITS, rngs=rngs)
        forward, backward = (nnx.RNN(nnx.GRUCell(UNITS, UNITS, rngs=rngs), rngs=rngs) for _ in range(2))
        self.reader = nnx.Bidirectional(forward, backward, rngs=rngs)
        self.tags = nnx.Linear(2 * UNITS, TAGS, rngs=rngs)

    def __call__(self, words: jax.Array) -> jax.Array:
        """Return the logits of every word's tag."""
        return self.tags(self.reader(self.words(words)))


def build() -> Tagger:
    """Make the tagger."""
    return Tagger(nnx.Rngs(0))


def loss(logits: jax.Array, tags: jax.Array) -> jax.Array:
    """Cross-entropy of each word's tag."""
    return -jnp.take_along_axis(nnx.log_softmax(logits), tags[..., None], -1)[..., 0]


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw sentences and the tag of each word: 0 none, 1 person, 2 place."""
    rng = np.random.default_rng(seed)
    words = rng.integers(3, NAME, (16, LENGTH))
    at = np.arange(1, LENGTH, 3)
    words[:, at] = rng.integers(NAME, WORDS, (16, len(at)))
    words[:, at - 1] = rng.choice([MISTER, IN, 3], (16, len(at)))
    tags = np.zeros_like(words)
    tags[:, 1:] = (words[:, 1:] >= NAME) * np.select([words[:, :-1] == MISTER, words[:, :-1] == IN], [1, 2])
    return words.astype("int32"), tags.astype("int32")


if __name__ == "__main__":
    tree = tt.capture(build(), *batch(), loss=loss)
    tt.save(tt.plots.gradient_flow(tree), "nnx_tagger.png")
