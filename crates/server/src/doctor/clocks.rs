//! This machine's clock beside the server's: tokens are good from a time to a time.

use std::time::{Duration, SystemTime};

use hyper::header::DATE;

use super::{Finding, RunningServer};
use crate::remote::Ask;

const PART: &str = "clock";

/// `Date` has whole seconds and was written up to a round trip ago; tokens allow for 10 s.
const APART_MAX: Duration = Duration::from_secs(3);

pub(super) async fn check(server: &mut RunningServer) -> Option<Finding> {
    let url = server.base.join("/health").ok()?;
    let ask = Ask {
        method: hyper::Method::GET,
        url: &url,
        content_type: None,
        token: None,
        body: String::new(),
    };
    let answer = server.http.ask_for_any(&ask).await.ok()?;
    let told = answer.header(DATE).and_then(read_date)?;
    Some(judge(told, SystemTime::now()))
}

fn judge(told: SystemTime, now: SystemTime) -> Finding {
    let apart = told.duration_since(now).unwrap_or_else(|before| before.duration());
    let seconds = apart.as_secs();
    if apart <= APART_MAX {
        return Finding::fine(PART, "the server's clock and this machine's agree");
    }
    Finding::trouble(
        PART,
        format!(
            "the server's clock and this machine's are {seconds} s apart: tokens made here are refused there"
        ),
        "let both follow a time server (chrony, systemd-timesyncd)",
    )
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn read_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day:0>2}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn the_date_of_the_rfc_is_read_and_nonsense_is_not() {
        let read = read_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let since = read.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), 784_111_777);
        for wrong in ["", "yesterday", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994"] {
            assert_eq!(read_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn clocks_that_are_minutes_apart_are_trouble_in_either_direction() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let ten = Duration::from_secs(600);
        assert_eq!(judge(now + Duration::from_secs(2), now).level, Level::Fine);
        for told in [now + ten, now - ten] {
            let found = judge(told, now);
            assert_eq!(found.level, Level::Trouble);
            assert!(found.sentence.contains("600 s apart"), "{}", found.sentence);
        }
    }
}
