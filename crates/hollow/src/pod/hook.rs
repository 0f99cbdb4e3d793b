//! Hooks that are requests over HTTP: who is asked, and what becomes of the container meanwhile.

use super::{
    Identity, Pod, Todo,
    course::scaled,
    step::{Env, KILLED, Outcome, Slot},
};
use crate::object::Hook;
use std::{sync::Arc, time::Duration};

/// A hook that is not answered by then has failed.
const ANSWERED: Duration = Duration::from_secs(60);

/// Whom to ask for a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The pod.
    pub pod: Identity,
    /// The container.
    pub container: Arc<str>,
    /// Which run of it.
    pub attempt: u32,
    /// Before it stops, not after it started.
    pub stops: bool,
    /// The address or name; the pod's own where nothing is said.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Over TLS.
    pub tls: bool,
    /// Its headers.
    pub headers: Vec<(String, String)>,
}

impl Pod {
    /// Whom a hook asks, where it asks somebody and somebody can be asked. (Ports by name are not looked up.)
    fn asks(&self, slot: Slot, hook: &Hook, stops: bool, env: &Env<'_>) -> Option<Ask> {
        let http = hook.http_get.as_ref().filter(|_| env.asks)?;
        let own = || self.ip.map(|ip| ip.to_string());
        Some(Ask {
            pod: self.id.clone(),
            container: self.spec_at(slot).name.clone(),
            attempt: self.at(slot).restarts,
            stops,
            host: match http.host.as_deref() {
                None | Some("") => own()?,
                Some(host) => host.to_owned(),
            },
            port: http.port.number()?,
            path: http.path.to_string(),
            tls: http.scheme.as_deref() == Some("HTTPS"),
            headers: http
                .http_headers
                .iter()
                .map(|it| (it.name.to_string(), it.value.to_string()))
                .collect(),
        })
    }

    /// Asks for a `postStart` hook, if that is a request; until it is answered the container waits.
    pub(super) fn ask_after_start(
        &mut self,
        slot: Slot,
        hook: &Hook,
        env: &Env<'_>,
        out: &mut Outcome,
    ) -> bool {
        let Some(ask) = self.asks(slot, hook, false, env) else {
            return false;
        };
        out.asks.push(ask);
        self.at_mut(slot).todo = Todo::Hook {
            until: env.now.plus(ANSWERED),
            code: 1,
        };
        true
    }

    /// Asks for a `preStop` hook, if that is a request; until it is answered the container runs, for as long as
    /// it may at most.
    pub(super) fn ask_before_stop(
        &mut self,
        slot: Slot,
        hook: &Hook,
        (grace, again): (Duration, bool),
        env: &Env<'_>,
        out: &mut Outcome,
    ) -> bool {
        if grace.is_zero() {
            return false;
        }
        let Some(ask) = self.asks(slot, hook, true, env) else {
            return false;
        };
        out.asks.push(ask);
        self.at_mut(slot).todo = Todo::Stop {
            until: env.now.plus(grace),
            code: KILLED,
            again,
        };
        true
    }

    /// A hook of a container's run was answered, or nobody answered.
    pub(super) fn hook_answered(
        &mut self,
        (name, attempt): (&str, u32),
        stops: bool,
        well: bool,
        env: &Env<'_>,
        out: &mut Outcome,
    ) {
        let meant =
            |slot: &Slot| *self.spec_at(*slot).name == *name && self.at(*slot).restarts == attempt;
        let Some(slot) = self.slots().find(meant) else {
            return;
        };
        let run = env.behaviours.run(&self.subject(slot, attempt));
        let latest = env.now.plus(scaled(run.stop, env.scale));
        match &mut self.at_mut(slot).todo {
            Todo::Hook { until, code } if !stops => {
                (*until, *code) = (env.now, i32::from(!well));
            }
            Todo::Stop { until, code, .. } if stops && *code == KILLED => {
                if latest <= *until {
                    (*until, *code) = (latest, 0);
                }
                if !well {
                    let message = "PreStopHook failed".to_owned();
                    self.tell(out, slot, true, "FailedPreStopHook", message);
                }
            }
            _ => {}
        }
    }
}
