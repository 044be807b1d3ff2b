//! The store of leases, where the settings name one: does it let us in, and what is its time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Value;

use super::Finding;
use crate::config::Config;
use crate::ledger::LedgerPlace;
use crate::ledger::connection::{Script, Store};

const PART: &str = "store";

/// Seconds since the Unix epoch, as the store has them.
const TIME: &str = "return redis.call('TIME')[1]";

/// Leases do not mind, for they go by the store's time; people who read logs do.
const APART_MAX: Duration = Duration::from_secs(5);

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let LedgerPlace::Store { store, .. } = config.store.ledger() else { return Vec::new() };
    let place = store.place();
    if let Err(error) = store.ping().await {
        let remedy = "start the store, or correct store.url; from containers, 127.0.0.1 is the container itself";
        return vec![Finding::trouble(PART, error.to_string(), remedy)];
    }
    let reached = Finding::fine(PART, format!("the store at {place} lets this machine in"));
    std::iter::once(reached).chain(clock(&store, SystemTime::now()).await).collect()
}

async fn clock(store: &Store, now: SystemTime) -> Option<Finding> {
    let answer = store.eval(&Script::new(TIME), Vec::new(), Vec::new()).await.ok()?;
    let Value::BulkString(seconds) = answer else { return None };
    let seconds: u64 = std::str::from_utf8(&seconds).ok()?.parse().ok()?;
    Some(judge(UNIX_EPOCH + Duration::from_secs(seconds), now))
}

fn judge(told: SystemTime, now: SystemTime) -> Finding {
    let apart = told.duration_since(now).unwrap_or_else(|before| before.duration());
    if apart <= APART_MAX {
        return Finding::fine(PART, "the store's clock and this machine's agree");
    }
    let sentence = format!(
        "the store's clock and this machine's are {} s apart; leases go by the store's",
        apart.as_secs()
    );
    Finding::note(PART, sentence, "let both follow a time server (chrony, systemd-timesyncd)")
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
        assert_eq!(judge(now + APART_MAX, now).level, Level::Fine);
        assert_eq!(judge(now - Duration::from_secs(600), now).level, Level::Note);
    }
}
