//! The mpt command.

fn main() {}
