//! What the audit trail is told of a change to the park: which settings are different, by their names, and
//! addresses as they are shown. No secret is in it.

use crate::audit::{Change, Row};
use crate::config::Camera;
use crate::ingest::SourceUrl;

/// A camera was added, or is another one than `before`.
pub(super) fn put(actor: &str, before: Option<&Camera>, camera: &Camera) -> Row {
    let (action, detail) = match before {
        None => ("camera_added", camera.url.display()),
        Some(before) => ("camera_changed", difference(before, camera)),
    };
    row(actor, action, camera, detail)
}

/// A camera was deleted.
pub(super) fn gone(actor: &str, camera: &Camera) -> Row {
    row(actor, "camera_deleted", camera, camera.url.display())
}

fn row(actor: &str, action: &str, camera: &Camera, detail: String) -> Row {
    let (object, source) = (camera.id.as_str(), camera.source.as_str());
    Change { actor, action, object, source, detail }.into_row()
}

/// Of an address also where it leads to, of a source whose it was.
fn difference(before: &Camera, camera: &Camera) -> String {
    let mut parts = Vec::new();
    let mut note = |is_same: bool, said: String| {
        if !is_same {
            parts.push(said);
        }
    };
    note(before.name == camera.name, "name".to_owned());
    note(before.name_ar == camera.name_ar, "name_ar".to_owned());
    note(before.location == camera.location, "location".to_owned());
    let moved = format!("source from {} to {}", before.source, camera.source);
    note(before.source == camera.source, moved);
    let is_same = before.url.is_same(&camera.url);
    note(is_same, address("url", &before.url, &camera.url));
    let nothing = || "none".to_owned();
    let shown = |url: &Option<SourceUrl>| url.as_ref().map_or_else(nothing, SourceUrl::display);
    let (is_same, said) = match (&before.sub_url, &camera.sub_url) {
        (None, None) => (true, String::new()),
        (Some(before), Some(sub_url)) => {
            (before.is_same(sub_url), address("sub_url", before, sub_url))
        }
        (before, sub_url) => {
            (false, format!("sub_url from {} to {}", shown(before), shown(sub_url)))
        }
    };
    note(is_same, said);
    note(before.transport == camera.transport, "transport".to_owned());
    note(before.on_demand == camera.on_demand, "on_demand".to_owned());
    note(before.close_after == camera.close_after, "close_after".to_owned());
    if parts.is_empty() { "nothing is different".to_owned() } else { parts.join(", ") }
}

/// Where both are shown alike, the difference is what is not shown.
fn address(key: &str, before: &SourceUrl, url: &SourceUrl) -> String {
    let (before, url) = (before.display(), url.display());
    if before == url {
        format!("{key}: user name, password or key")
    } else {
        format!("{key} from {before} to {url}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Row as ListRow, from_toml};
    use crate::ingest::Reach;

    fn camera(text: &str) -> Camera {
        let row = ListRow::of_json(text).unwrap();
        row.read(&from_toml("").sources, None, Reach::Network).unwrap()
    }

    #[test]
    fn a_change_is_told_by_its_settings_and_without_secrets() {
        let url = "rtsp://u:canary@192.0.2.1/a";
        let one = camera(&format!(r#"{{"id": "gate", "source": "METRO", "url": "{url}"}}"#));
        let other = camera(
            r#"{"id": "gate", "source": "TAXI", "name": "Gate", "url": "rtsp://u:c4nary@192.0.2.1/a",
                "sub_url": "rtsp://192.0.2.1/b?password=canary"}"#,
        );

        let row = put("amal", Some(&one), &other);

        assert_eq!((row.actor.as_str(), row.action.as_str()), ("amal", "camera_changed"));
        assert_eq!((row.object.as_str(), row.source.as_str()), ("gate", "TAXI"));
        let told = "name, name_ar, source from METRO to TAXI, url: user name, password or key, \
                    sub_url from none to rtsp://192.0.2.1/b?password=***";
        assert_eq!(row.reason, told);
        assert_eq!(put("amal", Some(&one), &one.clone()).reason, "nothing is different");
        assert_eq!(put("amal", None, &one).reason, "rtsp://192.0.2.1/a");
        assert_eq!(gone("amal", &one).action, "camera_deleted");
    }
}
