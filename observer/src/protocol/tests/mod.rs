//! The pipeline as a whole: bytes of processes in, readable lines out.

mod coded;
mod facts;
mod holes;
mod hostile;
mod http;
mod http2;
mod meaning;
mod offers;
mod properties;
mod rules;
mod scene;
mod stdio;
mod transports;
mod underlay;
