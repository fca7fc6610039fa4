//! Bad input.
use anyhow::Result;
use clap::Args;
/// x
#[derive(Args)]
pub(crate) struct NoiseArgs {}
pub(crate) fn make(_args: &NoiseArgs) -> Result<()> { Ok(()) }
