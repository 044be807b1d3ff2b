//! Questions of one node to another: a text there, a text back, within a second.
//!
//! What is asked is not known here: `http/node` has the questions, and answers those of others. A node that
//! does not answer is named with the reason, so that whoever asked can say what is missing from his answer.

use std::time::Duration;

use control::ReservationId;
use hyper::Method;

use super::{Cluster, Peer};
use crate::ledger::connection::StoreError;
use crate::ledger::{self, Leaseholder};
use crate::remote::{Ask, NODE_GIVE_CA, RemoteError, disbelief};

/// How long another node may take to answer. It takes milliseconds; whoever asks a server that has died
/// waits for this long before he is told so.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a node that is gone is still named to those who ask all. Lives of its viewers are looked for
/// hours later, but by then people know that it is gone.
pub(super) const GONE_KEPT: Duration = Duration::from_secs(600);

/// Where questions go; no camera's stream is called so.
const PLACE: &str = "ask";

/// What the nodes said.
#[derive(Debug)]
pub(crate) struct Asked<A> {
    /// Who answered what, by name.
    pub(crate) answers: Vec<(String, A)>,
    /// Who did not, by name.
    pub(crate) silent: Vec<Silent>,
}

impl<A> Asked<A> {
    /// Of a server that is alone.
    pub(crate) const fn nobody() -> Self {
        Self { answers: Vec::new(), silent: Vec::new() }
    }
}

/// A node that did not answer.
#[derive(Debug, thiserror::Error)]
#[error("node {node} did not answer: {reason}")]
pub(crate) struct Silent {
    pub(crate) node: String,
    pub(crate) reason: SilentReason,
}

/// Why a node did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SilentReason {
    /// It does not say any more that it is there.
    #[error("it is gone since {} s", since.as_secs())]
    Gone {
        /// For how long.
        since: Duration,
    },
    /// No node of this name was ever there.
    #[error("nobody has seen it")]
    Unknown,
    /// What it told of its address is none.
    #[error("its address cannot be asked")]
    Address,
    /// It was asked in vain.
    #[error(transparent)]
    Remote(RemoteError),
    /// What it shows by HTTPS is of no authority that is believed, or of another server.
    #[error("it is not believed: {0}")]
    Untrusted(String),
    /// It answered what is no answer to the question.
    #[error("its answer is not understood: {0}")]
    Garbled(String),
}

impl SilentReason {
    fn of(error: RemoteError) -> Self {
        let untrusted = match &error {
            RemoteError::Unreachable { reason, .. } => disbelief(reason, NODE_GIVE_CA),
            RemoteError::Scheme(_)
            | RemoteError::Cut { .. }
            | RemoteError::Late { .. }
            | RemoteError::Refused { .. } => None,
        };
        untrusted.map_or(Self::Remote(error), Self::Untrusted)
    }
}

/// What opens the place of questions for this one: with the question in it, so that who reads a request can
/// repeat that one and make no other.
pub(super) fn place_of(question: &str) -> String {
    format!("{PLACE}\n{question}")
}

impl Cluster {
    /// Asks all other nodes at once. Those that were there a while ago and are gone are among the silent.
    pub(crate) async fn ask_all(&self, question: &str) -> Asked<String> {
        let (peers, gone) = self.peers(|peers| {
            let there: Vec<Peer> = peers.by_name.values().cloned().collect();
            (there, peers.gone.clone())
        });
        let asked = peers.iter().map(|peer| async move { (peer, peer.ask(question).await) });
        let mut all = Asked::nobody();
        for (peer, answer) in futures::future::join_all(asked).await {
            let node = peer.name.clone();
            match answer {
                Ok(answer) => all.answers.push((node, answer)),
                Err(reason) => all.silent.push(Silent { node, reason }),
            }
        }
        let silent = gone.into_iter().map(|(node, since)| Silent {
            node,
            reason: SilentReason::Gone { since: since.elapsed() },
        });
        all.silent.extend(silent);
        all
    }

    /// Asks one other node.
    pub(crate) async fn ask(&self, node: &str, question: &str) -> Result<String, Silent> {
        let found = self.peers(|peers| match (peers.by_name.get(node), peers.gone.get(node)) {
            (Some(peer), _) => Ok(peer.clone()),
            (None, Some(since)) => Err(SilentReason::Gone { since: since.elapsed() }),
            (None, None) => Err(SilentReason::Unknown),
        });
        let answer = match found {
            Ok(peer) => peer.ask(question).await,
            Err(reason) => Err(reason),
        };
        answer.map_err(|reason| Silent { node: node.to_owned(), reason })
    }

    /// Whose a reservation is, as the store tells it.
    pub(crate) async fn holder_in_store(
        &self,
        id: &ReservationId,
    ) -> Result<Option<Leaseholder>, StoreError> {
        ledger::look_up(&self.0.settings.store, id).await
    }

    /// This node's name.
    pub(crate) fn name(&self) -> &str {
        &self.0.settings.node
    }

    /// Whether the bearer `token` was made for this very question to this node.
    pub(crate) fn admits_question(&self, token: &str, question: &str) -> bool {
        self.admits(token, &place_of(question))
    }
}

impl Peer {
    async fn ask(&self, question: &str) -> Result<String, SilentReason> {
        let url = self.url.join(&format!("/node/{PLACE}")).map_err(|_| SilentReason::Address)?;
        let token = Cluster::token(&self.secret, &place_of(question)).into();
        let ask = Ask {
            method: Method::POST,
            url: &url,
            content_type: Some("application/json"),
            token: Some(&token),
            body: question.to_owned(),
        };
        let answer = self.client(ANSWER_TIME_MAX).ask(&ask).await;
        answer.map(|answer| answer.body).map_err(SilentReason::of)
    }
}
