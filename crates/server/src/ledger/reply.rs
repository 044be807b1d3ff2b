//! What scripts answer, read.

use control::{EndCause, ReservationId};
use redis::Value;

use super::record::Record;

/// An answer of a script, see `answer` in `lua/prelude.lua`.
#[derive(Debug)]
pub(super) struct Reply {
    /// The store's time.
    pub(super) now_ms: u64,
    /// When the next lease runs out.
    pub(super) next_expiry_ms: Option<u64>,
    /// Leases that ended without having been named.
    pub(super) told: Vec<Told>,
    /// Which answer it is.
    pub(super) word: String,
    /// What belongs to it.
    pub(super) rest: Values,
}

/// A lease that ended, of whichever node.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) id: ReservationId,
    pub(super) cause: EndCause,
    pub(super) expires_ms: u64,
    pub(super) record: Record,
}

/// Values of a list, one after the other. `None`: it is not there, or of another type.
#[derive(Debug)]
pub(super) struct Values(std::vec::IntoIter<Value>);

impl Values {
    fn of(value: Value) -> Option<Self> {
        if let Value::Array(values) = value { Some(Self(values.into_iter())) } else { None }
    }

    pub(super) fn list(&mut self) -> Option<Self> {
        Self::of(self.0.next()?)
    }

    /// Lists, one after the other, to the end.
    pub(super) fn lists(&mut self) -> Option<Vec<Self>> {
        self.list()?.0.map(Self::of).collect()
    }

    fn told(&mut self) -> Option<Vec<Told>> {
        self.lists()?.into_iter().map(Told::read).collect()
    }

    pub(super) fn text(&mut self) -> Option<String> {
        text(self.0.next()?)
    }

    pub(super) fn texts(&mut self) -> Option<Vec<String>> {
        self.list()?.0.map(text).collect()
    }

    pub(super) fn number<T: TryFrom<i64> + std::str::FromStr>(&mut self) -> Option<T> {
        number(self.0.next()?)
    }

    pub(super) fn numbers<T: TryFrom<i64> + std::str::FromStr>(&mut self) -> Option<Vec<T>> {
        self.list()?.0.map(number).collect()
    }

    /// A number, or an empty text for none.
    pub(super) fn maybe_number(&mut self) -> Option<Option<u64>> {
        let value = self.0.next()?;
        if value == Value::BulkString(Vec::new()) { Some(None) } else { number(value).map(Some) }
    }

    pub(super) fn id(&mut self) -> Option<ReservationId> {
        ReservationId::parse(&self.text()?).ok()
    }

    pub(super) fn record(&mut self) -> Option<Record> {
        Record::parse(&self.text()?)
    }
}

/// What a call answered to one of its operations.
#[derive(Debug)]
pub(super) struct Each {
    /// Leases that it ended, others than the one that it names.
    pub(super) told: Vec<Told>,
    pub(super) word: String,
    pub(super) values: Values,
}

impl Each {
    /// The answers to the operations of a call, in their order, as far as they are understood.
    pub(super) fn of(word: String, mut rest: Values) -> Vec<Self> {
        if word != "each" {
            return vec![Self { told: Vec::new(), word, values: rest }];
        }
        let lists = rest.lists().unwrap_or_default().into_iter();
        lists.map_while(Self::read).collect()
    }

    fn read(mut values: Values) -> Option<Self> {
        Some(Self { told: values.told()?, word: values.text()?, values })
    }
}

impl Reply {
    /// `None`: it is not understood.
    pub(super) fn read(value: Value) -> Option<Self> {
        let mut values = Values::of(value)?;
        let now_ms = values.number()?;
        let next_expiry_ms = values.maybe_number()?;
        let told = values.told()?;
        Some(Self { now_ms, next_expiry_ms, told, word: values.text()?, rest: values })
    }
}

impl Told {
    fn read(mut values: Values) -> Option<Self> {
        let id = values.id()?;
        let cause = cause(&values.text()?, &values.text()?)?;
        Some(Self { id, cause, expires_ms: values.number()?, record: values.record()? })
    }
}

/// Why a lease ended, in the scripts' words.
pub(super) fn cause(word: &str, by: &str) -> Option<EndCause> {
    match word {
        "expired" => Some(EndCause::Expired),
        "preempted" => Some(EndCause::Preempted { by: ReservationId::parse(by).ok()? }),
        "deleted" => Some(EndCause::Deleted),
        "released" => Some(EndCause::ReleasedElsewhere),
        _ => None,
    }
}

fn text(value: Value) -> Option<String> {
    if let Value::Int(number) = value {
        return Some(number.to_string());
    }
    if let Value::BulkString(bytes) = value { String::from_utf8(bytes).ok() } else { None }
}

fn number<T: TryFrom<i64> + std::str::FromStr>(value: Value) -> Option<T> {
    if let Value::Int(number) = value {
        return T::try_from(number).ok();
    }
    text(value)?.parse().ok()
}
