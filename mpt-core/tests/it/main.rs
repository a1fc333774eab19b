//! What a model computes, against numbers of the reference implementations.

mod fixtures;
mod parity;
