//! HTTPS: until when its certificate is good, and for which names.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{Finding, RunningServer};
use crate::config::{Config, Door};
use crate::remote::Ask;
use crate::tls::{self, Certificate, Certificates, LookError};

const PART: &str = "certificate";

/// What is left when somebody should be told. Those who renew do so a month before the end.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What the server shows where one runs, else what its files say.
pub(super) async fn check(
    config: Option<&Config>,
    server: Option<&mut RunningServer>,
) -> Vec<Finding> {
    if let Some(server) = server {
        return check_server(server).await.into_iter().collect();
    }
    let Some(config) = config.filter(|config| config.https.listen != Door::Closed) else {
        return Vec::new();
    };
    match &config.https.certificates {
        Certificates::Local => Vec::new(),
        Certificates::Files { certificate, key } => {
            vec![judge(tls::of_files(certificate, key), None, SystemTime::now())]
        }
    }
}

async fn check_server(server: &mut RunningServer) -> Option<Finding> {
    let url = server.base.join("/tls").ok()?;
    let ask = Ask {
        method: hyper::Method::GET,
        url: &url,
        content_type: None,
        token: None,
        body: String::new(),
    };
    let answer = server.http.ask(&ask).await.ok()?;
    let json: Value = serde_json::from_str(&answer.body).ok()?;
    let Some(port) = json["https_port"].as_u64().and_then(|port| u16::try_from(port).ok()) else {
        return Some(Finding::note(
            PART,
            "HTTPS is off: browsers on other machines have no microphone",
            "leave http.https at its default, or give it an address",
        ));
    };
    let host = server.base.host_str()?.to_owned();
    let address =
        tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await.ok()?.next()?;
    Some(judge(tls::presented(address, &host).await, Some(&host), SystemTime::now()))
}

fn judge(looked: Result<Certificate, LookError>, host: Option<&str>, now: SystemTime) -> Finding {
    let certificate = match looked {
        Ok(certificate) => certificate,
        Err(error) => {
            return Finding::trouble(
                PART,
                format!("HTTPS has no certificate that can be used: {error}"),
                "correct http.certificate and http.key, or leave both out for the local authority's",
            );
        }
    };
    let day = |time| humantime::format_rfc3339_seconds(time).to_string();
    let names = certificate.names.join(", ");
    if certificate.ends <= now || certificate.begins > now {
        return Finding::trouble(
            PART,
            format!(
                "the certificate of HTTPS is good from {} to {}, and not at present",
                day(certificate.begins),
                day(certificate.ends)
            ),
            "renew it; if its times are right, set this machine's clock",
        );
    }
    if let Some(host) = host.filter(|host| !certificate.is_for(host)) {
        return Finding::trouble(
            PART,
            format!("the certificate of HTTPS is not for {host}, but for {names}"),
            "open the page under one of these names, or add the name to the certificate",
        );
    }
    let left = certificate.ends.duration_since(now).unwrap_or_default();
    let days = left.as_secs() / (24 * 60 * 60);
    let sentence = format!("the certificate of HTTPS is good for {days} days more, for {names}");
    if left < SOON {
        Finding::note(PART, sentence, "renew it; the server reads new files by itself")
    } else {
        Finding::fine(PART, sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_its_time_and_its_names() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let day = Duration::from_secs(24 * 60 * 60);
        let good_for = |days: u32| Certificate {
            begins: now - day,
            ends: now + day * days,
            names: vec!["cctv.example".to_owned()],
        };
        let level = |certificate, host| judge(Ok(certificate), Some(host), now).level;
        assert_eq!(level(good_for(30), "cctv.example"), Level::Fine);
        assert_eq!(level(good_for(13), "cctv.example"), Level::Note);
        assert_eq!(level(good_for(0), "cctv.example"), Level::Trouble);
        assert_eq!(level(good_for(30), "192.0.2.7"), Level::Trouble);
        let early = Certificate { begins: now + day, ..good_for(30) };
        assert_eq!(level(early, "cctv.example"), Level::Trouble);
    }
}
