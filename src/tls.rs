//! TLS is rustls with ring, everywhere.

/// Makes ring the process's provider; libraries that build their own TLS settings ask for it.
pub fn install_provider() {
    // An error says that it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
