//! MPT models as tensors: configuration, weights, forward pass and the ops beneath.
