"""The demo: trains small recurrent networks on handwritten digits and draws their gradients.

Digits are read pixel by pixel, 64 timesteps of one brightness. Started by `throughtime demo`; shows how the
public functions are used together, in Keras 3, tf_keras and PyTorch.
"""
