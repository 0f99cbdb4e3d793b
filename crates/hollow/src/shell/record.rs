//! When a scenario began, kept in the cluster: a process that follows another goes on in the middle.

use super::events::COMPONENT;
use crate::{
    behaviour::Draw,
    clock::Millis,
    options::SIMULATED,
    scenario::{Scenario, describe},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::time::Duration;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "hollow-scenario";
/// How often it is tried to keep it: the namespace may be on its way.
const TRIES: u32 = 10;

/// When the scenario began on this cluster: as kept, if it is the same one with the same seed; else now,
/// which is then kept, beside what the scenario does in words.
pub async fn began(client: &Client, scenario: &Scenario, seed: u64, now: Millis) -> Millis {
    let print = format!(
        "{:016x}",
        Draw::new(seed).word(&format!("{scenario:?}")).bits()
    );
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    for attempt in 1..=TRIES {
        let error = match maps.get_opt(NAME).await {
            Ok(found) => {
                let data = found.and_then(|it| it.data).unwrap_or_default();
                let same = data.get("print") == Some(&print);
                let kept = data.get("began").filter(|_| same);
                if let Some(kept) = kept.and_then(|it| it.parse::<jiff::Timestamp>().ok()) {
                    tracing::info!(scenario = scenario.name, %kept, "the scenario goes on");
                    return kept.into();
                }
                let map = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": NAME, "labels": {SIMULATED: "true"}},
                    "data": {
                        "name": scenario.name, "seed": seed.to_string(), "print": print,
                        "began": now.timestamp().to_string(), "scenario": describe(scenario),
                    },
                });
                let params = PatchParams::apply(COMPONENT).force();
                match maps.patch(NAME, &params, &Patch::Apply(&map)).await {
                    Ok(_) => return now,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        tracing::debug!(%error, attempt, "cannot keep when the scenario began");
        tokio::time::sleep(Duration::from_millis(200) * attempt).await;
    }
    tracing::warn!(
        "when the scenario began cannot be kept: should this process be started again, it begins anew"
    );
    now
}
