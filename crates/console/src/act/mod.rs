//! What changes something. Everything is done as the user: in the hub with their own credential, on
//! members by impersonation; who may not is told so by the API server. Every write leaves an audit line.

pub mod create;
pub mod edit;
pub mod exec;
pub mod export;
pub mod group;
pub mod hook;
pub mod instance;
pub mod line;
pub mod logs;
pub mod node;
pub mod release;
pub mod token;
pub mod trial;
pub mod wish;

use gantry_hub::group::wishes::given_up;
use kube::api::PatchParams;
use maud::Markup;

use crate::{
    app::Cx,
    error::Fail,
    messages::M,
    page::{self, Page},
    routes,
    view::{Params, run::Press},
};

/// What a form's sending came to.
pub enum Done {
    /// Go there, and say this.
    Go(String, Option<String>),
    /// A piece of a page, for the script.
    Piece(Markup),
    /// The form again, with what is wrong.
    Page(Page),
    /// A page with what was asked for.
    Answer(Page),
}

/// Whose field manager edits are.
pub const MANAGER: &str = "gantry-console";

/// Parameters of a patch by the console.
pub fn patching() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// That the name was typed where it is asked for.
fn named(cx: &Cx, form: &Params, name: &str) -> Result<(), Fail> {
    if form.get("confirm") == name {
        Ok(())
    } else {
        Err(Fail::Bad(cx.f(M::NameDiffers, &[&name])))
    }
}

/// A form that was sent to a path.
///
/// # Errors
/// What went wrong.
pub async fn post(cx: &Cx, path: &str, form: &Params) -> Result<Done, Fail> {
    if !routes::known(routes::FORMS, path) {
        return Err(Fail::NotFound);
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["groups", tenant, name, "plan"] => {
            let group = page::group::seen(cx, tenant, name).await?;
            if !form.get("whole").is_empty() {
                // Without script: the page again, with the plan beside the form.
                let fail = Fail::Bad(String::new());
                return Ok(Done::Page(
                    page::plan::page(cx, form, tenant, name, Some((form, &fail))).await?,
                ));
            }
            let seen = match page::plan::wish(&group, form, cx.session.name()) {
                Ok(spec) => page::plan::look(cx, &group, spec).await,
                Err(fail) => Err(fail),
            };
            Ok(Done::Piece(page::plan::picture(cx, name, &seen)))
        }
        ["groups", tenant, name, "release"] => {
            let group = page::group::seen(cx, tenant, name).await?;
            let end = async {
                let spec = page::plan::wish(&group, form, cx.session.name())?;
                release::start(cx, &group, spec).await
            };
            match end.await {
                Ok(release) => Ok(Done::Go(format!("/releases/{tenant}/{release}"), None)),
                Err(fail @ (Fail::Bad(_) | Fail::Conflict(_))) => Ok(Done::Page(
                    page::plan::page(cx, form, tenant, name, Some((form, &fail))).await?,
                )),
                Err(fail) => Err(fail),
            }
        }
        ["groups", tenant, name, "scale"] => {
            let group = page::group::seen(cx, tenant, name).await?;
            let replicas = form.number("replicas").and_then(|n| i32::try_from(n).ok());
            let replicas =
                replicas.ok_or_else(|| Fail::Bad(cx.t(M::HowManyInstances).to_owned()))?;
            if replicas == 0 && group.spec.replicas > 0 {
                named(cx, form, name)?;
            }
            group::scale(cx, tenant, name, replicas).await?;
            let told = cx.f(M::Scaled, &[&name, &group.spec.replicas, &replicas]);
            Ok(Done::Go(
                format!("/groups/{tenant}/{name}/scale"),
                Some(told),
            ))
        }
        ["releases", tenant, name, action] => {
            let press = Press::named(action).ok_or(Fail::NotFound)?;
            page_release(cx, tenant, name).await?;
            if matches!(press, Press::Rollback | Press::Abort) {
                named(cx, form, name)?;
            }
            let told = release::press(cx, tenant, name, press, form).await?;
            Ok(Done::Go(format!("/releases/{tenant}/{name}"), Some(told)))
        }
        ["groups", tenant, name, "instances"] => {
            let group = page::group::seen(cx, tenant, name).await?;
            let wish = wish::Wish::read(form.get("verb"), form.get("to")).ok_or(Fail::NotFound)?;
            let names: Vec<String> = form.all("instance").map(str::to_owned).collect();
            wish::take(cx, &group, &names, &wish, form.get("reason")).await?;
            let word = cx.t(page::wishes::word(&wish));
            let told = cx.f(M::Wished, &[&word, &names.join(", ")]);
            Ok(Done::Go(format!("/groups/{tenant}/{name}"), Some(told)))
        }
        ["instances", cluster, tenant, name, "placement"] => {
            let found = trial::explain(cx, cluster, tenant, name).await;
            if found == Err(Fail::NotFound) {
                return Err(Fail::NotFound);
            }
            Ok(Done::Piece(page::placement::says(cx, &found)))
        }
        ["groups", tenant, name, "scale", "cancel"] => {
            let group = page::group::seen(cx, tenant, name).await?;
            let status = group.status.clone().unwrap_or_default();
            let there = given_up(group.spec.replicas, &status)
                .ok_or_else(|| Fail::Conflict(cx.t(M::ScaleSettled).to_owned()))?;
            group::scale(cx, tenant, name, there).await?;
            let told = cx.f(M::Scaled, &[&name, &group.spec.replicas, &there]);
            Ok(Done::Go(
                format!("/groups/{tenant}/{name}/scale"),
                Some(told),
            ))
        }
        ["nodes", cluster, name, action] => {
            if *action == "drain" {
                named(cx, form, name)?;
            }
            let told = node::act(cx, cluster, name, action).await?;
            Ok(Done::Go(format!("/nodes/{cluster}/{name}"), Some(told)))
        }
        ["lines"] => {
            line::stop(cx, form).await?;
            Ok(Done::Go("/lines".to_owned(), None))
        }
        ["lines", name, "go"] => {
            line::go(cx, name).await?;
            Ok(Done::Go("/lines".to_owned(), None))
        }
        ["create", "policy"] => match page::policies::make(cx, form).await {
            Ok(place) => Ok(Done::Go(place, None)),
            Err(fail @ Fail::NotFound) => Err(fail),
            Err(fail) => Ok(Done::Page(
                page::policies::create(cx, form, Some(&fail)).await?,
            )),
        },
        ["create", "policy", "check"] => Ok(Done::Piece(page::policies::judged(cx, form).await)),
        ["create", "notification"] => match page::hooks::make(cx, form, false).await {
            Ok(place) => Ok(Done::Go(place, None)),
            Err(fail) => Ok(Done::Page(
                page::hooks::create(cx, form, Some(&fail)).await?,
            )),
        },
        ["create", "notification", "check"] => Ok(Done::Piece(page::hooks::judged(cx, form).await)),
        ["notifications", tenant, name, "test"] => {
            page::hooks::seen(cx, tenant, name).await?;
            hook::test(cx, tenant, name).await?;
            let place = edit::Target::notification(tenant, name).place();
            Ok(Done::Go(place, Some(cx.t(M::HookTested).to_owned())))
        }
        ["notifications", tenant, name, rest @ ..] => {
            page::hooks::seen(cx, tenant, name).await?;
            let target = edit::Target::notification(tenant, name);
            edited(cx, &target, form, rest, async |sent| {
                page::hooks::one(cx, tenant, name, Some(sent)).await
            })
            .await
        }
        ["settings", "token"] => {
            let issued = token::issue(cx, form).await;
            let page = page::settings::page(cx, Some(&issued)).await?;
            Ok(if issued.is_ok() {
                Done::Answer(page)
            } else {
                Done::Page(page)
            })
        }
        ["policies", "trial"] => {
            let found = page::policies::trials(cx, form).await;
            Ok(Done::Piece(page::policies::trial(cx, &found)))
        }
        ["policies", cluster, name, rest @ ..] => {
            let target = edit::Target::policy(cluster, name);
            match rest {
                ["delete"] => {
                    page::policies::confirm(cx, cluster, name).await?;
                    named(cx, form, name)?;
                    target.delete(cx).await?;
                    Ok(Done::Go("/policies".to_owned(), None))
                }
                _ => {
                    page::policies::one(cx, cluster, name, None).await?;
                    edited(cx, &target, form, rest, async |sent| {
                        page::policies::one(cx, cluster, name, Some(sent)).await
                    })
                    .await
                }
            }
        }
        ["quotas", cluster, tenant, kind, name, rest @ ..] => {
            let target = edit::Target::quota(cluster, tenant, kind, name).ok_or(Fail::NotFound)?;
            quota(cx, &target, form, rest).await
        }
        ["tenants", name, rest @ ..] => quota(cx, &edit::Target::tenant(name), form, rest).await,
        ["create", "sync"] => Ok(Done::Piece(page::create_sync(cx, form).await)),
        ["create"] => match create::all(cx, form).await {
            Ok(place) => Ok(Done::Go(place, None)),
            Err(fail @ (Fail::Bad(_) | Fail::Conflict(_) | Fail::Forbidden(_))) => {
                Ok(Done::Page(page::create_form(cx, form, Some(&fail)).await?))
            }
            Err(fail) => Err(fail),
        },
        _ => Err(Fail::NotFound),
    }
}

async fn quota(cx: &Cx, target: &edit::Target, form: &Params, rest: &[&str]) -> Result<Done, Fail> {
    page::quotas::seen(cx, target).await?;
    edited(cx, target, form, rest, async |sent| {
        page::quotas::one(cx, target, Some(sent)).await
    })
    .await
}

/// An edited text: taken over, or only judged; `again` shows the page with what is wrong.
async fn edited(
    cx: &Cx,
    target: &edit::Target,
    form: &Params,
    rest: &[&str],
    again: impl AsyncFnOnce(page::edit::Sent<'_>) -> Result<Page, Fail>,
) -> Result<Done, Fail> {
    let (text, seen) = (form.text("yaml"), form.text("seen"));
    match rest {
        ["check"] => {
            let end = target.change(cx, (&text, &seen), true).await;
            Ok(Done::Piece(page::edit::verdict(cx, &end)))
        }
        [] => match target.change(cx, (&text, &seen), false).await {
            Ok((before, after)) => {
                let told = if before == after {
                    M::EditNothing
                } else {
                    M::Saved
                };
                let told = cx.f(told, &[&target.name]);
                Ok(Done::Go(target.place(), Some(told)))
            }
            Err(Fail::Login) => Err(Fail::Login),
            Err(fail) => {
                let sent = page::edit::Sent {
                    text: &text,
                    seen: &seen,
                    fail: &fail,
                };
                Ok(Done::Page(again(sent).await?))
            }
        },
        _ => Err(Fail::NotFound),
    }
}

async fn page_release(cx: &Cx, tenant: &str, name: &str) -> Result<(), Fail> {
    page::release_seen(cx, tenant, name).await.map(|_| ())
}
