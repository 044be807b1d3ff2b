//! Cameras as people write them: in the settings file, and in what the API is sent. The rules are the same
//! for both, and all that is wrong is told at once.

use std::collections::HashSet;

use control::{CameraId, SourceId};

use super::reader::{Section, Setting, text};
use super::tree::{Node, Origin, Problem, Value};
use super::{CLOSE_AFTER, Camera, Name, Source, shipped};
use crate::ingest::{Reach, RtspTransport, SourceUrl};

/// The columns of a table of cameras, by the names of their settings.
const COLUMNS: [&str; 10] = [
    "id",
    "name",
    "name_ar",
    "location",
    "source",
    "url",
    "sub_url",
    "transport",
    "on_demand",
    "close_after",
];

/// What the API's own answer says beside the settings. It is passed over, so that an answer may be sent
/// back with a change in it.
const ANSWERED: [&str; 18] = [
    "origin",
    "has_credentials",
    "has_sub",
    "synthetic",
    "status",
    "state",
    "reason",
    "retry_in_s",
    "probed_at",
    "viewer_count",
    "active_since",
    "codec",
    "width",
    "height",
    "audio",
    "pullers",
    "pulls_started",
    "renditions",
];

/// All that is wrong with something.
pub(crate) type Problems = Vec<Problem>;

/// A camera that somebody sent, not read yet. Not `Debug`: it may hold secrets.
pub(crate) struct Row {
    number: usize,
    node: Node,
}

/// The cameras of a JSON list, counted from 1.
pub(crate) fn rows_of_json(text: &str) -> Result<Vec<Row>, Problems> {
    let root = document(text)?;
    let Value::List(items) = root.value else {
        let sentence = format!("this must be a list of cameras, not {}", root.value.kind());
        return Err(vec![whole(sentence)]);
    };
    Ok(items.into_iter().zip(1..).map(|(node, number)| Row::new(number, node)).collect())
}

/// The cameras of a table with commas or semicolons (RFC 4180) whose first row names the columns. Rows are
/// counted as spreadsheets do: the first camera is row 2. An empty cell is left out.
pub(crate) fn rows_of_csv(text: &str) -> Result<Vec<Row>, Problems> {
    let text = text.trim_start_matches('\u{feff}');
    let head = text.lines().next().unwrap_or_default();
    let separator = if head.contains(';') && !head.contains(',') { ';' } else { ',' };
    let mut records = records(text, separator).map_err(|problem| vec![problem])?.into_iter();
    let columns = records.next().map(|(_, cells)| cells).unwrap_or_default();
    let columns: Vec<String> = columns.iter().map(|name| name.trim().to_lowercase()).collect();
    check_columns(&columns)?;
    let mut problems = Vec::new();
    let mut rows = Vec::new();
    for (number, cells) in records {
        if cells.len() > columns.len() {
            let sentence = format!(
                "there are {} cells and {} columns; a cell with a comma is put in double quotes",
                cells.len(),
                columns.len()
            );
            problems.push(Problem { origin: Origin::Row(number), key: String::new(), sentence });
            continue;
        }
        let cells = columns.iter().zip(cells).filter(|(_, cell)| !cell.is_empty());
        let node = |cell| Node { origin: Origin::Row(number), value: Value::Text(cell) };
        let entries = cells.map(|(name, cell)| (name.clone(), node(cell))).collect();
        let node = Node { origin: Origin::Row(number), value: Value::Table(entries) };
        rows.push(Row::new(number, node));
    }
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

fn check_columns(columns: &[String]) -> Result<(), Problems> {
    let is_known = |name: &str| COLUMNS.contains(&name) || ANSWERED.contains(&name);
    let mut seen = HashSet::new();
    let problem = |sentence| Problem { origin: Origin::Row(1), key: String::new(), sentence };
    let mut problems = Vec::new();
    for name in columns {
        if !is_known(name) {
            let known = COLUMNS.join(", ");
            problems
                .push(problem(format!("there is no column {:?}; known are {known}", short(name))));
        } else if !seen.insert(name) {
            problems.push(problem(format!("the column {name} is there twice")));
        }
    }
    if columns.is_empty() {
        problems
            .push(problem(format!("the first row must name the columns: {}", COLUMNS.join(","))));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Rows of cells, each with its number. Empty rows are passed over.
fn records(text: &str, separator: char) -> Result<Vec<(usize, Vec<String>)>, Problem> {
    let mut records = Vec::new();
    let (mut cells, mut cell) = (Vec::new(), String::new());
    let mut is_quoted = false;
    let mut number = 1;
    let mut end = |number: usize, cells: &mut Vec<String>, cell: &mut String| {
        cells.push(std::mem::take(cell));
        let cells = std::mem::take(cells);
        if cells.iter().any(|cell| !cell.trim().is_empty()) {
            records.push((number, cells));
        }
    };
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            '"' if is_quoted || cell.is_empty() => is_quoted = !is_quoted,
            '\r' if !is_quoted && letters.peek() == Some(&'\n') => {}
            '\n' if !is_quoted => {
                end(number, &mut cells, &mut cell);
                number += 1;
            }
            letter if letter == separator && !is_quoted => cells.push(std::mem::take(&mut cell)),
            letter => cell.push(letter),
        }
    }
    if is_quoted {
        let sentence = "a double quote is not closed".to_owned();
        return Err(Problem { origin: Origin::Row(number), key: String::new(), sentence });
    }
    end(number, &mut cells, &mut cell);
    Ok(records)
}

impl Row {
    /// The one camera of a JSON document.
    pub(crate) fn of_json(text: &str) -> Result<Self, Problems> {
        document(text).map(|node| Self::new(1, node))
    }

    fn new(number: usize, mut node: Node) -> Self {
        place(&mut node, number);
        if let Value::Table(entries) = &mut node.value {
            entries.retain(|(name, _)| !ANSWERED.contains(&name.as_str()));
        }
        Self { number, node }
    }

    /// As its sender counts.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The camera that is meant; `None` where the row does not name one.
    pub(crate) fn id(&self) -> Option<CameraId> {
        self.node.entry("id").and_then(|id| CameraId::read(id).ok())
    }

    /// Reads it by the rules of the settings file. What it leaves out is as in `before`.
    pub(crate) fn read(
        self,
        sources: &[Source],
        before: Option<&Camera>,
        reach: Reach,
    ) -> Result<Camera, Problems> {
        let mut problems = Vec::new();
        let mut section = Section::new(String::new(), self.node, &mut problems);
        let camera = read(&mut section, sources, before);
        if let Some(camera) = &camera {
            check_reach(&mut section, camera, before, reach);
        }
        section.finish();
        match camera {
            Some(camera) if problems.is_empty() => Ok(camera),
            _ => Err(problems),
        }
    }

    /// A problem of this row.
    pub(crate) fn problem(number: usize, key: &str, sentence: String) -> Problem {
        Problem { origin: Origin::Row(number), key: key.to_owned(), sentence }
    }
}

/// An address that stays may lead where it led.
fn check_reach(section: &mut Section<'_>, camera: &Camera, before: Option<&Camera>, reach: Reach) {
    let old = [before.map(|camera| &camera.url), before.and_then(|camera| camera.sub_url.as_ref())];
    let new = [("url", Some(&camera.url)), ("sub_url", camera.sub_url.as_ref())];
    for ((key, new), old) in new.into_iter().zip(old) {
        let Some(new) = new else { continue };
        if old.is_some_and(|old| old.is_same(new)) {
            continue;
        }
        if let Err(sentence) = reach.check(new) {
            let origin = section.origin.clone();
            section.problem(origin, key, &sentence);
        }
    }
}

/// The cameras of the settings file.
pub(super) fn read_all(parent: &mut Section<'_>, sources: &[Source]) -> Vec<Camera> {
    let Some(items) = parent.list("cameras") else { return shipped::cameras(sources) };
    let mut seen = HashSet::new();
    let mut cameras = Vec::new();
    for (path, node) in items {
        let mut section = Section::new(path, node, parent.problems);
        let origin = section.origin_of("id");
        let url_origin = section.origin_of("url");
        if let Some(camera) = read(&mut section, sources, None) {
            if !seen.insert(camera.id.clone()) {
                let sentence = format!("there is another camera {}", camera.id);
                section.problem(origin, "id", &sentence);
            }
            if cameras.iter().any(|other| camera.shares_key_with(other)) || camera.shares_own_key()
            {
                section.problem(url_origin, "url", SHARED_KEY);
            }
            cameras.push(camera);
        }
        section.finish();
    }
    cameras
}

/// Said of a stream key that would open two cameras.
pub(crate) const SHARED_KEY: &str =
    "another camera or sub_url has the same stream key; give each its own";

/// One camera. What is left out is as in `before`, where there is one.
fn read(section: &mut Section<'_>, sources: &[Source], before: Option<&Camera>) -> Option<Camera> {
    let id = required_or(section, "id", before.map(|camera| camera.id.clone()));
    let name: Option<Name> = section.optional("name");
    let name_ar: Option<Name> = section.optional("name_ar");
    let location: Option<Name> = section.optional("location");
    let source_origin = section.origin_of("source");
    let source: Option<SourceId> =
        required_or(section, "source", before.map(|camera| camera.source.clone()));
    let url = read_url(section, before.map(|camera| &camera.url));
    let sub_url = read_sub_url(section, before.and_then(|camera| camera.sub_url.as_ref()));
    let transport =
        section.value("transport", before.map_or(RtspTransport::Tcp, |camera| camera.transport));
    let on_demand = section.value("on_demand", before.is_none_or(|camera| camera.on_demand));
    let close_after =
        section.value("close_after", before.map_or(CLOSE_AFTER, |camera| camera.close_after));
    if let Some(source) = source.as_ref().filter(|id| sources.iter().all(|s| s.id != **id)) {
        // Who calls is not told of sources that are not his, not even by his own words.
        let named = if matches!(source_origin, Origin::Row(_)) {
            "there is no such source".to_owned()
        } else {
            format!("there is no source {source}")
        };
        section.problem(source_origin, "source", &format!("{named}{}", instead(sources)));
    }
    let (id, source, url) = (id?, source?, url?);
    let or_before = |written: Option<Name>, of: fn(&Camera) -> &String| {
        written.map(|name| name.0).or_else(|| before.map(of).cloned())
    };
    let name = or_before(name, |camera| &camera.name).unwrap_or_else(|| id.to_string());
    let name_ar = or_before(name_ar, |camera| &camera.name_ar).unwrap_or_else(|| name.clone());
    let location = or_before(location, |camera| &camera.location).unwrap_or_default();
    Some(Camera {
        id,
        name,
        name_ar,
        location,
        source,
        url,
        sub_url,
        transport,
        on_demand,
        close_after,
    })
}

/// The sources that there are for who writes the camera, as the end of a sentence.
fn instead(sources: &[Source]) -> String {
    let ids: Vec<&str> = sources.iter().map(|source| source.id.as_str()).collect();
    match ids.as_slice() {
        [] => String::new(),
        [one] => format!("; use {one}"),
        _ => format!("; the sources are {}", ids.join(", ")),
    }
}

fn required_or<T: Setting>(
    section: &mut Section<'_>,
    key: &'static str,
    before: Option<T>,
) -> Option<T> {
    match before {
        Some(before) => Some(section.value(key, before)),
        None => section.required(key),
    }
}

fn read_url(section: &mut Section<'_>, before: Option<&SourceUrl>) -> Option<SourceUrl> {
    let origin = section.origin_of("url");
    let Some(before) = before else {
        let Address(text) = section.required("url")?;
        return parsed(section, origin, "url", SourceUrl::parse(&text));
    };
    match section.optional("url") {
        Some(Address(text)) => parsed(section, origin, "url", SourceUrl::parse_over(&text, before)),
        None => Some(before.clone()),
    }
}

/// An empty text is no address, and so is null.
fn read_sub_url(section: &mut Section<'_>, before: Option<&SourceUrl>) -> Option<SourceUrl> {
    let origin = section.origin_of("sub_url");
    let Some(OptionalAddress(text)) = section.optional("sub_url") else { return before.cloned() };
    let url = match before {
        _ if text.is_empty() => return None,
        Some(before) => SourceUrl::parse_over(&text, before),
        None => SourceUrl::parse(&text),
    };
    parsed(section, origin, "sub_url", url)
}

fn parsed(
    section: &mut Section<'_>,
    origin: Origin,
    key: &str,
    url: Result<SourceUrl, impl std::fmt::Display>,
) -> Option<SourceUrl> {
    url.map_err(|error| section.problem(origin, key, &error.to_string())).ok()
}

struct Address(String);

impl Setting for Address {
    fn read(node: &Node) -> Result<Self, String> {
        text(node, "a camera address").map(|text| Self(text.to_owned()))
    }
}

struct OptionalAddress(String);

impl Setting for OptionalAddress {
    fn read(node: &Node) -> Result<Self, String> {
        if matches!(node.value, Value::Other("null")) {
            return Ok(Self(String::new()));
        }
        text(node, "a camera address or empty").map(|text| Self(text.to_owned()))
    }
}

fn document(text: &str) -> Result<Node, Problems> {
    Node::from_json(text, &"body".into()).map_err(|problem| vec![problem])
}

fn whole(sentence: String) -> Problem {
    Problem { origin: Origin::Row(1), key: String::new(), sentence }
}

/// Whatever stands in it stands in this row. As deep as JSON is read, 128 levels.
fn place(node: &mut Node, number: usize) {
    node.origin = Origin::Row(number);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| place(item, number)),
        Value::Table(entries) => entries.iter_mut().for_each(|(_, entry)| place(entry, number)),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Fraction(_)
        | Value::Bool(_)
        | Value::Other(_) => {}
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(32).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sources() -> Vec<Source> {
        shipped::sources()
    }

    fn read_one(text: &str, before: Option<&Camera>) -> Result<Camera, Vec<String>> {
        let row = Row::of_json(text).map_err(told)?;
        row.read(&sources(), before, Reach::Network).map_err(told)
    }

    fn told(problems: Problems) -> Vec<String> {
        problems.iter().map(Problem::to_string).collect()
    }

    const CAMERA: &str = r#"{"id": "gate", "source": "METRO", "url": "rtsp://u:canary@192.0.2.1/a",
        "name": "Gate", "name_ar": "بوابة", "location": "North", "transport": "udp", "close_after": "9s"}"#;

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_without_the_password() {
        let problems = read_one(
            r#"{"id": "a b", "source": "NOBODY", "url": "rtsp://u:canary@", "transport": "pigeon", "colour": 1}"#,
            None,
        );
        let problems = problems.unwrap_err().join("\n");
        for key in
            ["row 1: id:", "row 1: source:", "row 1: url:", "row 1: transport:", "row 1: colour:"]
        {
            assert!(problems.contains(key), "{key} in {problems}");
        }
        assert!(!problems.contains("canary"), "{problems}");
    }

    #[test]
    fn a_change_keeps_what_it_leaves_out_credentials_included() {
        let camera = read_one(CAMERA, None).unwrap();
        let renamed = read_one(r#"{"name": "Main gate"}"#, Some(&camera)).unwrap();
        assert_eq!(renamed.name, "Main gate");
        assert_eq!(
            (renamed.name_ar.as_str(), renamed.close_after),
            ("بوابة", Duration::from_secs(9))
        );
        assert_eq!(renamed.transport, RtspTransport::Udp);
        assert!(renamed.url.is_same(&camera.url));

        let moved = read_one(r#"{"url": "rtsp://192.0.2.1/b"}"#, Some(&camera)).unwrap();
        assert!(moved.url.has_credentials() && !moved.url.is_same(&camera.url));
        let elsewhere = read_one(r#"{"url": "rtsp://192.0.2.2/a"}"#, Some(&camera)).unwrap();
        assert!(!elsewhere.url.has_credentials(), "another host does not get the password");
    }

    #[test]
    fn an_answer_may_be_sent_back() {
        let camera = read_one(CAMERA, None).unwrap();
        let answer = format!(
            r#"{{"id": "gate", "url": "{}", "sub_url": null, "status": "ONLINE", "renditions": [{{}}], "width": null}}"#,
            camera.url.display()
        );
        let again = read_one(&answer, Some(&camera)).unwrap();
        assert!(again.url.is_same(&camera.url) && again.sub_url.is_none());
    }

    #[test]
    fn what_is_shown_in_place_of_a_password_is_no_password() {
        let parameter =
            r#"{"id": "c", "source": "METRO", "url": "rtsp://192.0.2.1/?password=***"}"#;
        let key = r#"{"id": "c", "source": "METRO", "url": "whip://***"}"#;
        for text in [parameter, key] {
            let problems = read_one(text, None).unwrap_err().join("\n");
            assert!(problems.contains("in place of what is not shown"), "{problems}");
        }
        let before =
            r#"{"id": "c", "source": "METRO", "url": "rtsp://192.0.2.1/?password=canary"}"#;
        let before = read_one(before, None).unwrap();
        assert!(read_one(parameter, Some(&before)).unwrap().url.is_same(&before.url));
    }

    #[test]
    fn an_address_that_must_not_be_is_told() {
        let text = r#"{"id": "c", "source": "METRO", "url": "rtsp://169.254.169.254/"}"#;
        let problems = read_one(text, None).unwrap_err();
        assert!(
            problems[0].starts_with("row 1: url: 169.254.169.254 is link-local"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_table_is_read_as_spreadsheets_write_it() {
        for text in [
            "\u{feff}id,source,url,name,on_demand\r\na,METRO,rtsp://192.0.2.1/,\"Gate, \"\"north\"\"\",false\r\n\r\nb,METRO,rtsp://192.0.2.2/,,\r\n",
            "ID;source;url;name;on_demand\na;METRO;rtsp://192.0.2.1/;\"Gate, \"\"north\"\"\";false\n\nb;METRO;rtsp://192.0.2.2/;;\n",
        ] {
            let rows = rows_of_csv(text).map_err(told).unwrap();
            assert_eq!(rows.iter().map(Row::number).collect::<Vec<_>>(), [2, 4]);
            let read = |row: Row| row.read(&sources(), None, Reach::Network).map_err(told).unwrap();
            let cameras: Vec<Camera> = rows.into_iter().map(read).collect();
            assert_eq!(cameras[0].name, "Gate, \"north\"");
            assert_eq!((cameras[0].on_demand, cameras[1].on_demand), (false, true));
            assert_eq!(cameras[1].name, "b");
        }
    }

    #[test]
    fn a_broken_table_is_told_by_row() {
        let told = |text: &str| told(rows_of_csv(text).err().unwrap()).join("\n");
        assert!(told("").contains("row 1: the first row must name the columns"));
        assert!(told("id,colour\n").starts_with("row 1: there is no column \"colour\""));
        assert!(told("id,id\n").contains("twice"));
        assert!(told("id,url\na,b,c\n").starts_with("row 2: there are 3 cells and 2 columns"));
        assert!(told("id,url\na,\"b\n").contains("not closed"));
        let list = rows_of_json("{}").err().unwrap();
        assert!(list[0].to_string().contains("must be a list of cameras"));
    }
}
