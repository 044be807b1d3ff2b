//! A life as rows of the audit trail.

use super::{Life, Step};
use crate::audit::{Kind, Row, RowStep};

impl Life {
    /// It was granted.
    pub(super) fn begun(&self) -> Row {
        Row { action: "watch".to_owned(), ..self.row(Kind::Begun) }
    }

    /// It was refused.
    pub(super) fn refused(&self) -> Row {
        Row { action: "watch".to_owned(), ..self.whole(Kind::Refused) }
    }

    /// It is over.
    pub(super) fn ended(&self) -> Row {
        Row {
            action: "watch".to_owned(),
            from: Some(self.began),
            to: self.ended,
            packets: self.sent.packets,
            bytes: self.sent.octets,
            ..self.whole(Kind::Ended)
        }
    }

    /// With all its steps, and the last one's reason.
    fn whole(&self, kind: Kind) -> Row {
        let reason = |step: &Step| matches!(step, Step::Ended(_) | Step::Refused(_));
        let reason = self.newest(reason).map(|moment| moment.step.detail()).unwrap_or_default();
        let steps = self.steps.iter().map(|moment| RowStep {
            at: moment.at,
            word: moment.step.word().to_owned(),
            detail: moment.step.detail(),
        });
        let steps_omitted = self.steps_omitted.into();
        Row { reason, steps: steps.collect(), steps_omitted, ..self.row(kind) }
    }

    fn row(&self, kind: Kind) -> Row {
        let source = self.source.as_ref().map(ToString::to_string).unwrap_or_default();
        Row {
            actor: self.user.clone(),
            object: self.camera.to_string(),
            camera: self.camera.to_string(),
            source,
            ..Row::new(kind).of(&self.id)
        }
    }
}
