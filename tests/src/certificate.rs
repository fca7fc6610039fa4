//! Certificates of servers on this machine, made by the test that needs one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

/// A certificate that signs itself, and its key, as PEM files.
pub(crate) struct Certificate {
    pub(crate) file: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// Makes one for `localhost` and 127.0.0.1, beside the file at `beside`.
    pub(crate) fn create(beside: &Path) -> Result<Self> {
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = Self {
            file: beside.with_extension("cert.pem"),
            key: beside.with_extension("key.pem"),
        };
        fs::write(&certificate.file, params.self_signed(&key)?.pem())?;
        fs::write(&certificate.key, key.serialize_pem())?;
        Ok(certificate)
    }
}
