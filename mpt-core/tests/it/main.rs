//! What a model computes, against numbers of the reference implementations and against a plain reference of its own.

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
