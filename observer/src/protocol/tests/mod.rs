//! The pipeline as a whole: bytes of processes in, readable lines out.

mod holes;
mod hostile;
mod http;
mod meaning;
mod offers;
mod properties;
mod rules;
mod scene;
mod stdio;
