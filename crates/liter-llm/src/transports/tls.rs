//! TLS for every transport: always verified, root certificates read at the first handshake, one set-up per process.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::core::error::LlmError;

/// The TLS set-up for clients; shared by all that name no certificates of their own.
///
/// # Errors
/// `config` when `ca_bundle` cannot be read, holds no certificate or one that is broken.
pub(super) fn client_config(ca_bundle: Option<&Path>) -> Result<Arc<ClientConfig>, LlmError> {
    // Sharing also shares the session cache, so a second client resumes the first one's TLS sessions.
    static SHARED: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let Some(path) = ca_bundle else {
        if let Some(shared) = SHARED.get() {
            return Ok(shared.clone());
        }
        // Not `get_or_init`: a process forked in the middle of it would wait for ever.
        let config = build(Vec::new())?;
        return Ok(match SHARED.set(config.clone()) {
            Ok(()) => config,
            Err(_) => SHARED.get().cloned().unwrap_or(config),
        });
    };
    build(read_bundle(path)?)
}

fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, LlmError> {
    let fault =
        |what: String| LlmError::config("ca_bundle", format!("`ca_bundle` {}: {what}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(error.to_string()))?;
    if certificates.is_empty() {
        return Err(fault("holds no PEM certificate".into()));
    }
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store.add(certificate.clone()).map_err(|error| fault(error.to_string()))?;
    }
    Ok(certificates)
}

fn build(extra_roots: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, LlmError> {
    // Named outright: the process may have another default, or none.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = LazyVerifier { provider: provider.clone(), extra_roots, loaded: OnceLock::new() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| LlmError::config("tls", "TLS cannot be set up").with_source(error))?
        // "Dangerous" is rustls' word for any verifier that is not its own; this one asks the platform's.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The platform's certificate check, whose root certificates are read when the first certificate is to be checked.
///
/// Reading them takes milliseconds and fails where there are none (slim container images); a client that speaks
/// plain HTTP needs neither.
#[derive(Debug)]
struct LazyVerifier {
    provider: Arc<CryptoProvider>,
    extra_roots: Vec<CertificateDer<'static>>,
    loaded: OnceLock<Arc<dyn ServerCertVerifier>>,
}

impl LazyVerifier {
    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        if let Some(verifier) = self.loaded.get() {
            return Ok(verifier.clone());
        }
        let verifier = self.load()?;
        // Only success is kept: certificates that are installed later are found by the next handshake.
        let _ = self.loaded.set(verifier.clone());
        Ok(verifier)
    }

    #[cfg(not(target_os = "android"))]
    fn load(&self) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        match Verifier::new_with_extra_roots(self.extra_roots.iter().cloned(), self.provider.clone()) {
            Ok(verifier) => Ok(Arc::new(verifier)),
            Err(error) => self.bundled(error),
        }
    }

    #[cfg(target_os = "android")]
    fn load(&self) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        Ok(Arc::new(Verifier::new(self.provider.clone())?))
    }

    /// Mozilla's root certificates, for systems that have none; not where the environment names a source, because
    /// then trusting more than it would be a surprise.
    #[cfg(not(target_os = "android"))]
    fn bundled(&self, error: Error) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        if ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some()) {
            return Err(error);
        }
        let store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let built =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), self.provider.clone()).build();
        Ok(built.map_err(|error| Error::Other(OtherError(Arc::new(error))))?)
    }
}

impl ServerCertVerifier for LazyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn verifier() -> LazyVerifier {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        LazyVerifier { provider, extra_roots: Vec::new(), loaded: OnceLock::new() }
    }

    #[test]
    fn clients_share_one_set_up_and_read_no_certificate_for_it() {
        assert!(Arc::ptr_eq(&client_config(None).unwrap(), &client_config(None).unwrap()));
        assert!(verifier().loaded.get().is_none());
        assert!(!verifier().supported_verify_schemes().is_empty());
    }

    #[test]
    #[cfg(not(target_os = "android"))]
    fn bundled_certificates_step_in_unless_the_environment_names_some() {
        let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
        assert_eq!(verifier().bundled(Error::General("none".into())).is_err(), named);
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let error = client_config(Some(Path::new("Cargo.toml"))).unwrap_err();
        assert!(error.to_string().contains("no PEM certificate"), "{error}");
    }
}
