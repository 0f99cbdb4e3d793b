//! Logging in.

use maud::{Markup, html};

use super::frame::bare;
use crate::{messages::M, prefs::Prefs};

/// The form, and why the last attempt came to nothing.
pub fn page(prefs: &Prefs, next: &str, wrong: Option<&str>) -> Markup {
    let t = |m: M| m.text(prefs.lang);
    let content = html! {
        @if let Some(wrong) = wrong { p.said role="alert" { (wrong) } }
        form.stack method="post" action="/login" autocomplete="off" {
            input type="hidden" name="next" value=(next);
            label for="credential" { (t(M::LoginCredential)) }
            textarea #credential name="credential" rows="6" required autofocus spellcheck="false" autocomplete="off"
                placeholder="eyJhbGciOi…" {}
            p.hint { (t(M::LoginHint)) }
            button.primary type="submit" { (t(M::LogIn)) }
        }
        details {
            summary { (t(M::LoginHow)) }
            p { (t(M::LoginHowToken)) }
            pre { "kubectl create token NAME -n NAMESPACE" }
            p { (t(M::LoginHowKubeconfig)) }
            pre { "kubectl config view --raw --flatten --minify" }
        }
    };
    bare(prefs, M::LogIn, &content)
}
