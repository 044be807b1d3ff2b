//! Keys are changed while the server runs: on SIGHUP, and when the config file changes.
//!
//! Of the settings `auth.keys` alone are taken. Settings that are wrong change nothing, and the log says
//! what is wrong with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::app::{App, KeyNumber};
use crate::config::{self, Environment, Flags};
use crate::http::Keyring;

/// Between two looks at the config file. A file is read once it has stayed the same from one look to the
/// next, so that none is read while it is being written.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Reads keys anew.
pub(super) struct Reload {
    hangup: Signal,
    flags: Flags,
    file: Option<PathBuf>,
    keyring: Arc<Keyring>,
    app: App,
}

impl Reload {
    /// From here on SIGHUP does not end the process. `file` is the config file, if there is one.
    pub(super) fn new(
        flags: Flags,
        file: Option<PathBuf>,
        keyring: Arc<Keyring>,
        app: App,
    ) -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("signals cannot be received")?;
        Ok(Self { hangup, flags, file, keyring, app })
    }

    /// Until the server ends.
    pub(super) async fn run(mut self, closing: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut read = Stamp::of(self.file.as_deref());
        let mut seen = read;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                signalled = self.hangup.recv() => {
                    // Without signals there is the file still.
                    if signalled.is_none() {
                        return;
                    }
                    seen = Stamp::of(self.file.as_deref());
                    read = seen;
                    self.reload().await;
                }
                _ = looks.tick() => {
                    let now = Stamp::of(self.file.as_deref());
                    let is_settled = std::mem::replace(&mut seen, now) == now;
                    if is_settled && now != read && now.is_some() {
                        read = now;
                        self.reload().await;
                    }
                }
            }
        }
    }

    async fn reload(&self) {
        let flags = self.flags.clone();
        let load = move || config::load(&flags, &Environment::of_process());
        let loaded = match tokio::task::spawn_blocking(load).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => {
                let reason = error.to_string().replace('\n', "; ");
                tracing::warn!(reason, "the keys stay as they are: the settings are wrong");
                return;
            }
            // The runtime ends.
            Err(_) => return,
        };
        let before = self.keyring.numbered();
        match self.keyring.replace(&loaded.config.auth.keys) {
            Ok(kept) => {
                self.note(&before);
                self.app.keep_keys(kept).await;
                let keys = self.keyring.ids().join(", ");
                tracing::info!(keys, "auth.keys are read, the first signs");
            }
            Err(error) => tracing::warn!(reason = %error, "the keys stay as they are"),
        }
    }

    /// Tells the audit trail which keys came and went, by their ids. A key with another secret did both.
    fn note(&self, before: &[(String, KeyNumber)]) {
        let after = self.keyring.numbered();
        let is_in = |keys: &[(String, KeyNumber)], number| keys.iter().any(|(_, n)| *n == number);
        for (id, _) in before.iter().filter(|(_, number)| !is_in(&after, *number)) {
            self.app.audit().note(ACTOR, "key_removed", id);
        }
        for (id, _) in after.iter().filter(|(_, number)| !is_in(before, *number)) {
            self.app.audit().note(ACTOR, "key_added", id);
        }
    }
}

/// Who changes keys, for the audit trail: whoever may write the file.
const ACTOR: &str = "the settings file";

/// Tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
}

impl Stamp {
    /// `None`: there is no file, or none that may be read.
    fn of(file: Option<&Path>) -> Option<Self> {
        let metadata = std::fs::metadata(file?).ok()?;
        Some(Self { modified: metadata.modified().ok()?, length: metadata.len() })
    }
}
