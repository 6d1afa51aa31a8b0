"""The adapters for Keras: `keras3` for Keras 3 on its three backends, `keras2` for tf_keras and Keras 2.

The modules beside these two folders are shared by both and import neither Keras.
"""
