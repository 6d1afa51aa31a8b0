"""A leaky network in a bare `jax.lax.scan`, without any library: it integrates its input over time.

Ask it how its leak decides how far back the error of the last step reaches.
"""

import jax
import jax.numpy as jnp
import numpy as np

import throughtime as tt

RECURRENT = ("integrate",)
STEPS, FEATURES, UNITS, LEAK = 40, 3, 16, 0.1


def build() -> jax.tree_util.Partial:
    """Make the weights, and the function that reads them: a Partial gives them names in the tree."""
    rng = np.random.default_rng(0)
    shapes = {"inward": (FEATURES, UNITS), "recurrent": (UNITS, UNITS), "outward": (UNITS, 1)}
    weights = {
        name: jnp.asarray(rng.normal(0, UNITS**-0.5, shape), jnp.float32) for name, shape in shapes.items()
    }
    return jax.tree_util.Partial(read, {"integrate": weights})


def read(weights: dict[str, dict[str, jax.Array]], x: jax.Array) -> jax.Array:
    """Run the network; return a number for each sample."""
    own = weights["integrate"]

    def step(state: jax.Array, now: jax.Array) -> tuple[jax.Array, None]:
        drive = jnp.tanh(state @ own["recurrent"] + now @ own["inward"])
        return (1 - LEAK) * state + LEAK * drive, None

    last, _ = jax.lax.scan(step, jnp.zeros((x.shape[0], UNITS), x.dtype), jnp.swapaxes(x, 0, 1))
    return last @ own["outward"]


def loss(output: jax.Array, y: jax.Array) -> jax.Array:
    """Squared error of each sample."""
    return jnp.square(output - y)


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw noise; what is asked for is the mean of its first feature."""
    x = np.random.default_rng(seed).normal(size=(16, STEPS, FEATURES)).astype("float32")
    return x, x[:, :, :1].mean(1)


if __name__ == "__main__":
    tree = tt.capture(build(), *batch(), loss=loss)
    tt.save(tt.plots.gradient_flow(tree), "bare_scan.png")
