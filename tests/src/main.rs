//! End-to-end driver.

fn main() {}
