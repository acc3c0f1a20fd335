//! The Fabnic command line.

fn main() {}
