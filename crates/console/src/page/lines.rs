//! Stopped lines and freezes: which there are, and throwing one.

use gantry_api::stop_line::StopKind;
use kube::ResourceExt;
use maud::html;

use super::{Block, Interest, Nav, Page, widgets};
use crate::{access::Right, app::Cx, error::Fail, messages::M};

/// The page.
///
/// # Errors
/// For who sees no lines.
pub async fn page(cx: &Cx) -> Result<Page, Fail> {
    if !cx.sight.lines {
        return Err(Fail::NotFound);
    }
    let lines: Vec<_> = cx.app.model.read().lines.values().cloned().collect();
    let make = cx.may(Right::gantry("create", "stoplines", "")).await;
    let end = cx.may(Right::gantry("delete", "stoplines", "")).await;
    let (running, _) = crate::view::releases::running(&cx.app.model.read(), &cx.sight, usize::MAX);
    let list = html! {
        h1 { (cx.t(M::Lines)) }
        @if lines.is_empty() { (widgets::empty(cx.t(M::NoLines), &html! { (cx.t(M::NoLinesHint)) })) }
        @else {
            div.scroll { table {
                thead { tr { th { (cx.t(M::Name)) } th { (cx.t(M::Kind)) } th { (cx.t(M::Scope)) } th { (cx.t(M::Why)) } th { (cx.t(M::By)) } th { (cx.t(M::From)) } th { (cx.t(M::Until)) } th {} } }
                tbody {
                    @for line in &lines {
                        @let spec = &line.spec;
                        @let scope: Vec<&String> = spec.tenants.iter().chain(&spec.cells).chain(&spec.clusters).collect();
                        tr {
                            th scope="row" { (line.name_any()) }
                            td { @if spec.kind == StopKind::Stop { (widgets::badge("bad", "‖", cx.t(M::KindStop))) } @else { (widgets::badge("hold", "❄", cx.t(M::KindFreeze))) } }
                            td { @if scope.is_empty() { (cx.t(M::WholeFleet)) } @else { @for s in scope { (s) " " } } }
                            td { (spec.reason) }
                            td { (spec.by) }
                            td { (spec.from.as_ref().map(|t| widgets::absolute(cx, t.0)).unwrap_or_default()) }
                            td { (spec.until.as_ref().map(|t| widgets::absolute(cx, t.0)).unwrap_or_default()) }
                            td.num { @if end { form method="post" action={ "/lines/" (line.name_any()) "/go" } { (widgets::csrf(cx)) button type="submit" { (cx.t(M::TakeBack)) } } } }
                        }
                    }
                }
            } }
        }
    };
    let form = html! {
        h2 { (cx.t(M::StopTheLine)) }
        p.big { (cx.f(M::StopSays, &[&running.len()])) }
        form.stack method="post" action="/lines" {
            (widgets::csrf(cx))
            label for="name" { (cx.t(M::Name)) }
            input #name name="name" required pattern="[a-z0-9]([\\-a-z0-9]*[a-z0-9])?" autocomplete="off" placeholder="payment-incident";
            label for="tenants" { (cx.t(M::LineTenants)) }
            input #tenants name="tenants" autocomplete="off";
            label for="cells" { (cx.t(M::LineCells)) }
            input #cells name="cells" autocomplete="off";
            label.radio { input type="checkbox" name="fleet" value="1"; (cx.t(M::WholeFleet)) }
            label for="reason" { (cx.t(M::Why)) }
            input #reason name="reason" required maxlength="1024" autocomplete="off";
            button.danger type="submit" { (cx.t(M::StopTheLine)) }
        }
    };
    let mut body = vec![Block::part("lines", "card", list)];
    if make {
        body.push(Block::part("stop", "card narrow", form));
    }
    Ok(Page {
        title: cx.t(M::Lines).to_owned(),
        nav: Nav::Lines,
        body,
        interest: Interest::Lines,
        ..Page::default()
    })
}
