//! `GET /api/v1/audit`: rows of the audit trail as JSON or CSV, and whether they are what was written.

use axum::Json;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use control::{SourceId, Timestamp};

use super::Http;
use super::auth::GrantError;
use super::caller::{Caller, Role};
use super::extract::Params;
use super::problem::Problem;
use super::trace::{unreadable, written};
use super::wire::audit::{AuditAnswer, AuditParams, AuditRow, VerifyAnswer, VerifyParams};
use crate::audit::{Answer, Found, Kind, Query, Verdict, hex};

/// Rows of one answer, where no number is asked for and at most: 4 MB of JSON.
const ROWS_USUAL: usize = 1_000;
const ROWS_MAX: usize = 10_000;

/// From which row on an answer in CSV is to be continued, where there are more.
const NEXT_AFTER: HeaderName = HeaderName::from_static("x-next-after");

const CSV: &str = "text/csv";

/// The names of the columns, in the order of [`cells`].
const COLUMNS: &str = "number,at,kind,actor,action,object,camera_id,source,reservation_id,from,to,packets_sent,\
                       bytes_sent,reason,count,hash";

#[utoipa::path(
    get,
    path = "/api/v1/audit",
    tag = "operations",
    summary = "Who watched what, and who changed what",
    params(AuditParams),
    responses(
        (status = 200, description = "Rows, the oldest first. With `Accept: text/csv` as CSV, where the header \
         `x-next-after` says that there are more", body = AuditAnswer),
        (status = 400, description = "Something in the query is not what it must be"),
        (status = 503, description = "The audit trail cannot be read"),
    ),
)]
pub(super) async fn rows(
    State(http): State<Http>,
    caller: Caller,
    headers: HeaderMap,
    Params(params): Params<AuditParams>,
) -> Result<Response, Problem> {
    if caller.role() < Role::Operator {
        return Err(GrantError::NotAnOperator.into());
    }
    let mut answer = http.app().audit().find(query(&params)?).await.map_err(unreadable)?;
    if !caller.reads_all() {
        let is_his = |source: SourceId| caller.may_read(&source);
        answer.rows.retain(|found| SourceId::parse(&found.row.source).is_ok_and(is_his));
    }
    if wants_csv(&headers, params.format.as_deref())? {
        return Ok(csv_answer(&answer));
    }
    let rows = answer.rows.iter().map(row).collect();
    Ok(Json(AuditAnswer { rows, next_after: answer.next }).into_response())
}

#[utoipa::path(
    get,
    path = "/api/v1/audit/verify",
    tag = "operations",
    summary = "Whether the audit trail is what was written",
    params(VerifyParams),
    responses(
        (status = 200, description = "The verdict", body = VerifyAnswer),
        (status = 400, description = "`head` is not a row and its hash"),
        (status = 404, description = "There is no audit trail"),
        (status = 503, description = "The audit trail cannot be read"),
    ),
)]
pub(super) async fn verify(
    State(http): State<Http>,
    caller: Caller,
    Params(VerifyParams { head }): Params<VerifyParams>,
) -> Result<Json<VerifyAnswer>, Problem> {
    caller.require_admin()?;
    let wrong = |error: &'static str| Problem::bad_request(format!("head: {error}"));
    let noted = head.as_deref().map(str::parse).transpose().map_err(wrong)?;
    let verdict = http.app().audit().verify(noted).await.map_err(unreadable)?;
    let none =
        || Problem::not_found("there is no audit trail: nothing was ever written, or it is off");
    Ok(Json(verdict_answer(verdict.ok_or_else(none)?)))
}

fn wants_csv(headers: &HeaderMap, format: Option<&str>) -> Result<bool, Problem> {
    match format {
        Some("csv") => Ok(true),
        Some("json") => Ok(false),
        Some(_) => Err(Problem::bad_request("format must be json or csv")),
        None => {
            let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
            Ok(accepted.unwrap_or_default().contains(CSV))
        }
    }
}

fn verdict_answer(verdict: Verdict) -> VerifyAnswer {
    let nothing = VerifyAnswer {
        whole: false,
        rows: None,
        removed: None,
        head: None,
        broken_at: None,
        why: None,
    };
    match verdict {
        Verdict::Whole { rows, removed, head } => VerifyAnswer {
            whole: true,
            rows: Some(rows),
            removed: Some(removed),
            head: Some(head.to_string()),
            ..nothing
        },
        Verdict::Broken { number, why } => {
            VerifyAnswer { broken_at: Some(number), why: Some(why), ..nothing }
        }
    }
}

fn query(params: &AuditParams) -> Result<Query, Problem> {
    let kinds = params.kind.as_deref().unwrap_or_default();
    let kinds = kinds.split(',').map(str::trim).filter(|word| !word.is_empty()).map(kind);
    Ok(Query {
        camera: params.camera.clone().unwrap_or_default(),
        user: params.user.clone().unwrap_or_default(),
        sources: params.source.clone().into_iter().collect(),
        kinds: kinds.take(Kind::ALL.len()).collect::<Result<_, _>>()?,
        from: params.from.as_deref().map(|text| time("from", text)).transpose()?,
        to: params.to.as_deref().map(|text| time("to", text)).transpose()?,
        after: params.after.unwrap_or_default(),
        limit: params.limit.unwrap_or(ROWS_USUAL).clamp(1, ROWS_MAX),
    })
}

fn kind(word: &str) -> Result<Kind, Problem> {
    Kind::parse(word).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::word).join(", ");
        Problem::bad_request(format!("kind must be some of {known}"))
    })
}

/// `2026-11-22T10:00:00Z`, or a date, which is its first moment in UTC.
fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let at = humantime::parse_rfc3339_weak(text)
        .or_else(|_| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")));
    let at = at.ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    at.map(|since_epoch| Timestamp::ZERO + since_epoch).ok_or_else(|| {
        Problem::bad_request(format!("{name} must be a time like 2026-11-22T10:00:00Z, or a date"))
    })
}

fn row(found: &Found) -> AuditRow {
    let Found { number, hash, row } = found;
    AuditRow {
        number: *number,
        at: written(row.at),
        kind: row.kind.word(),
        actor: row.actor.clone(),
        action: row.action.clone(),
        object: row.object.clone(),
        camera_id: row.camera.clone(),
        source: row.source.clone(),
        reservation_id: row.reservation.clone(),
        from: row.from.map(written),
        to: row.to.map(written),
        packets_sent: row.packets,
        bytes_sent: row.bytes,
        reason: row.reason.clone(),
        count: row.count,
        hash: hex(hash),
    }
}

fn csv_answer(answer: &Answer) -> Response {
    let mut text = format!("{COLUMNS}\r\n");
    for found in &answer.rows {
        text.push_str(&cells(&row(found)).join(","));
        text.push_str("\r\n");
    }
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    headers.insert(
        CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"audit.csv\""),
    );
    if let Some(next) = answer.next {
        headers.insert(NEXT_AFTER, HeaderValue::from(next));
    }
    response
}

fn cells(row: &AuditRow) -> [String; 16] {
    let time = |at: &Option<String>| at.clone().unwrap_or_default();
    [
        row.number.to_string(),
        row.at.clone(),
        row.kind.to_owned(),
        cell(&row.actor),
        cell(&row.action),
        cell(&row.object),
        cell(&row.camera_id),
        cell(&row.source),
        cell(&row.reservation_id),
        time(&row.from),
        time(&row.to),
        row.packets_sent.to_string(),
        row.bytes_sent.to_string(),
        cell(&row.reason),
        row.count.to_string(),
        row.hash.clone(),
    ]
}

/// A text as RFC 4180 has it. Spreadsheets take one for a formula that begins as formulas do, and users
/// choose their names: a quote before it makes it a text.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_that_look_like_formulas_are_texts() {
        for (text, wanted) in [
            ("amal", "amal"),
            ("=1+1", "'=1+1"),
            ("+971", "'+971"),
            ("-2", "'-2"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
            ("", ""),
        ] {
            assert_eq!(cell(text), wanted);
        }
    }

    proptest! {
        #[test]
        fn no_cell_breaks_out_of_its_row(text in "[a-z=@+,\"\r\n'\t-]{0,20}") {
            let cell = cell(&text);
            let inner = match cell.strip_prefix('"') {
                Some(rest) => rest.strip_suffix('"').unwrap().replace("\"\"", "\u{1}"),
                None => {
                    prop_assert!(!cell.contains([',', '\r', '\n']));
                    cell.clone()
                }
            };
            prop_assert!(!inner.contains('"'), "a quote stands alone in {}", cell);
            let read = inner.replace('\u{1}', "\"");
            let kept = format!("'{text}");
            prop_assert!(read == text || read == kept);
            prop_assert!(!read.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']));
        }
    }

    #[test]
    fn times_are_moments_or_dates() {
        let day = time("from", "2026-11-22").unwrap();
        assert_eq!(time("from", "2026-11-22T00:00:00Z").unwrap(), day);
        assert_eq!(written(day), "2026-11-22T00:00:00.000Z");
        for wrong in ["", "yesterday", "2026-13-01", "22.11.2026"] {
            assert!(time("from", wrong).is_err(), "{wrong}");
        }
    }
}
