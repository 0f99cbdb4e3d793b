//! The order in which what came in at once is taken in: fresh pods before changed ones, those before what is gone, so that
//! new work never waits behind noise. What a list repeats (a resync) keeps its place in the list, as do other kinds: what
//! they say may depend on what they said before.

use super::objects::{Change, Input};

/// Lower comes first.
fn rank(input: &Input) -> u8 {
    match input {
        Input::Pod(Change::Applied(pod)) if pod.node().is_none() => {
            // Nothing was said of it yet, so that it is new to everybody.
            u8::from(!pod.status.conditions.is_empty())
        }
        Input::Pod(Change::Applied(_)) => 2,
        Input::Pod(Change::Deleted(_)) => 3,
        _ => 0,
    }
}

/// Whether an input has to stay where it is among the others.
fn is_fixed(input: &Input) -> bool {
    !matches!(input, Input::Pod(Change::Applied(_) | Change::Deleted(_)))
}

/// Puts a batch in order. What is said of one pod keeps its order: that a pod is there is said before it changes, and
/// that it is gone comes last.
pub(super) fn fresh_first(batch: &mut [Input]) {
    for part in batch.chunk_by_mut(|a, b| is_fixed(a) == is_fixed(b)) {
        if part.len() > 1 && part.first().is_some_and(|input| !is_fixed(input)) {
            part.sort_by_key(rank);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::object::{Node, Pod};
    use serde_json::json;

    #[test]
    fn fresh_work_comes_first_and_lists_stay_as_they_are() {
        let pod = |name: &str, node: &str, told: bool| -> Pod {
            let conditions = if told {
                json!([{"type": "PodScheduled", "status": "False"}])
            } else {
                json!([])
            };
            serde_json::from_value(
                json!({"metadata": {"uid": name}, "spec": {"nodeName": node},
                "status": {"conditions": conditions}}),
            )
            .unwrap()
        };
        let applied = |name, node, told| Input::Pod(Change::Applied(pod(name, node, told)));
        let gone = |name| Input::Pod(Change::Deleted(pod(name, "n", true)));
        let node = || Input::Node(Change::Applied(Node::default()));
        let mut batch = vec![
            gone("a"),
            applied("b", "n", true),
            applied("c", "", true),
            applied("d", "", false),
            node(),
            applied("e", "n", true),
            applied("f", "", false),
            Input::Pod(Change::Listing),
            gone("g"),
        ];
        fresh_first(&mut batch);
        let names: Vec<String> = batch
            .iter()
            .map(|input| match input {
                Input::Pod(Change::Applied(pod) | Change::Deleted(pod)) => pod.uid().to_owned(),
                Input::Pod(_) => "list".to_owned(),
                _ => "node".to_owned(),
            })
            .collect();
        assert_eq!(names, ["d", "c", "b", "a", "node", "f", "e", "list", "g"]);
    }
}
