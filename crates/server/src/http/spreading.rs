//! Cameras and layouts that are changed over the API reach all nodes of the cluster.
//!
//! Each node asks each other what was written since it asked last: stamps first, then the records that are
//! later than its own, which come under seal. What was learned is kept in this node's database and passed on
//! like what was written here, so that a node is reached by way of any other. The store takes no part in it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Http;
use super::layouts::unkept;
use super::problem::Problem;
use super::wire::nodes::{
    ChangesAnswer, ChangesQuestion, RecordKind, RecordsAnswer, RecordsQuestion,
};
use crate::cluster::{Silent, SilentReason};
use crate::config::{Carried, CarriedRecords, StoredStamp};

/// From one question to the next: with the ways there and back, a change is everywhere within a second.
const ASK_INTERVAL: Duration = Duration::from_millis(400);

/// Records in one question. One is 800 bytes at most, and each is sealed twice; a node has a second to answer.
const RECORDS_A_QUESTION: usize = 250;

/// Pages that are read before it is waited again: more than a node has records. It ends with what tells the
/// same over and over.
const PAGES_A_ROUND: usize = 64;

const KINDS: [RecordKind; 2] = [RecordKind::Cameras, RecordKind::Layouts];

/// Why another node's writes are not here.
#[derive(Debug, thiserror::Error)]
enum SpreadError {
    #[error(transparent)]
    Silent(#[from] Silent),
    #[error(
        "what node {node} has cannot be opened: it is sealed with the key {key:?}, and auth.keys of this node has \
         none of that name; give all nodes the same keys"
    )]
    NoKey { node: String, key: String },
    #[error(
        "what node {node} has cannot be opened; give all nodes the same auth.keys, the same secrets under the \
         same names"
    )]
    Sealed { node: String },
    #[error(
        "what node {node} has is not understood; give all nodes the same version of the program"
    )]
    Garbled { node: String },
    #[error("what node {node} has cannot be kept here: {reason}")]
    Unkept { node: String, reason: String },
}

/// Where the questions to one node go on.
struct Cursor {
    kind: RecordKind,
    epoch: String,
    place: u64,
}

/// Follows the other nodes until the server ends. Nothing to do where it is alone.
pub(crate) async fn spread(http: Http, closing: CancellationToken) {
    let Some(cluster) = http.app().cluster().cloned() else { return };
    let mut ticks = interval(ASK_INTERVAL);
    // One each, so that none waits for one that is slow. Bounded by the nodes.
    let mut followers: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            _ = ticks.tick() => {}
        }
        followers.retain(|_, follower| !follower.is_finished());
        for node in cluster.others() {
            let follow = || tokio::spawn(follow(http.clone(), node.clone())).abort_handle();
            followers.entry(node.clone()).or_insert_with(follow);
        }
    }
    followers.into_values().for_each(|follower| follower.abort());
}

/// Asks one node as long as it is there.
async fn follow(http: Http, node: String) {
    let mut cursors = KINDS.map(|kind| Cursor { kind, epoch: String::new(), place: 0 });
    let mut ticks = interval(ASK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = String::new();
    loop {
        ticks.tick().await;
        for cursor in &mut cursors {
            let sentence = match http.read_on(&node, cursor).await {
                Ok(()) => String::new(),
                Err(SpreadError::Silent(Silent {
                    reason: SilentReason::Gone { .. } | SilentReason::Unknown,
                    ..
                })) => return,
                // It is told as missing elsewhere.
                Err(SpreadError::Silent(_)) => break,
                Err(error) => error.to_string(),
            };
            if !sentence.is_empty() && sentence != said {
                warn!(%node, "cameras and layouts do not reach this node: {sentence}");
            }
            if !sentence.is_empty() {
                said = sentence;
                break;
            }
        }
    }
}

impl Http {
    /// Reads all that is new at `node`. What fails is read again the next time.
    async fn read_on(&self, node: &str, cursor: &mut Cursor) -> Result<(), SpreadError> {
        let kind = cursor.kind;
        for _ in 0..PAGES_A_ROUND {
            let (epoch, place) = (cursor.epoch.clone(), cursor.place);
            let changes = self.ask_node(node, ChangesQuestion { kind, epoch, place }).await?;
            let ChangesAnswer { epoch, place, stamps } = changes;
            if !stamps.is_empty() {
                self.learn(node, kind, stamps).await?;
            }
            let is_all = cursor.epoch == epoch && cursor.place == place;
            (cursor.epoch, cursor.place) = (epoch, place);
            if is_all {
                break;
            }
        }
        Ok(())
    }

    async fn learn(
        &self,
        node: &str,
        kind: RecordKind,
        stamps: Vec<(String, StoredStamp)>,
    ) -> Result<(), SpreadError> {
        let wanted = match kind {
            RecordKind::Cameras => self.park().wanted(stamps),
            RecordKind::Layouts => self.layouts().wanted(stamps),
        };
        for ids in wanted.chunks(RECORDS_A_QUESTION) {
            let answer = self.ask_node(node, RecordsQuestion { kind, ids: ids.to_vec() }).await?;
            let mut records = self.open(node, answer)?;
            // More was not asked for.
            records.truncate(RECORDS_A_QUESTION);
            let missing = ids.len().saturating_sub(records.len());
            let learned = match kind {
                RecordKind::Cameras => self.park().learn(records).await.map_err(|e| e.to_string()),
                RecordKind::Layouts => {
                    self.layouts().learn(records).await.map_err(|e| e.to_string())
                }
            };
            let unkept = |reason| SpreadError::Unkept { node: node.to_owned(), reason };
            let learned = learned.map_err(unkept)?;
            if missing > 0 {
                warn!(%node, missing, "records are left out that the other node cannot read itself; see its log");
            }
            info!(%node, learned, ?kind, "records are as another node has them");
            if let Some(cluster) = self.app().cluster() {
                cluster.count_records(learned, missing);
            }
        }
        Ok(())
    }

    fn open(&self, node: &str, answer: RecordsAnswer) -> Result<Vec<Carried>, SpreadError> {
        let RecordsAnswer { key: id, sealed } = answer;
        let named = || node.to_owned();
        let key = match id {
            None => None,
            Some(id) => {
                let key = self.keyring().secret_of(&id);
                Some(key.ok_or_else(|| SpreadError::NoKey { node: named(), key: id })?)
            }
        };
        let opened =
            self.app().cluster().and_then(|cluster| cluster.open(node, key.as_ref(), &sealed));
        let opened = opened.ok_or_else(|| SpreadError::Sealed { node: named() })?;
        let records = CarriedRecords::from_bytes(&opened);
        Ok(records.ok_or_else(|| SpreadError::Garbled { node: named() })?.0)
    }
}

/// What another node asks of this one's order.
pub(super) fn changes_here(http: &Http, question: &ChangesQuestion) -> ChangesAnswer {
    let ChangesQuestion { kind, epoch, place } = question;
    let changes = match kind {
        RecordKind::Cameras => http.park().changes(epoch, *place),
        RecordKind::Layouts => http.layouts().changes(epoch, *place),
    };
    ChangesAnswer { epoch: changes.epoch, place: changes.place, stamps: changes.stamps }
}

/// This node's records, under seal.
pub(super) async fn records_here(
    http: &Http,
    question: RecordsQuestion,
) -> Result<RecordsAnswer, Problem> {
    let RecordsQuestion { kind, mut ids } = question;
    // More is asked by nobody.
    ids.truncate(RECORDS_A_QUESTION);
    let records = match kind {
        RecordKind::Cameras => http.park().carried(ids).await?,
        RecordKind::Layouts => http.layouts().carried(ids).await.map_err(|error| unkept(&error))?,
    };
    let (id, key) = http.keyring().configured().unzip();
    let bytes = CarriedRecords(records).to_bytes();
    let sealed = http.app().cluster().and_then(|cluster| cluster.seal(key.as_ref(), &bytes));
    Ok(RecordsAnswer { key: id, sealed: sealed.ok_or_else(Problem::shutting_down)? })
}
