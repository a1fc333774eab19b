//! Outputs of models against the reference implementations' numbers and a plain reference model.

mod agreement;
mod compare;
mod convert;
mod decoding;
mod fixtures;
mod invariance;
mod levels;
mod options;
mod parity;
mod published;
mod quantized;
mod reference;
mod shared;
