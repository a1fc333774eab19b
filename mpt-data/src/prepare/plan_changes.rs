//! Differences between two plans, in words.

use serde_json::Value;

use crate::manifest::Plan;

/// Most differences that are listed.
const MAX_LISTED: usize = 5;

/// Differences from an earlier plan; empty where the plans are the same.
pub(crate) fn changes(earlier: &Plan, now: &Plan) -> Vec<String> {
    let value = |plan: &Plan| serde_json::to_value(plan).expect("plans have string keys and finite numbers");
    let mut changes = Vec::new();
    compare("", &value(earlier), &value(now), &mut changes);
    if changes.len() > MAX_LISTED {
        let more = changes.len() - (MAX_LISTED - 1);
        changes.truncate(MAX_LISTED - 1);
        changes.push(format!("and {more} more"));
    }
    changes
}

/// Lists the keys whose values differ. An item of a list is called by its name where it has one.
fn compare(key: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            for key in keys {
                let get = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                compare(&below(key), &get(old), &get(new), changes);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                let name =
                    new.get("name").and_then(Value::as_str).map_or_else(|| index.to_string(), str::to_owned);
                compare(&below(&name), old, new, changes);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            changes.push(format!("{key} had {} entries, now {}", old.len(), new.len()))
        }
        _ if old == new => {}
        _ => changes.push(format!("{key} was {old}, is now {new}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_named() {
        let old = json!({"seed": 1, "sources": [{"name": "web", "proportion": 0.5}], "gone": 1});
        let new = json!({"seed": 2, "sources": [{"name": "web", "proportion": 0.25}]});
        let mut changes = Vec::new();
        compare("", &old, &new, &mut changes);
        assert_eq!(
            changes,
            [
                "seed was 1, is now 2",
                "sources.web.proportion was 0.5, is now 0.25",
                "gone was 1, is now null"
            ]
        );
        changes.clear();
        compare("inputs", &json!([1, 2]), &json!([1]), &mut changes);
        assert_eq!(changes, ["inputs had 2 entries, now 1"]);
    }
}
