//! The page that says what a wish for instances will do, in numbers, and asks.

use std::collections::BTreeSet;

use gantry_hub::group::wishes::Verb;
use maud::html;

use super::{Block, Nav, Page, group, widgets};
use crate::{access::Right, app::Cx, error::Fail, messages::M, model::Key, view::Params};

/// The word of a verb.
pub fn word(verb: Verb) -> M {
    match verb {
        Verb::PullOut => M::PullOut,
        Verb::PutBack => M::PutBack,
        Verb::Restart => M::Restart,
    }
}

/// Whether someone may wish something for a Group's instances: it is written into the Group.
pub async fn may(cx: &Cx, tenant: &str, name: &str) -> bool {
    cx.may(Right::gantry("patch", "groups", tenant).named(name))
        .await
}

/// The page.
///
/// # Errors
/// If there is no such Group, or the user may not.
pub async fn confirm(cx: &Cx, params: &Params, tenant: &str, name: &str) -> Result<Page, Fail> {
    let group = group::seen(cx, tenant, name).await?;
    let verb = Verb::named(params.get("verb")).ok_or(Fail::NotFound)?;
    if !may(cx, tenant, name).await {
        return Err(Fail::NotFound);
    }
    let chosen: BTreeSet<&str> = params.all("instance").collect();
    let key: Key = (tenant.to_owned(), name.to_owned());
    let (found, cells) = {
        let state = cx.app.model.read();
        let all = state.instances(&key);
        let found: Vec<_> = all
            .filter(|(_, i)| chosen.contains(i.name.as_str()))
            .map(|(_, i)| i.clone())
            .collect();
        let cells: BTreeSet<String> = found.iter().map(|i| i.cell.clone()).collect();
        (found, cells)
    };
    if found.is_empty() {
        return Err(Fail::Bad(cx.t(M::ChooseInstances).to_owned()));
    }
    let says = match verb {
        Verb::PullOut => M::PullOutSays,
        Verb::PutBack => M::PutBackSays,
        Verb::Restart => M::RestartManySays,
    };
    let budget = &group.spec.availability.max_unavailable;
    let place = format!("/groups/{tenant}/{name}");
    let danger = verb != Verb::PutBack;
    let html = html! {
        h1 { (cx.t(word(verb))) " · " (name) }
        p.big { (cx.f(says, &[&found.len(), &cells.len(), budget])) }
        ul.plain { @for i in &found { li { span.mono { (i.name) } " " small { (i.cell) @if !i.node.is_empty() { " · " (i.node) } } } } }
        form.stack method="post" action={ (place) "/instances" } {
            (widgets::csrf(cx))
            input type="hidden" name="verb" value=(verb.name());
            @for i in &found { input type="hidden" name="instance" value=(i.name); }
            label for="reason" { (cx.t(M::Why)) }
            input #reason name="reason" maxlength="1024" autocomplete="off";
            div.actions {
                @if danger { button.danger type="submit" { (cx.t(word(verb))) } } @else { button.primary type="submit" { (cx.t(word(verb))) } }
                a.button href=(place) { (cx.t(M::Back)) }
            }
        }
    };
    let mut crumbs = group::crumbs(cx, tenant, &group.spec.app);
    crumbs.push((name.to_owned(), place));
    Ok(Page {
        title: format!("{} · {name}", cx.t(word(verb))),
        nav: Nav::Services,
        crumbs,
        body: vec![Block::part("confirm", "card narrow", html)],
        ..Page::default()
    })
}
