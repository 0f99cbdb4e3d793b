//! How many requests the API server has answered, as its own metrics tell.

use std::collections::BTreeMap;

use anyhow::Context;
use kube::Client;

use crate::failure::Result;

/// Answered requests, by verb and resource with its subresource (`PATCH pods/status`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<String, u64>);

impl Requests {
    /// Asks for them.
    pub async fn ask(client: &Client) -> Result<Requests> {
        let request = http::Request::get("/metrics").body(vec![]);
        let request = request.context("cannot build a request")?;
        let text = client.request_text(request).await;
        Ok(Requests::read(
            &text.context("cannot read the API server's metrics")?,
        ))
    }

    fn read(text: &str) -> Requests {
        let mut all = BTreeMap::new();
        for line in text
            .lines()
            .filter_map(|it| it.strip_prefix("apiserver_request_total{"))
        {
            let Some((labels, count)) = line.rsplit_once("} ") else {
                continue;
            };
            let label = |name: &str| {
                let found = labels
                    .split(',')
                    .find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
                found.unwrap_or_default().trim_matches('"')
            };
            let what = match label("subresource") {
                "" => label("resource").to_owned(),
                sub => format!("{}/{sub}", label("resource")),
            };
            let count: u64 = count.trim().parse().unwrap_or(0);
            *all.entry(format!("{} {what}", label("verb"))).or_default() += count;
        }
        Requests(all)
    }

    /// Writes since `before`, for each of so many pods; of leases, which are renewed anyway, none.
    pub fn per_pod(&self, before: &Requests, pods: u32) -> BTreeMap<String, f64> {
        let counts = |what: &str| !what.ends_with(" leases");
        let writes = |what: &str| !matches!(what.split(' ').next(), Some("GET" | "LIST" | "WATCH"));
        self.0
            .iter()
            .filter(|(what, _)| counts(what) && writes(what))
            .map(|(what, count)| {
                let more = count - before.0.get(what).copied().unwrap_or(0).min(*count);
                (
                    what.clone(),
                    (more as f64 / f64::from(pods.max(1)) * 100.0).round() / 100.0,
                )
            })
            .filter(|(_, each)| *each > 0.0)
            .collect()
    }
}

/// A sum and its parts, for people.
pub fn shown(per_pod: &BTreeMap<String, f64>) -> String {
    let parts: Vec<_> = per_pod
        .iter()
        .map(|(what, each)| format!("{what} {each:.2}"))
        .collect();
    format!(
        "{:.2} ({})",
        per_pod.values().sum::<f64>(),
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_pods_are_counted_for_each_pod() {
        let line = |verb: &str, sub: &str, code: u16, n: u64| {
            format!(
                "apiserver_request_total{{code=\"{code}\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"{sub}\",verb=\"{verb}\",version=\"v1\"}} {n}\n"
            )
        };
        let before = Requests::read(&line("PATCH", "status", 200, 5));
        let after = [
            line("PATCH", "status", 200, 20),
            line("PATCH", "status", 409, 5),
            line("POST", "", 201, 10),
            line("LIST", "", 200, 9),
        ];
        let per_pod = Requests::read(&after.concat()).per_pod(&before, 10);
        assert_eq!(
            shown(&per_pod),
            "3.00 (PATCH pods/status 2.00, POST pods 1.00)"
        );
    }
}
