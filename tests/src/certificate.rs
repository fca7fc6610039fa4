//! Certificates of servers on this machine, made by the test that needs one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate and its key, as PEM files.
pub(crate) struct Certificate {
    /// With that of its authority, for clients to trust: rustls accepts no server that is its own.
    pub(crate) file: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// Makes one for `localhost` and 127.0.0.1, beside the file at `beside`.
    pub(crate) fn create(beside: &Path) -> Result<Self> {
        let mut authority = CertificateParams::new([])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority
            .distinguished_name
            .push(DnType::CommonName, "the test's own authority");
        let authority_key = KeyPair::generate()?;
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &Issuer::from_params(&authority, &authority_key))?;
        let certificate = Self {
            file: beside.with_extension("cert.pem"),
            key: beside.with_extension("key.pem"),
        };
        let chain = signed.pem() + &authority.self_signed(&authority_key)?.pem();
        fs::write(&certificate.file, chain)?;
        fs::write(&certificate.key, key.serialize_pem())?;
        Ok(certificate)
    }
}
