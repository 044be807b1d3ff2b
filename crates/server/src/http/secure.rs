//! What a page must know to get to HTTPS: where it is, and the certificate that people install for it.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Http;
use super::extract::Params;
use super::problem::Problem;
use super::wire::{AuthorityQuery, TlsAnswer};
use crate::tls::Tls;

/// Where HTTP and HTTPS are served.
#[derive(Debug)]
pub(crate) struct Doors {
    /// Never empty.
    pub(crate) plain: Vec<SocketAddr>,
    /// `None`: HTTPS is off.
    pub(crate) secure: Option<Secure>,
}

/// HTTPS.
#[derive(Debug)]
pub(crate) struct Secure {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Tls,
}

impl Doors {
    /// Where HTTPS is served.
    pub(crate) fn secure_address(&self) -> Option<SocketAddr> {
        self.secure.as_ref().map(|secure| secure.address)
    }
}

/// Where the local authority's certificate is.
const AUTHORITY_PATH: &str = "/ca.crt";

/// What iOS and Android take for a certificate to install.
const AUTHORITY_TYPE: HeaderValue = HeaderValue::from_static("application/x-x509-ca-cert");

/// Characters in a line of PEM (RFC 7468 §2).
const PEM_LINE_LENGTH: usize = 64;

/// `GET /tls`
pub(super) async fn tls(State(http): State<Http>) -> Json<TlsAnswer> {
    Json(answer(&http.0.doors))
}

fn answer(doors: &Doors) -> TlsAnswer {
    let Some(Secure { address, tls }) = &doors.secure else {
        return TlsAnswer { https_port: None, ca: None, mode: "off" };
    };
    let (ca, mode) = match tls.authority() {
        Some(_) => (Some(AUTHORITY_PATH), "auto"),
        None => (None, "files"),
    };
    TlsAnswer { https_port: Some(address.port()), ca, mode }
}

/// `GET /ca.crt`: as PEM, which phones, browsers and curl take, or as DER.
pub(super) async fn authority(
    State(http): State<Http>,
    Params(query): Params<AuthorityQuery>,
) -> Result<Response, Problem> {
    let doors = &http.0.doors;
    let secure = doors.secure.as_ref().ok_or_else(|| {
        Problem::not_found("there is no certificate to install: HTTPS is off, see http.https")
    })?;
    let der = secure.tls.authority().ok_or_else(|| {
        Problem::not_found(
            "there is no certificate to install: HTTPS has the certificate of http.certificate",
        )
    })?;
    let body = match query.format.as_deref() {
        None | Some("pem") => pem(&der).into_bytes(),
        Some("der") => der.to_vec(),
        Some(_) => return Err(Problem::bad_request("format must be pem or der")),
    };
    // The authority may be made anew, and an old one is of no use.
    let headers =
        [(CONTENT_TYPE, AUTHORITY_TYPE), (CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    Ok((headers, body).into_response())
}

fn pem(der: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = STANDARD.encode(der);
    while !rest.is_empty() {
        let after = rest.split_off(rest.len().min(PEM_LINE_LENGTH));
        text.push_str(&rest);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn pem_is_read_back_as_what_was_written() {
        for length in [0, 1, 47, 48, 49, 600] {
            let der: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let text = pem(&der);
            assert!(text.lines().all(|line| line.len() <= PEM_LINE_LENGTH), "{text}");
            let back = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(back.as_ref(), der);
        }
    }
}
