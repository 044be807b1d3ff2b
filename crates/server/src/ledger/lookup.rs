//! One lease as the store has it, for whoever does not have its session.

use std::sync::LazyLock;

use control::{CameraId, ReservationId, SourceId};
use redis::Value;

use super::connection::{Script, Store, StoreError};
use super::record::Record;

/// Answers the record of a lease that lives; false where there is none.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expires = redis.call('ZSCORE', KEYS[1], ARGV[1])
return expires and tonumber(expires) > now and redis.call('HGET', KEYS[2], ARGV[1])",
    )
});

/// Whose a lease is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaseholder {
    pub(crate) user: String,
    pub(crate) camera: CameraId,
    pub(crate) source: SourceId,
}

/// Whose a lease is that lives in the store; `None`: there is no such lease.
pub(crate) async fn look_up(
    store: &Store,
    id: &ReservationId,
) -> Result<Option<Leaseholder>, StoreError> {
    let keys = ["stream:leases", "stream:records"].map(|key| store.key(key)).to_vec();
    let answer = store.eval(&SCRIPT, keys, vec![id.as_str().as_bytes().to_vec()]).await?;
    let Value::BulkString(bytes) = answer else { return Ok(None) };
    let record = String::from_utf8(bytes).ok().and_then(|text| Record::parse(&text));
    Ok(record.map(Record::into_holder))
}
