//! The pipeline as a whole: bytes of processes in, readable lines out.

mod http;
mod stdio;
mod scene;
mod hostile;
mod properties;
