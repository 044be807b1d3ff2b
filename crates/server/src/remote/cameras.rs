//! The list of a server's cameras, page by page. What a camera is, is for who asks.

use serde_json::Value;

/// Most pages that are asked for: one has 1,000 cameras, and a park at most 10,000. Twice that, for those of a
/// cluster that other nodes have beside them.
const PAGES_MAX: usize = 20;

/// What was told so far, and what is asked next.
#[derive(Debug, Default)]
pub(crate) struct CameraPages {
    cameras: Vec<Value>,
    pages: usize,
    is_whole: bool,
}

impl CameraPages {
    /// Where the next page is; `None` where all have come.
    pub(crate) fn next_path(&self) -> Option<String> {
        let is_open = !self.is_whole && self.pages < PAGES_MAX;
        is_open.then(|| format!("/api/v1/cameras?offset={}", self.cameras.len()))
    }

    /// Takes the answer to that. What is no page, or an empty one, is the last.
    pub(crate) fn take(&mut self, mut page: Value) {
        self.pages += 1;
        let rows = page.get_mut("cameras").and_then(Value::as_array_mut);
        let rows = rows.map(std::mem::take).unwrap_or_default();
        self.is_whole = rows.is_empty();
        self.cameras.extend(rows);
        let total = page["total"].as_u64().and_then(|total| usize::try_from(total).ok());
        self.is_whole |= total.is_none_or(|total| self.cameras.len() >= total);
    }

    /// All that were told.
    pub(crate) fn into_cameras(self) -> Vec<Value> {
        self.cameras
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pages_are_asked_for_until_all_cameras_have_come() {
        let mut pages = CameraPages::default();
        assert_eq!(pages.next_path().as_deref(), Some("/api/v1/cameras?offset=0"));
        pages.take(json!({"cameras": [{"id": "a"}, {"id": "b"}], "total": 3}));
        assert_eq!(pages.next_path().as_deref(), Some("/api/v1/cameras?offset=2"));
        pages.take(json!({"cameras": [{"id": "c"}], "total": 3}));
        assert_eq!(pages.next_path(), None);
        assert_eq!(pages.into_cameras().len(), 3);
    }

    #[test]
    fn a_server_that_never_comes_to_an_end_is_left() {
        let mut pages = CameraPages::default();
        while pages.next_path().is_some() {
            pages.take(json!({"cameras": [{}], "total": 1_000_000}));
        }
        assert_eq!(pages.into_cameras().len(), PAGES_MAX);
    }

    #[test]
    fn what_is_no_page_is_the_last() {
        for answer in [json!(null), json!({"cameras": []}), json!({"cameras": [{}]}), json!([])] {
            let mut pages = CameraPages::default();
            pages.take(answer);
            assert_eq!(pages.next_path(), None);
        }
    }
}
