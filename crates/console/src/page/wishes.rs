//! The page that says what a wish for instances will do, in numbers, and asks.

use std::collections::BTreeSet;

use gantry_api::Group;
use gantry_hub::group::{
    moves::{self, Asked},
    wishes::Verb,
};
use maud::{Markup, html};

use super::{Block, Nav, Page, group, widgets};
use crate::{
    access::Right,
    act::wish::Wish,
    app::Cx,
    error::Fail,
    messages::M,
    model::{Instance, Key},
    view::Params,
};

/// The word of a verb.
pub fn word(wish: &Wish) -> M {
    match wish {
        Wish::Here(Verb::PullOut) => M::PullOut,
        Wish::Here(Verb::PutBack) => M::PutBack,
        Wish::Here(Verb::Restart) => M::Restart,
        Wish::MoveTo(_) => M::Move,
    }
}

/// Everything that can be wished for instances of a Group: to move only where there is another cell.
pub fn all(group: &Group) -> Vec<Wish> {
    let mut all: Vec<Wish> = Verb::ALL.into_iter().map(Wish::Here).collect();
    if group.spec.placement.cells.len() > 1 {
        all.push(Wish::MoveTo(String::new()));
    }
    all
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
    let wish = Wish::read(params.get("verb"), params.get("to")).ok_or(Fail::NotFound)?;
    if !may(cx, tenant, name).await {
        return Err(Fail::NotFound);
    }
    let chosen: BTreeSet<&str> = params.all("instance").collect();
    let key: Key = (tenant.to_owned(), name.to_owned());
    let found: Vec<_> = {
        let state = cx.app.model.read();
        let all = state.instances(&key);
        all.filter(|(_, i)| chosen.contains(i.name.as_str()))
            .map(|(_, i)| i.clone())
            .collect()
    };
    if found.is_empty() {
        return Err(Fail::Bad(cx.t(M::ChooseInstances).to_owned()));
    }
    let cells: BTreeSet<&str> = found.iter().map(|i| i.cell.as_str()).collect();
    let (wish, says, able) = match wish {
        Wish::Here(verb) => {
            let says = match verb {
                Verb::PullOut => M::PullOutSays,
                Verb::PutBack => M::PutBackSays,
                Verb::Restart => M::RestartManySays,
            };
            let budget = &group.spec.availability.max_unavailable;
            let html = html! {
                p.big { (cx.f(says, &[&found.len(), &cells.len(), budget])) }
                (names(&found))
            };
            (Wish::Here(verb), html, true)
        }
        Wish::MoveTo(to) => moving(cx, &group, params, &found, (&cells, &to)),
    };
    let place = format!("/groups/{tenant}/{name}");
    let danger = wish != Wish::Here(Verb::PutBack);
    let html = html! {
        h1 { (cx.t(word(&wish))) " · " (name) }
        (says)
        form.stack method="post" action={ (place) "/instances" } {
            (widgets::csrf(cx))
            input type="hidden" name="verb" value=(wish.name());
            @if let Wish::MoveTo(to) = &wish { input type="hidden" name="to" value=(to); }
            @for i in &found { input type="hidden" name="instance" value=(i.name); }
            @if able {
                label for="reason" { (cx.t(M::Why)) }
                input #reason name="reason" maxlength="1024" autocomplete="off";
            }
            div.actions {
                @if able { button type="submit" class=(if danger { "danger" } else { "primary" }) { (cx.t(word(&wish))) } }
                a.button href=(place) { (cx.t(M::Back)) }
            }
        }
    };
    let mut crumbs = group::crumbs(cx, tenant, &group.spec.app);
    crumbs.push((name.to_owned(), place));
    Ok(Page {
        title: format!("{} · {name}", cx.t(word(&wish))),
        nav: Nav::Services,
        crumbs,
        body: vec![Block::part("confirm", "card narrow", html)],
        ..Page::default()
    })
}

fn names(found: &[std::sync::Arc<Instance>]) -> Markup {
    html! {
        ul.plain { @for i in found { li { span.mono { (i.name) } " " small { (i.cell) @if !i.node.is_empty() { " · " (i.node) } } } } }
    }
}

/// Which cell to, and what then happens to each instance; whether that can be.
fn moving(
    cx: &Cx,
    group: &Group,
    params: &Params,
    found: &[std::sync::Arc<Instance>],
    (cells, to): (&BTreeSet<&str>, &str),
) -> (Wish, Markup, bool) {
    let placed = group.spec.placement.cells.iter().map(|c| c.name.as_str());
    let others: Vec<&str> = placed.filter(|c| !cells.contains(c)).collect();
    let to = if to.is_empty() {
        others.first().copied().unwrap_or_default()
    } else {
        to
    };
    let names: Vec<String> = found.iter().map(|i| i.name.clone()).collect();
    let asked = Asked {
        names: &names,
        to: Some(to),
        reason: "",
        by: "",
        now: cx.now,
    };
    let seen = if to.is_empty() {
        Err(cx.t(M::MoveNowhere).to_owned())
    } else {
        moves::change(group, asked)
    };
    let html = html! {
        @if !others.is_empty() {
            div.bar-row { span.hint { (cx.t(M::MoveTo)) }
                nav.choices aria-label=(cx.t(M::MoveTo)) { @for cell in &others {
                    a href=(params.with("to", cell)) aria-current=[(*cell == to).then_some("true")] { (cell) }
                } } }
        }
        @match &seen {
            Ok(change) => {
                p.big { (cx.f(M::MoveSays, &[&names.len(), &cells.len(), &to])) }
                ul.plain { @for step in &change.steps { li { @match &step.renewed {
                    None => (cx.f(M::MoveStep, &[&step.goes, &to])),
                    Some(other) => (cx.f(M::MovePasses, &[other, &step.cell, &step.goes, &to])),
                } } } }
            },
            Err(why) => p.said role="alert" { (why) },
        }
    };
    (Wish::MoveTo(to.to_owned()), html, seen.is_ok())
}
