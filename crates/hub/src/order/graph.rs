//! The graph of an order's nodes.

use std::collections::BTreeMap;

use gantry_api::order::OrderNode;

/// Indexes of `nodes`, each after those that it comes after; among those that may come next, the first in
/// the list.
///
/// # Errors
/// A node that is named and not there, twice there, or nodes that wait for each other in a circle: by name.
pub fn sorted(nodes: &[OrderNode]) -> Result<Vec<usize>, String> {
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, node) in nodes.iter().enumerate() {
        if index.insert(&node.name, i).is_some() {
            return Err(format!("there are two nodes {}", node.name));
        }
    }
    for node in nodes {
        if let Some(unknown) = node.after.iter().find(|a| !index.contains_key(a.as_str())) {
            return Err(format!(
                "node {} comes after {unknown}, which there is not",
                node.name
            ));
        }
    }
    let mut order = Vec::with_capacity(nodes.len());
    let mut placed = vec![false; nodes.len()];
    let met = |node: &OrderNode, placed: &[bool]| {
        node.after
            .iter()
            .all(|a| index.get(a.as_str()).is_some_and(|i| placed[*i]))
    };
    while let Some(next) = (0..nodes.len()).find(|i| !placed[*i] && met(&nodes[*i], &placed)) {
        placed[next] = true;
        order.push(next);
    }
    let Some(start) = placed.iter().position(|p| !p) else {
        return Ok(order);
    };
    // Whoever is left has someone left before it: walking that way meets a node again.
    let mut way = vec![start];
    let mut at = start;
    loop {
        let before = nodes[at]
            .after
            .iter()
            .filter_map(|a| index.get(a.as_str()).copied())
            .find(|i| !placed[*i]);
        let Some(before) = before else { break };
        if let Some(seen) = way.iter().position(|i| *i == before) {
            way.drain(..seen);
            way.push(before);
            break;
        }
        way.push(before);
        at = before;
    }
    let names: Vec<&str> = way.iter().map(|i| nodes[*i].name.as_str()).collect();
    Err(format!(
        "nodes come after each other in a circle: {}",
        names.join(" → ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn node(name: &str, after: &[&str]) -> OrderNode {
        OrderNode {
            name: name.into(),
            after: after.iter().map(|a| (*a).to_owned()).collect(),
            ..OrderNode::default()
        }
    }

    #[test]
    fn graphs() {
        for (nodes, want) in [
            (vec![node("a", &[])], Ok("a")),
            (
                vec![
                    node("web", &["api"]),
                    node("api", &["db"]),
                    node("db", &[]),
                    node("cdn", &[]),
                ],
                Ok("db api web cdn"),
            ),
            (vec![node("a", &["a"])], Err("in a circle: a → a")),
            (
                vec![
                    node("d", &["c"]),
                    node("a", &["c"]),
                    node("b", &["a"]),
                    node("c", &["b"]),
                ],
                Err("in a circle: c → b → a → c"),
            ),
            (
                vec![node("a", &["x"])],
                Err("node a comes after x, which there is not"),
            ),
            (
                vec![node("a", &[]), node("a", &[])],
                Err("there are two nodes a"),
            ),
        ] {
            let got = sorted(&nodes).map(|order| {
                let names: Vec<&str> = order.iter().map(|i| nodes[*i].name.as_str()).collect();
                names.join(" ")
            });
            match want {
                Ok(order) => assert_eq!(got.as_deref(), Ok(order)),
                Err(why) => assert!(got.as_ref().is_err_and(|e| e.contains(why)), "{got:?}"),
            }
        }
    }
}
