//! A terminal in an instance: which container and shell, and the view that the script fills.

use maud::{Markup, html};

use super::widgets;
use crate::{act::exec::SHELLS, app::Cx, assets, messages::M, view::Params};

/// The pane. `containers` are those of the instance.
pub fn pane(cx: &Cx, place: &str, containers: &[String], params: &Params) -> Markup {
    let container = params.get("container");
    let shell = params.get("shell");
    html! {
        div.title { h2 { (cx.t(M::Terminal)) }
            form.actions method="get" {
                input type="hidden" name="tab" value="terminal";
                @if containers.len() > 1 {
                    label.sr for="container" { (cx.t(M::Container)) }
                    select #container name="container" { @for c in containers { option value=(c) selected[c == container] { (c) } } }
                }
                label.sr for="shell" { (cx.t(M::Shell)) }
                select #shell name="shell" { @for s in SHELLS { option value=(s) selected[s == shell] { (s) } } }
                button type="submit" { (cx.t(M::TerminalAnew)) }
            }
        }
        p.hint { (cx.t(M::TerminalHint)) }
        div.terminal data-terminal={ (place) "?container=" (container) "&shell=" (shell) }
            data-ended=(cx.t(M::TerminalEnded)) data-failed=(cx.t(M::TerminalFailed)) {
            textarea aria-label=(cx.t(M::Terminal)) autocapitalize="off" autocomplete="off" spellcheck="false" rows="1" {}
        }
        p.sr role="status" data-terminal-says {}
        noscript { (widgets::empty(cx.t(M::Terminal), &html! { (cx.t(M::TerminalScript)) })) }
        script src=(assets::TERMINAL.path) defer {}
    }
}
