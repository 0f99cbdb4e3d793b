//! A webhook in the form of Flagger's (docs.flagger.app/usage/webhooks): a POST with name, namespace, phase
//! and metadata; 200 to 202 agree, anything else counts as a failure, and silence is asked again.

use gantry_api::gate::{Gate, GateState, GateStatus, Point, Webhook};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{Answer, Ask, Looked, Question, Scene, decide, id, next};

pub(super) fn look(
    scene: &Scene<'_>,
    gate: &Gate,
    webhook: &Webhook,
    status: &mut GateStatus,
    looked: &mut Looked,
) {
    if let Some(answer) = scene.world.answers.get(&id(scene, gate, status)) {
        status.measured += 1;
        status.asked = Some(Time(scene.now));
        match answer {
            Answer::Webhook(Ok((200..=202, _))) => {
                status.passes += 1;
                decide(
                    status,
                    GateState::Passed,
                    format!("{} agrees", webhook.url),
                    scene.now,
                );
                return;
            }
            Answer::Webhook(Ok((code, body))) => {
                status.failures += 1;
                status.value = code.to_string();
                status.message = match body.trim() {
                    "" => format!("{} answers {code}", webhook.url),
                    body => format!("{} answers {code}: {body}", webhook.url),
                };
                if status.failures > webhook.failure_limit {
                    let message = status.message.clone();
                    decide(status, GateState::Failed, message, scene.now);
                    return;
                }
            }
            Answer::Webhook(Err(why)) => status.message = format!("no answer: {why}"),
            Answer::Metric { .. } | Answer::Digest(_) => {
                "the answer is to another question".clone_into(&mut status.message);
            }
        }
    }
    let due = next(status, webhook.interval, scene.now);
    if due > scene.now {
        looked.due(Some(due));
        return;
    }
    if status.message.is_empty() {
        status.message = format!("{} is asked", webhook.url);
    }
    looked.asks.push(Ask {
        id: id(scene, gate, status),
        token: webhook.token.clone(),
        question: Question::Webhook {
            url: webhook.url.clone(),
            payload: payload(scene, webhook),
            timeout: webhook.timeout,
        },
    });
}

fn payload(scene: &Scene<'_>, webhook: &Webhook) -> Value {
    let release = scene.world.release;
    let image = scene.world.revisions.get(&scene.target);
    let mut metadata: std::collections::BTreeMap<String, String> = [
        ("release", release.metadata.name.clone()),
        ("batch", Some(scene.batch.to_string())),
        ("revision", Some(scene.target.to_string())),
        ("image", image.map(|r| r.spec.image.clone())),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), value?)))
    .collect();
    metadata.extend(webhook.metadata.clone());
    json!({
        "name": release.spec.group,
        "namespace": release.metadata.namespace,
        "phase": if scene.point == Point::End { "Promoting" } else { "Progressing" },
        "metadata": metadata,
    })
}
