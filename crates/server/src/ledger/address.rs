//! `store.url`: where leases are kept, taken apart into what cannot be wrong.

use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// Port of Redis and Valkey where none is written.
const STORE_PORT: u16 = 6379;

/// Port of Sentinel where none is written.
const SENTINEL_PORT: u16 = 26379;

/// Most hosts of one address. They are written by hand, and a few of them find the others.
const HOSTS_MAX: usize = 32;

/// Where a store is reached. `Debug` and `Display` print no password.
#[derive(Debug, Clone)]
pub(crate) struct StoreAddress {
    pub(super) kind: StoreKind,
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
    /// The numbered database; always 0 in a cluster.
    pub(super) database: i64,
    /// The file of whom to trust instead of the system's certificate authorities.
    pub(super) ca: Option<PathBuf>,
    /// How Sentinels let us in, where they ask.
    pub(super) sentinel_login: SentinelLogin,
}

/// User and password of Sentinels, which are not those of the servers that they look after.
#[derive(Debug, Clone, Default)]
pub(crate) struct SentinelLogin {
    /// Left out: Sentinel's default user.
    pub(crate) user: Option<String>,
    /// Left out: Sentinels ask for none.
    pub(crate) password: Option<SecretString>,
}

/// How the servers of a store stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StoreKind {
    /// One server.
    Single,
    /// The hosts are Sentinels, which know who leads.
    Sentinel {
        /// What they call the group.
        master: String,
    },
    /// The hosts are some of a cluster.
    Cluster,
}

impl StoreAddress {
    /// Reads `redis://`, `rediss://`, `redis+sentinel://h:p,h:p/master[/db]` or
    /// `redis+cluster://h:p,h:p`. The sentence of an error repeats nothing of the text, which may
    /// hold a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(wanted)?;
        let (tls, family) = match scheme.split_once('+') {
            _ if scheme == "redis" || scheme == "valkey" => (false, ""),
            _ if scheme == "rediss" || scheme == "valkeys" => (true, ""),
            Some(("redis" | "valkey", family)) => (false, family),
            Some(("rediss" | "valkeys", family)) => (true, family),
            Some(_) | None => return Err(wanted()),
        };
        if rest.contains(['?', '#']) {
            return Err(
                "nothing follows the path; '?' and '#' in a password are written %3F and %23"
                    .to_owned(),
            );
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (credentials, hosts),
            None => ("", authority),
        };
        let (user, password) = read_credentials(credentials)?;
        let (kind, database) = read_path(family, path)?;
        let port = match kind {
            StoreKind::Sentinel { .. } => SENTINEL_PORT,
            StoreKind::Single | StoreKind::Cluster => STORE_PORT,
        };
        let hosts = read_hosts(hosts, port)?;
        if kind == StoreKind::Single && hosts.len() > 1 {
            return Err(
                "several hosts are those of redis+sentinel:// or redis+cluster://".to_owned()
            );
        }
        let (ca, sentinel_login) = (None, SentinelLogin::default());
        Ok(Self { kind, hosts, tls, user, password, database, ca, sentinel_login })
    }

    /// Trusts the certificate authorities in a file of PEM, and nobody else.
    pub(crate) fn trusting(self, ca: Option<PathBuf>) -> Self {
        Self { ca, ..self }
    }

    /// With what Sentinels ask for.
    pub(crate) fn with_sentinel_login(self, sentinel_login: SentinelLogin) -> Self {
        Self { sentinel_login, ..self }
    }

    /// Whether it is reached by TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether its hosts are Sentinels.
    pub(crate) fn is_sentinel(&self) -> bool {
        matches!(self.kind, StoreKind::Sentinel { .. })
    }

    /// Whether all keys must lie in one hash slot.
    pub(crate) fn is_cluster(&self) -> bool {
        self.kind == StoreKind::Cluster
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_ref().map(ExposeSecret::expose_secret)
    }

    /// Where user and password are written, for sentences.
    pub(super) const fn login_settings(&self) -> &'static str {
        match self.kind {
            StoreKind::Single | StoreKind::Cluster => "`store.url`",
            StoreKind::Sentinel { .. } => "`store.url` or `store.sentinel_password`",
        }
    }

    pub(super) fn sentinel_password(&self) -> Option<&str> {
        self.sentinel_login.password.as_ref().map(ExposeSecret::expose_secret)
    }
}

/// As it was written, without user and password.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let family = match self.kind {
            StoreKind::Single => "",
            StoreKind::Sentinel { .. } => "+sentinel",
            StoreKind::Cluster => "+cluster",
        };
        write!(f, "{scheme}{family}://")?;
        for (index, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if host.contains(':') {
                write!(f, "{comma}[{host}]:{port}")?;
            } else {
                write!(f, "{comma}{host}:{port}")?;
            }
        }
        if let StoreKind::Sentinel { master } = &self.kind {
            write!(f, "/{master}")?;
        }
        if self.database != 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

fn wanted() -> String {
    "this must be \"memory\", or an address like redis://host:6379, rediss://user:password@host, \
     redis+sentinel://host:26379,host:26379/master or redis+cluster://host:6379,host:6379"
        .to_owned()
}

fn read_credentials(text: &str) -> Result<(Option<String>, Option<SecretString>), String> {
    if text.is_empty() {
        return Ok((None, None));
    }
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decoded = |text: &str| -> Result<Option<String>, String> {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
        let decoded = decoded.map_err(|_| "user and password must be UTF-8".to_owned())?;
        Ok((!decoded.is_empty()).then(|| decoded.into_owned()))
    };
    Ok((decoded(user)?, decoded(password)?.map(SecretString::from)))
}

fn read_path(family: &str, path: &str) -> Result<(StoreKind, i64), String> {
    let path = path.trim_end_matches('/');
    match family {
        "" => Ok((StoreKind::Single, read_database(path)?)),
        "sentinel" => {
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err(
                    "the name under which the Sentinels know the servers is missing, as in \
                            redis+sentinel://host:26379/mymaster"
                        .to_owned(),
                );
            }
            Ok((StoreKind::Sentinel { master: master.to_owned() }, read_database(database)?))
        }
        "cluster" if path.is_empty() => Ok((StoreKind::Cluster, 0)),
        "cluster" => Err("a cluster has no numbered databases: leave the path away".to_owned()),
        _ => Err(wanted()),
    }
}

fn read_database(text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let number: Option<u16> = text.parse().ok();
    number.map(i64::from).ok_or_else(|| "the database is a number, as in redis://host/0".to_owned())
}

fn read_hosts(text: &str, port: u16) -> Result<Vec<(String, u16)>, String> {
    let hosts: Result<Vec<_>, _> = text.split(',').map(|host| read_host(host, port)).collect();
    let hosts = hosts?;
    if hosts.len() > HOSTS_MAX {
        return Err(format!("there are more than {HOSTS_MAX} hosts"));
    }
    Ok(hosts)
}

fn read_host(text: &str, port: u16) -> Result<(String, u16), String> {
    let (host, number) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, number)) => (host, Some(number)),
            None => (text, None),
        },
    };
    let number = number.map_or(Ok(port), |number| {
        number.parse().map_err(|_| "a port is a number up to 65535".to_owned())
    })?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(fits) {
        return Err("a host is a name or an IP address, as in redis://10.0.0.7:6379".to_owned());
    }
    Ok((host.to_owned(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_the_password() {
        for (written, shown) in [
            ("redis://store", "redis://store:6379"),
            ("redis://:s3cret@10.0.0.7:7000/2", "redis://10.0.0.7:7000/2"),
            ("rediss://ali:s3cret@[2001:db8::7]", "rediss://[2001:db8::7]:6379"),
            ("redis+sentinel://a,b:5/main", "redis+sentinel://a:26379,b:5/main"),
            ("rediss+sentinel://u:s3cret@a/main/3", "rediss+sentinel://a:26379/main/3"),
            ("redis+cluster://a:1,b:2,c:3", "redis+cluster://a:1,b:2,c:3"),
        ] {
            let address = StoreAddress::parse(written).unwrap();
            assert_eq!(address.to_string(), shown);
            assert!(!format!("{address:?}").contains("s3cret"), "{address:?}");
        }
    }

    #[test]
    fn passwords_are_percent_decoded() {
        let address = StoreAddress::parse("redis://ali:p%40ss%3A%2F@host").unwrap();
        assert_eq!(address.user.as_deref(), Some("ali"));
        assert_eq!(address.password(), Some("p@ss:/"));
    }

    #[test]
    fn what_is_wrong_is_told_without_repeating_it() {
        for text in [
            "",
            "redis",
            "http://s3cret@host",
            "redis://",
            "redis://a,b",
            "redis://s3cret@h:99999",
            "redis://h/s3cret",
            "redis+sentinel://s3cret@h",
            "redis+cluster://h/1",
            "redis://h:/s3cret",
            "redis+magic://s3cret@h",
            "redis://h?password=s3cret",
            "redis://%ff:s3cret@h",
            "redis:///0",
        ] {
            let sentence = StoreAddress::parse(text).unwrap_err();
            assert!(!sentence.contains("s3cret"), "{text}: {sentence}");
        }
    }
}
