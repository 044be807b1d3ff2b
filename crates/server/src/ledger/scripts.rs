//! The scripts that the store executes. What they share stands before each.

use std::sync::LazyLock;

use super::connection::Script;

/// All of them.
pub(super) struct Scripts {
    pub(super) operate: Script,
    pub(super) media_seen: Script,
    pub(super) expire: Script,
    pub(super) count: Script,
    pub(super) snapshot: Script,
    pub(super) census: Script,
    pub(super) audit: Script,
    pub(super) restore: Script,
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
    let script = |body: &str| Script::new(format!("{}{body}", include_str!("lua/prelude.lua")));
    Scripts {
        operate: script(include_str!("lua/operate.lua")),
        media_seen: script(include_str!("lua/media_seen.lua")),
        expire: script(include_str!("lua/expire.lua")),
        count: script(include_str!("lua/count.lua")),
        snapshot: script(include_str!("lua/snapshot.lua")),
        census: script(include_str!("lua/census.lua")),
        audit: script(include_str!("lua/audit.lua")),
        restore: script(include_str!("lua/restore.lua")),
    }
});
