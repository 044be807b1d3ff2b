//! What is watched: one WHEP address, several, or a row of them written as `cam-{1..500}`.

use url::Url;

/// Addresses that a row may come to.
const TARGETS_MAX: usize = 10_000;

/// At least one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Targets(Vec<Target>);

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The WHEP endpoint.
    pub(crate) url: Url,
    /// The last part of its path, which names the camera at our own API.
    pub(crate) camera: String,
}

/// Why an address is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// Not a URL.
    #[error("{0:?} is no URL ({1}); write http://host:port/whep/camera")]
    Url(String, url::ParseError),
    /// The braces hold something else.
    #[error("{0:?}: a row is written as {{1..500}}, from the lower to the higher number")]
    Row(String),
    /// Over [`TARGETS_MAX`].
    #[error("there are more than {TARGETS_MAX} addresses")]
    TooMany,
}

impl Targets {
    /// Reads addresses, each of which may have one row in braces.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, TargetError> {
        let mut targets = Vec::new();
        for text in texts {
            for one in expand(text)? {
                let url = Url::parse(&one).map_err(|error| TargetError::Url(one, error))?;
                let last = url.path().trim_end_matches('/').rsplit('/').next();
                let camera = last.unwrap_or_default().to_owned();
                if targets.len() == TARGETS_MAX {
                    return Err(TargetError::TooMany);
                }
                targets.push(Target { url, camera });
            }
        }
        let none = || TargetError::Url(String::new(), url::ParseError::EmptyHost);
        if targets.is_empty() { Err(none()) } else { Ok(Self(targets)) }
    }

    /// What a viewer watches: they go round.
    pub(super) fn of(&self, viewer: usize) -> &Target {
        &self.0[viewer % self.0.len()]
    }

    /// For people: the only one, or the first and how many.
    pub(super) fn title(&self) -> String {
        let first = &self.0[0].url;
        match self.0.len() {
            1 => first.to_string(),
            count => format!("{first} and {} more", count - 1),
        }
    }
}

fn expand(text: &str) -> Result<Vec<String>, TargetError> {
    let Some((before, rest)) = text.split_once('{') else { return Ok(vec![text.to_owned()]) };
    let wrong = || TargetError::Row(text.to_owned());
    let (row, after) = rest.split_once('}').ok_or_else(wrong)?;
    let (low, high) = row.split_once("..").ok_or_else(wrong)?;
    let number = |digits: &str| digits.trim().parse::<usize>().map_err(|_| wrong());
    // As shells do: 001..500 gives numbers of three digits.
    let width = if low.trim().starts_with('0') { low.trim().len() } else { 0 };
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        return Err(wrong());
    }
    if high - low >= TARGETS_MAX {
        return Err(TargetError::TooMany);
    }
    Ok((low..=high).map(|number| format!("{before}{number:0width$}{after}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Targets, TargetError> {
        Targets::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn viewers_go_round_all_addresses() {
        let targets = parse(&["http://a/whep/cam-{1..3}", "http://a/whep/x/"]).unwrap();
        let cameras: Vec<&str> = (0..5).map(|viewer| targets.of(viewer).camera.as_str()).collect();
        assert_eq!(cameras, ["cam-1", "cam-2", "cam-3", "x", "cam-1"]);
        let padded = parse(&["http://a/whep/cam-{008..010}"]).unwrap();
        assert_eq!(
            [0, 1, 2].map(|viewer| padded.of(viewer).camera.clone()),
            ["cam-008", "cam-009", "cam-010"]
        );
        assert_eq!(targets.title(), "http://a/whep/cam-1 and 3 more");
    }

    #[test]
    fn what_is_no_address_is_named() {
        assert!(matches!(parse(&["whep/x"]), Err(TargetError::Url(..))));
        assert!(matches!(parse(&[]), Err(TargetError::Url(..))));
        for row in ["http://a/{", "http://a/{1}", "http://a/{3..1}", "http://a/{a..b}"] {
            assert_eq!(parse(&[row]), Err(TargetError::Row(row.to_owned())));
        }
        assert_eq!(parse(&["http://a/{0..10000}"]), Err(TargetError::TooMany));
    }
}
