//! What crosses the boundary between the kernel programs and the daemon, and nothing else.
//!
//! Every type is `repr(C)`, has no implicit padding and no logic: the kernel side writes these bytes, the daemon reads them,
//! and recordings store them. Sizes are asserted at compile time; changing one is a new [`record::FORMAT_VERSION`].
#![no_std]

pub mod config;
pub mod drops;
pub mod limits;
pub mod record;
pub mod stream;
