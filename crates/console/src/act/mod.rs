//! What changes something. Everything is done as the user: in the hub with their own credential, on
//! members by impersonation; who may not is told so by the API server. Every write leaves an audit line.

pub mod create;
pub mod group;
pub mod instance;
pub mod line;
pub mod logs;
pub mod node;
pub mod release;

use kube::api::PatchParams;
use maud::Markup;

use crate::{
    app::Cx,
    error::Fail,
    messages::M,
    page::{self, Page},
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
        ["instances", cluster, tenant, name, "restart"] => {
            instance::restart(cx, cluster, tenant, name).await?;
            let told = cx.f(M::Restarted, &[&name]);
            Ok(Done::Go(
                format!("/instances/{cluster}/{tenant}/{name}"),
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

async fn page_release(cx: &Cx, tenant: &str, name: &str) -> Result<(), Fail> {
    page::release_seen(cx, tenant, name).await.map(|_| ())
}
