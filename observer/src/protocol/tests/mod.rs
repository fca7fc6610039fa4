//! The pipeline as a whole: bytes of processes in, readable lines out.

mod coded;
mod holes;
mod hostile;
mod http;
mod http2;
mod properties;
mod rules;
mod scene;
mod stdio;
