//! The store of leases, where the settings name one: does it let us in, how fast, what is its time, what may
//! it forget, and is in our keys what we put there.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::Value;

use super::Finding;
use crate::config::Config;
use crate::ledger::LedgerPlace;
use crate::ledger::connection::{Script, Store};

const PART: &str = "store";

/// Milliseconds since the Unix epoch, as the store has them.
const TIME: &str =
    "local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) .. ''";

/// What it tells of itself, as lines of `name:value`.
const ABOUT: &str = "return redis.call('INFO', ARGV[1])";

/// The types of the keys, with spaces between.
const TYPES: &str = "local found = {} \
    for place, key in ipairs(KEYS) do found[place] = redis.call('TYPE', key).ok end \
    return table.concat(found, ' ')";

/// Leases do not mind, for they go by the store's time; people who read logs do.
const APART_MAX: Duration = Duration::from_secs(5);

/// Asked so often; the middle one counts.
const PINGS: usize = 5;

/// A reservation waits for one answer of the store, a heartbeat too.
const LATENCY_GOOD: Duration = Duration::from_millis(10);

/// The oldest Redis that is good; all of Valkey is newer.
const REDIS_MAJOR_MIN: u32 = 7;

/// Keys of ours that are not of a source, with their types.
const KEYS: [(&str, &str); 7] = [
    ("stream:leases", "zset"),
    ("stream:index", "zset"),
    ("stream:records", "hash"),
    ("stream:mirrors", "hash"),
    ("stream:limits", "hash"),
    ("stream:ended", "stream"),
    ("stream:epoch", "string"),
];

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let LedgerPlace::Store { store, .. } = config.store.ledger() else { return Vec::new() };
    let place = store.place();
    let took = match latency(&store).await {
        Ok(took) => took,
        Err(sentence) => {
            let remedy = "start the store, or correct store.url; from containers, 127.0.0.1 is the container itself";
            return vec![Finding::trouble(PART, sentence, remedy)];
        }
    };
    let mut findings = vec![judge_latency(&place, took)];
    if let Some(text) = ask(&store, ABOUT, "server").await {
        findings.push(judge_version(&text));
    }
    if let Some(text) = ask(&store, ABOUT, "memory").await {
        findings.extend(judge_memory(&text));
    }
    findings.extend(judge_way(&place));
    if let Some(text) = ask(&store, TIME, "").await {
        let told = text.parse().ok().map(|ms| UNIX_EPOCH + Duration::from_millis(ms));
        findings.extend(told.map(|told| judge_clock(told, SystemTime::now())));
    }
    findings.extend(keys(config, &store).await);
    findings
}

async fn latency(store: &Store) -> Result<Duration, String> {
    // The first one connects.
    store.ping().await.map_err(|error| error.to_string())?;
    let mut took = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let begun = Instant::now();
        store.ping().await.map_err(|error| error.to_string())?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(took.get(PINGS / 2).copied().unwrap_or_default())
}

/// What a script of one argument answers.
async fn ask(store: &Store, script: &str, argument: &str) -> Option<String> {
    text(store, script, vec![store.key("stream:leases")], vec![argument.as_bytes().to_vec()]).await
}

async fn text(
    store: &Store,
    script: &str,
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
) -> Option<String> {
    let answer = store.eval(&Script::new(script), keys, args).await;
    let Value::BulkString(text) = answer.ok()? else { return None };
    String::from_utf8(text).ok()
}

/// The value of a line of `INFO`.
fn told<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
}

fn judge_latency(place: &str, took: Duration) -> Finding {
    let sentence = format!(
        "the store at {place} lets this machine in and answers within {:.1} ms",
        took.as_secs_f64() * 1e3
    );
    if took <= LATENCY_GOOD {
        return Finding::fine(PART, sentence);
    }
    Finding::note(PART, sentence, "bring it nearer: each reservation and heartbeat waits for it")
}

fn judge_version(text: &str) -> Finding {
    if let Some(version) = told(text, "valkey_version") {
        return Finding::fine(PART, format!("the store is Valkey {version}"));
    }
    let version = told(text, "redis_version").unwrap_or("of an unknown version");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major >= REDIS_MAJOR_MIN) {
        return Finding::fine(PART, format!("the store is Redis {version}"));
    }
    Finding::trouble(
        PART,
        format!("the store is Redis {version}, older than {REDIS_MAJOR_MIN}"),
        "use Valkey, or Redis 7 or newer",
    )
}

fn judge_memory(text: &str) -> Option<Finding> {
    let limit: u64 = told(text, "maxmemory")?.parse().ok()?;
    let used: u64 = told(text, "used_memory")?.parse().ok()?;
    let policy = told(text, "maxmemory_policy")?;
    if limit == 0 || policy == "noeviction" {
        let sentence = format!("the store throws nothing away when memory is short ({policy})");
        let is_near = limit > 0 && used > limit / 10 * 9;
        return Some(if is_near {
            let sentence = format!("the store uses {used} of the {limit} bytes that it may");
            Finding::trouble(PART, sentence, "raise its maxmemory, or free what else is in it")
        } else {
            Finding::fine(PART, sentence)
        });
    }
    Some(Finding::note(
        PART,
        format!("the store may throw leases away when it is full: maxmemory-policy is {policy}"),
        "CONFIG SET maxmemory-policy noeviction; leases that it forgot are put back, and counts are wrong until then",
    ))
}

/// Whether others on the way can read along.
fn judge_way(place: &str) -> Option<Finding> {
    let (scheme, hosts) = place.split_once("://")?;
    let is_near =
        |host: &str| ["127.", "localhost", "[::1]"].iter().any(|own| host.starts_with(own));
    if scheme.starts_with("rediss") || scheme.starts_with("valkeys") {
        return Some(Finding::fine(PART, "the way to the store is encrypted"));
    }
    let hosts = hosts.split('/').next().unwrap_or(hosts);
    (!hosts.split(',').all(is_near)).then(|| {
        Finding::note(
            PART,
            "the way to the store is not encrypted: its password and who watches what can be read on the way",
            "write store.url with rediss://, or keep the way inside one network of yours",
        )
    })
}

fn judge_clock(told: SystemTime, now: SystemTime) -> Finding {
    let apart = told.duration_since(now).unwrap_or_else(|before| before.duration());
    if apart <= APART_MAX {
        let sentence = "the store's clock and this machine's agree";
        return Finding::fine(PART, format!("{sentence} within {} ms", apart.as_millis()));
    }
    let sentence = format!(
        "the store's clock and this machine's are {} s apart; leases go by the store's",
        apart.as_secs()
    );
    Finding::note(PART, sentence, "let both follow a time server (chrony, systemd-timesyncd)")
}

/// Keys that hold what somebody else put there.
async fn keys(config: &Config, store: &Store) -> Vec<Finding> {
    let of_sources = config.sources.iter().flat_map(|source| {
        ["count", "limit"].map(|kind| (format!("stream:{kind}:{}", source.id), "string"))
    });
    let ours: Vec<(String, &str)> =
        KEYS.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).chain(of_sources).collect();
    let names: Vec<String> = ours.iter().map(|(name, _)| store.key(name)).collect();
    let Some(types) = text(store, TYPES, names.clone(), Vec::new()).await else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for ((name, (_, wanted)), found) in names.iter().zip(&ours).zip(types.split(' ')) {
        if found != "none" && found != *wanted {
            findings.push(Finding::trouble(
                PART,
                format!("the key {name} in the store is a {found}, and ought to be a {wanted}"),
                "DEL it, or set store.prefix where others use the same store; a running server puts it aside by itself",
            ));
        }
    }
    if findings.is_empty() {
        let sentence = "what is in the store's keys is what this server puts there";
        findings.push(Finding::fine(PART, sentence));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[tokio::test]
    async fn a_store_that_is_not_there_is_trouble_without_its_password() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let settings = format!("[store]\nurl = \"redis://:canary@{address}\"");
        let found = check(&crate::config::from_toml(&settings)).await;
        assert_eq!((found.len(), found[0].level), (1, Level::Trouble), "{found:?}");
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");
        assert!(check(&crate::config::from_toml("")).await.is_empty());
    }

    #[test]
    fn clocks_that_are_apart_are_worth_a_note() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(judge_clock(now + APART_MAX, now).level, Level::Fine);
        assert_eq!(judge_clock(now - Duration::from_secs(600), now).level, Level::Note);
    }

    #[test]
    fn old_versions_are_trouble() {
        let of = |text: &str| judge_version(text).level;
        assert_eq!(of("# Server\r\nredis_version:7.0.15\r\n"), Level::Fine);
        assert_eq!(of("redis_version:6.2.14\r\n"), Level::Trouble);
        let valkey = judge_version("redis_version:7.2.4\r\nvalkey_version:8.1.0\r\n");
        assert_eq!(
            (valkey.level, valkey.sentence.as_str()),
            (Level::Fine, "the store is Valkey 8.1.0")
        );
    }

    #[test]
    fn a_store_that_forgets_and_one_that_is_nearly_full_are_told() {
        let of = |limit: u64, used: u64, policy: &str| {
            let text =
                format!("used_memory:{used}\r\nmaxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n");
            judge_memory(&text).unwrap().level
        };
        assert_eq!(of(0, 99, "allkeys-lru"), Level::Fine);
        assert_eq!(of(100, 10, "noeviction"), Level::Fine);
        assert_eq!(of(100, 10, "volatile-ttl"), Level::Note);
        assert_eq!(of(1_000, 950, "noeviction"), Level::Trouble);
    }

    #[test]
    fn a_way_without_tls_is_worth_a_note_beyond_this_machine() {
        let of = |place: &str| judge_way(place).map(|found| found.level);
        assert_eq!(of("redis://127.0.0.1:6379"), None);
        assert_eq!(of("redis://127.0.0.1:1,192.0.2.7:2/main"), Some(Level::Note));
        assert_eq!(of("rediss://192.0.2.7:6379"), Some(Level::Fine));
    }
}
