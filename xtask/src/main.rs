//! Build, test, bench and release automation.

fn main() {}
