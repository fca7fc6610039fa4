//! x
use std::process::ExitCode;
use anyhow::Result;
use crate::RunArgs;
use crate::lab::{Lab, Place};
pub(crate) fn run(args: RunArgs, place: Place) -> Result<ExitCode> { let _ = Lab::new(args, place)?; Ok(ExitCode::SUCCESS) }
