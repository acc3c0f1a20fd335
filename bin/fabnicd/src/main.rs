//! The Fabnic daemon.

fn main() {}
