//! The other nodes of a cluster, as the running server hears them: who does not answer it, and who has another
//! clock or other keys.

use serde_json::Value;

use super::{Finding, RunningServer};
use crate::remote::Ask;

const PART: &str = "nodes";

/// Nothing of a server that is alone.
pub(super) async fn check(server: &mut RunningServer) -> Vec<Finding> {
    let Ok(url) = server.base.join("/health") else { return Vec::new() };
    let ask = Ask {
        method: hyper::Method::GET,
        url: &url,
        content_type: None,
        token: None,
        body: String::new(),
    };
    let Ok(answer) = server.http.ask_for_any(&ask).await else { return Vec::new() };
    judge(&serde_json::from_str(&answer.body).unwrap_or_default())
}

fn judge(health: &Value) -> Vec<Finding> {
    let nodes = health["cluster"]["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    nodes.iter().filter_map(one).collect()
}

fn one(node: &Value) -> Option<Finding> {
    let name = node["node"].as_str()?;
    if node["available"] == false {
        let reason = node["reason"].as_str().unwrap_or("why is not known");
        let remedy = "start it, or open the way to its cluster.url";
        let sentence = format!("node {name} does not answer the server: {reason}");
        return Some(Finding::trouble(PART, sentence, remedy));
    }
    let Some(difference) = node["difference"].as_str() else {
        return Some(Finding::fine(
            PART,
            format!("node {name} answers, and has the same clock and keys"),
        ));
    };
    let (sentence, remedy) = difference.split_once("; ").unwrap_or((difference, "set it alike"));
    Some(Finding::trouble(PART, format!("node {name}: {sentence}"), remedy))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Level;
    use super::*;

    #[test]
    fn each_other_node_has_one_finding() {
        assert!(judge(&json!({})).is_empty());
        let found = judge(&json!({"cluster": {"node": "n1", "nodes": [
            {"node": "n2", "available": true},
            {"node": "n3", "available": false, "reason": "it is gone since 3 s"},
            {"node": "n4", "available": true, "difference": "its clock is 9 s ahead; set it"},
        ]}}));
        let levels: Vec<_> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Fine, Level::Trouble, Level::Trouble]);
        assert!(found[1].sentence.ends_with("it is gone since 3 s"), "{:?}", found[1]);
        assert_eq!(found[2].remedy.as_deref(), Some("set it"));
    }
}
