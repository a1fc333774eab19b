//! What a model computes, against numbers of the reference implementations.

mod convert;
mod fixtures;
mod parity;
